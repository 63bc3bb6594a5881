/* SPDX-License-Identifier: Apache-2.0 */
/* A host that attaches to a running guest finds the middle of a stream, and a guest that may not have noticed that the
 * host before it is gone. See wire/guestproto.h. */
#ifndef VSE_WIRE_RESYNC_H
#define VSE_WIRE_RESYNC_H

#include <stdbool.h>

#include "base/buf.h"

/* Drops what stands before a "hello". True: `in` begins with one (whose end may be still to come). */
bool resync_find(struct buf *in);
/* Appends the nonsense that makes a guest agent begin anew, wherever in a frame it is. */
void resync_knock(struct buf *out);

#endif
