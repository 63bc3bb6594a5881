/* SPDX-License-Identifier: Apache-2.0 */
/* What QEMU says on QMP, line by line, and at its end on stderr. Whatever it is, it is a message or an error. */
#include <stdint.h>
#include <string.h>

#include "base/alloc.h"
#include "hypervisor/qemu.h"
#include "hypervisor/qemu_qmp.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct qmp_message *m)
{
	if (m->kind == QMP_EVENT && (!m->name || (m->data && !json_is_object(m->data))))
		abort();
	if (m->kind == QMP_ERROR && (!m->name || !m->text))
		abort();
	if (m->kind == QMP_RETURN && !m->data)
		abort();
	if (m->id > INT64_MAX)
		abort();
}

static void one_line(const char *line, size_t len)
{
	struct qmp_message m;
	struct err e = ERR_INIT;
	if (qmp_parse(line, len, &m, &e) < 0) {
		if (!e.code || !e.text[0])
			abort();
		return;
	}
	check(&m);
	qmp_message_finish(&m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_free_ char *text = xmemdup0(data, size);
	char said[80];
	for (size_t at = 0; at < size;) {
		const char *nl = memchr(text + at, '\n', size - at);
		size_t len = nl ? (size_t)(nl - text) - at : size - at;
		one_line(text + at, len);
		at += len + 1;
	}
	qemu_last_words(text, said, sizeof(said));
	if (strlen(said) >= sizeof(said) || strchr(said, '\n'))
		abort();
	struct qemu_binary b = {.path = "qemu"};
	(void)qemu_binary_parse(text, &b, NULL);
	(void)qemu_tsc_khz(text);
	return 0;
}
