/* SPDX-License-Identifier: Apache-2.0 */
/* A kernel that came up without a timer: no sleep in it ever ends, no process is ever interrupted, and what waits for the
 * smallest thing waits for ever. Linux on x86 does so where the local APIC's timer is all it has (QEMU's microvm) and is
 * measured against the TSC, as always without KVM: when the vCPU loses its CPU for 0.1 s just before the first of the
 * measurement's 25 ticks, all of them pass in no time, and the kernel finds the timer too slow to be used
 * (calibrate_APIC_clock() in arch/x86/kernel/apic/apic.c). On a node with eight times as many vCPUs as CPUs that was one boot in
 * fifty. Nothing mends it but another boot. */
#include <sched.h>
#include <string.h>

#include "base/path.h"
#include "base/time.h"
#include "guest/guest.h"
#include "wire/kv.h"

#define DEVICE "/sys/devices/system/clockevents/clockevent0/current_device"
#define TEXT                                                                                       \
	"the kernel found no timer (a vCPU that waits long for a CPU measures it wrong): the VM "  \
	"boots again"
#define TELL_MS 3000 /* for the host to be there and to take it */
#define AFTER_MS 50  /* the port hands over asynchronously */

/* The device's name, or nothing. */
static bool has_timer(void)
{
	_cleanup_free_ char *device = NULL;
	return path_read(DEVICE, 128, &device, NULL, NULL) < 0 || device[strspn(device, " \n")];
}

/* Reading a clock needs no timer, sleeping does. */
static void tell(struct guest *g)
{
	_cleanup_buf_ struct buf log = BUF_INIT, bye = BUF_INIT;
	uint64_t until = time_mono_ms() + TELL_MS;
	channel_init(&g->channel);
	while (!channel_try(&g->channel, time_mono_ms()) && time_mono_ms() < until)
		sched_yield();
	kv_adds(&log, "text", TEXT);
	agent_send(g, 0, "log", &log);
	kv_adds(&bye, "how", "reboot");
	agent_send(g, 0, "bye", &bye);
	while (g->channel.up && buf_len(&g->out) && time_mono_ms() < until) {
		agent_flush(g, 0);
		sched_yield();
	}
	until = time_mono_ms() + AFTER_MS;
	while (time_mono_ms() < until)
		sched_yield();
}

void timer_check(void)
{
	struct guest g = {.init = INIT_VSE, .sshd_log = -1, .notify_fd = -1};
	if (has_timer())
		return;
	init_say("%s", TEXT);
	tell(&g);
	power_now("reboot");
}
