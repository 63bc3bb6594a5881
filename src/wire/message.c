/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/message.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/text.h"

int message_write(struct buf *out, uint32_t id, uint32_t rank, const json_t *j, struct err *err)
{
	_cleanup_free_ char *text = json_dumps(j, JSON_COMPACT);
	if (!text)
		return err_set(err, EINVAL, "message cannot be written as JSON");
	size_t n = strlen(text);
	if (n > FRAME_MAX_MESSAGE)
		return err_set(err, E2BIG, "message of %zu bytes, at most %u are allowed", n,
			       FRAME_MAX_MESSAGE);
	frame_write(out, &(struct frame){.len = (uint32_t)n,
					 .type = FRAME_MESSAGE,
					 .id = id,
					 .rank = rank,
					 .payload = text});
	return 0;
}

json_t *message_read(const struct frame *f, struct err *err)
{
	json_error_t je;
	json_t *j = json_loadb(f->payload, f->len, JSON_REJECT_DUPLICATES, &je);
	if (!j) {
		err_set(err, EPROTO, "message is not JSON: %s", je.text);
		return NULL;
	}
	if (!json_is_object(j)) {
		json_decref(j);
		err_set(err, EPROTO, "message is not a JSON object");
		return NULL;
	}
	return j;
}

json_t *message_error(const struct err *err)
{
	/* A file name, a guest's own words, a character cut in two: none may cost the cause. */
	_cleanup_free_ char *text = text_cleaned(err->text);
	return json_pack("{s:b, s:i, s:s}", "ok", 0, "code", err->code, "error", text);
}

int message_is_error(const json_t *j, struct err *err)
{
	const json_t *ok = json_object_get(j, "ok");
	if (!ok || !json_is_false(ok))
		return 0;
	const char *text = json_string_value(json_object_get(j, "error"));
	err_set(err, (int)json_integer_value(json_object_get(j, "code")), "%s",
		text ? text : "no reason given");
	if (err)
		text_clean(err->text);
	return -1;
}

int message_str(const json_t *j, const char *key, const char **ret, struct err *err)
{
	const char *s = json_string_value(json_object_get(j, key));
	if (!s)
		return err_set(err, EPROTO, "message without text '%s'", key);
	*ret = s;
	return 0;
}

int message_int(const json_t *j, const char *key, json_int_t min, json_int_t max, json_int_t *ret,
		struct err *err)
{
	const json_t *v = json_object_get(j, key);
	if (!json_is_integer(v))
		return err_set(err, EPROTO, "message without number '%s'", key);
	json_int_t n = json_integer_value(v);
	if (n < min || n > max)
		return err_set(err, ERANGE, "'%s' is %lld, allowed are %lld..%lld", key,
			       (long long)n, (long long)min, (long long)max);
	*ret = n;
	return 0;
}

bool message_ranks(const json_t *j, struct rankset *ret)
{
	const char *text = json_string_value(json_object_get(j, "ranks"));
	const json_t *rank = json_object_get(j, "rank");
	if (text)
		return rankset_parse(ret, text, RANK_MAX, NULL) == 0;
	if (!json_is_integer(rank) || json_integer_value(rank) < 0 || json_integer_value(rank) >= RANK_MAX)
		return false;
	rankset_add(ret, (uint32_t)json_integer_value(rank));
	return true;
}
