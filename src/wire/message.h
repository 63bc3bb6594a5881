/* SPDX-License-Identifier: Apache-2.0 */
/* JSON messages between our own programs, in FRAME_MESSAGE frames. A request is {"verb": ..., parameters};
 * every request gets, under its frame id, any number of {"event": ...} and then one {"ok": true, ...} or
 * {"ok": false, "code": errno, "error": text}, which ends the id. */
#ifndef VSE_WIRE_MESSAGE_H
#define VSE_WIRE_MESSAGE_H

#include <jansson.h>

#include "base/buf.h"
#include "base/rankset.h"
#include "wire/frame.h"

#define MESSAGE_VERSION 1 /* of the verbs; in the hello, both sides must agree */

static inline void cleanup_json(json_t **j)
{
	json_decref(*j);
}
#define _cleanup_json_ _cleanup_(cleanup_json)

/* Appends one frame with the JSON text of j (borrowed). E2BIG over FRAME_MAX_MESSAGE: nothing is added. */
int message_write(struct buf *out, uint32_t id, uint32_t rank, const json_t *j, struct err *err);
/* The JSON object in a frame: new reference, or NULL with EPROTO. Duplicate keys are refused. */
json_t *message_read(const struct frame *f, struct err *err);
/* {"ok": false, ...} from an error, and an error from that; the text is made clean (base/text.h) both times. */
json_t *message_error(const struct err *err);
int message_is_error(const json_t *j, struct err *err); /* 0: it is not one */

/* The VMs that an event is about, added to `ret`: its "rank", or its "ranks" where equal answers of several were folded.
 * False: it names none. */
bool message_ranks(const json_t *j, struct rankset *ret);

/* Typed members with bounds: EPROTO names the member. `ret` is borrowed from j. */
int message_str(const json_t *j, const char *key, const char **ret, struct err *err);
int message_int(const json_t *j, const char *key, json_int_t min, json_int_t max, json_int_t *ret,
		struct err *err);

#endif
