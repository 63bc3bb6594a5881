/* SPDX-License-Identifier: Apache-2.0 */
/* What ssh runs on a node: a script for any POSIX sh with coreutils, as one string that every login shell (csh and
 * fish too) hands on unchanged. It speaks to the launcher in lines "MARK word": the mark is random, so that whatever
 * start-up files print is no answer.
 *   MARK send       the node has no such agent: its bytes are wanted on standard input, then
 *   MARK pack       the same, as a line with their number and then as one frame of zstd, then
 *   MARK run        the agent runs from now on: its bootstrap is wanted on standard input
 *   MARK fail TEXT  nothing was left behind
 * A received agent is written to a file in a new folder of mode 0700; the folder is removed before a byte arrives, and
 * the file is run through its descriptor (9, open for reading in the agent), so nothing is left however it ends.
 * A copy of it may be kept, the newest only, as vse-agent-SHA256 in the user's folder of the node's cache (stage/cache.h),
 * where the next launch finds it: its cksum is compared, since nobody else can write there. */
#ifndef VSE_LAUNCHER_SSH_SCRIPT_H
#define VSE_LAUNCHER_SSH_SCRIPT_H

#include "base/strvec.h"
#include "launcher/payload.h"

/* malloc'ed. shared: where the agent may be, NULL = nowhere; stage: it may be sent; keep: and found in the cache, and kept
 * there. The caller has checked args. */
char *ssh_script(const char *mark, const char *shared, bool stage, bool keep,
		 const struct payload *p, char *const *args, size_t n_args);
/* Only of characters that need no quoting anywhere. */
bool ssh_script_safe(const char *word);

#endif
