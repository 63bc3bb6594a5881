/* SPDX-License-Identifier: Apache-2.0 */
/* What the Palacios module says in /proc and in the kernel's log, and what a guest says on its two streams. The first byte
 * chooses; whatever follows, what is returned is within its bounds. */
#include <stdint.h>
#include <string.h>

#include "base/alloc.h"
#include "base/text.h"
#include "hypervisor/palacios.h"
#include "wire/frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void guests(const char *text)
{
	struct palacios_guest v[PALACIOS_VMS_MAX];
	size_t n = palacios_guests(text, v, ARRAY_SIZE(v));
	if (n > ARRAY_SIZE(v))
		abort();
	for (size_t i = 0; i < n; i++) {
		if (v[i].number >= PALACIOS_VMS_MAX || strlen(v[i].name) > PALACIOS_NAME_MAX ||
		    v[i].state > PALACIOS_LOST)
			abort();
		(void)palacios_is_orphan(v[i].name);
	}
}

static void cores_and_info(const char *text)
{
	struct palacios_cores c;
	struct palacios_info i;
	struct err e = ERR_INIT;
	palacios_cores(text, "vm-a", &c);
	if (c.running > c.vcores)
		abort();
	if (palacios_info(text, &i, &e) < 0) {
		if (!e.code || !e.text[0])
			abort();
	} else if (!i.cpus || i.block < 4096) {
		abort();
	}
	(void)palacios_free_blocks(text, 4096);
}

static void kernel_log(const char *text)
{
	char said[100];
	palacios_kernel_errors(text, "vm-a", said, sizeof(said));
	if (strlen(said) >= sizeof(said) || strchr(said, '\n') || !text_is_utf8(said))
		abort();
}

static void streams(const char *p, size_t n)
{
	struct palacios_words w = {0};
	for (size_t at = 0; at < n; at += 7)
		palacios_words_console(&w, p + at, MIN(n - at, 7));
	for (size_t at = 0; at < n; at += 5)
		palacios_words_channel(&w, p + at, MIN(n - at, 5));
	if (w.line_len >= sizeof(w.line) || buf_len(&w.frames) > FRAME_HEADER + FRAME_MAX_GUEST + 5)
		abort();
	palacios_words_clear(&w);
}

static void machine(const char *text)
{
	_cleanup_strvec_ struct strvec words = STRVEC_INIT;
	_cleanup_buf_ struct buf xml = BUF_INIT;
	static const unsigned cpu;
	const struct palacios_machine m = {.memory = 1 << 20,
					   .cpus = 1,
					   .target_cpus = &cpu,
					   .boot = "/boot",
					   .root = text,
					   .extra = &words};
	strvec_split(&words, text, "\n");
	if (palacios_config(&m, &xml, NULL) == 0 && strlen(buf_cstr(&xml)) != buf_len(&xml))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (!size)
		return 0;
	_cleanup_free_ char *text = xmemdup0(data + 1, size - 1);
	switch (data[0] % 5) {
	case 0: guests(text); break;
	case 1: cores_and_info(text); break;
	case 2: kernel_log(text); break;
	case 3: streams(text, size - 1); break;
	case 4: machine(text); break;
	}
	return 0;
}
