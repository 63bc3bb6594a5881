/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "base/alloc.h"
#include "base/rankset.h"
#include "base/size.h"
#include "hypervisor/fake.h"

#define STATE_DEFAULT (512u << 10)
#define STATE_MAX (1u << 30)

enum word_kind { FLAG, DURATION, SIZE, NUMBER, TEXT };

static const struct {
	const char *name;
	enum word_kind kind;
	size_t offset;
} words[] = {
#define WORD(name, kind, field)                                                                    \
	{                                                                                          \
		name, kind, offsetof(struct fake_script, field)                                    \
	}
	WORD("boot", DURATION, boot_ms),          WORD("ready", DURATION, ready_ms),
	WORD("refuse-start", FLAG, refuse_start), WORD("fail-start", FLAG, fail_start),
	WORD("never-hello", FLAG, never_hello),   WORD("never-ready", FLAG, never_ready),
	WORD("fail-setup", FLAG, fail_setup),     WORD("fail-again", FLAG, fail_again),
	WORD("crash-after", DURATION, crash_ms),  WORD("poweroff-after", DURATION, poweroff_ms),
	WORD("slow-exec", DURATION, exec_ms),     WORD("ignore-shutdown", FLAG, ignore_shutdown),
	WORD("hello-twice", FLAG, hello_twice),   WORD("garbage", FLAG, garbage),
	WORD("console", TEXT, console),           WORD("console-bytes", SIZE, console_bytes),
	WORD("state", SIZE, state_bytes),         WORD("hang", NUMBER, hangs),
	WORD("hang-rank", NUMBER, hang_rank),     WORD("no-timer", FLAG, no_timer),
#undef WORD
};

static int set_word(void *at, enum word_kind kind, const char *value, struct err *err)
{
	int64_t number;
	switch (kind) {
	case FLAG:
		if (value)
			return err_set(err, EINVAL, "takes no value");
		*(bool *)at = true;
		return 0;
	case DURATION:
		return value ? duration_parse(value, at, err)
			     : err_set(err, EINVAL, "needs a duration");
	case SIZE: return value ? size_parse(value, at, err) : err_set(err, EINVAL, "needs a size");
	case NUMBER:
		if (int_parse(value ? value : "", 0, RANK_MAX, &number, err) < 0)
			return -1;
		*(uint64_t *)at = (uint64_t)number;
		return 0;
	case TEXT:
		free(*(char **)at);
		*(char **)at = xstrdup(value ? value : "");
		return 0;
	}
	return -1;
}

static int parse_word(struct fake_script *s, const char *word, struct err *err)
{
	size_t n = strcspn(word, "=");
	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		if (strlen(words[i].name) != n || memcmp(words[i].name, word, n) != 0)
			continue;
		if (set_word((char *)s + words[i].offset, words[i].kind,
			     word[n] ? word + n + 1 : NULL, err) < 0)
			return err_prefix(err, "script word %s: ", words[i].name);
		return 0;
	}
	return err_set(err, EINVAL, "script word %s: unknown", word);
}

int fake_script_parse(struct fake_script *s, const struct strvec *list, struct err *err)
{
	s->state_bytes = STATE_DEFAULT;
	s->hang_rank = UINT64_MAX;
	for (size_t i = 0; list && i < list->n; i++)
		if (parse_word(s, list->v[i], err) < 0)
			return -1;
	return s->state_bytes <= STATE_MAX ? 0 : err_set(err, EINVAL, "script word state: too large");
}

void fake_script_finish(struct fake_script *s)
{
	free(s->console);
	*s = (struct fake_script){0};
}
