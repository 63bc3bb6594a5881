/* SPDX-License-Identifier: Apache-2.0 */
/* vse-guest: process 1 of our initramfs, the agent inside a VM (--agent), or the same agent as an ordinary
 * process on its stdin and stdout (--stdio); and what a container needs (wire/container.h). */
#include <string.h>

#include "guest/contain.h"

static int run(enum guest_init init)
{
	struct guest g = {.init = init, .sshd_log = -1, .notify_fd = -1};
	if (init == INIT_NONE)
		channel_stdio(&g.channel);
	else
		channel_init(&g.channel);
	return agent_run(&g);
}

int main(int argc, char **argv)
{
	const char *arg = argc > 1 ? argv[1] : "";
	if (strcmp(arg, "--container") == 0)
		contain_main(argv + 2);
	if (strcmp(arg, "--unpack") == 0 && argc == 4)
		return unpack_main(argv[2], argv[3]);
	if (strcmp(arg, "--relay") == 0)
		return relay_main();
	if (strcmp(arg, "--guard") == 0 && argc > 5)
		return guard_main(argv + 2);
	if (getpid() == 1 && strcmp(arg, "--stdio") != 0)
		init_main();
	if (strcmp(arg, "--stdio") == 0)
		return run(INIT_NONE);
	if (strcmp(arg, "--agent") == 0)
		return run(INIT_SYSTEMD);
	if (strcmp(arg, "--version") == 0) {
		puts("vse-guest " VSE_VERSION);
		return 0;
	}
	fputs("usage: vse-guest --agent | --stdio | --version\n", stderr);
	return 2;
}
