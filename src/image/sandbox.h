/* SPDX-License-Identifier: Apache-2.0 */
/* A function run as root of its own namespaces: pid, mount, ipc, uts, and for an ordinary user a
 * user namespace with his subordinate ids. Whatever ends the caller, everything in there ends with
 * it: mounts and processes by the kernel, the temporary folder by a keeper process.
 *
 *   caller --- keeper (own session; in the user namespace, so it may remove what subordinate ids
 * own;
 *     |          |     waits for end-of-file from the caller)
 *     |          +--- init (pid 1 of the namespace: runs fn; SIGKILL when the keeper ends)
 *     +--- socket pair: progress, the error, the result; closed = the caller has ended or is done
 *
 * The keeper makes the folder and removes it: after a SIGKILL of the caller it kills init, waits
 * for the kernel to end what runs in there, removes the folder and ends. If everything is killed at
 * once, the folder's name (pid-start of the caller) lets the next start sweep it. */
#ifndef VSE_IMAGE_SANDBOX_H
#define VSE_IMAGE_SANDBOX_H

#include "base/err.h"
#include "image/image.h"

#define SANDBOX_RESULT_MAX 256
#define SANDBOX_KEEP_MAX 8

struct sandbox;      /* the caller's side */
struct sandbox_self; /* inside: how fn speaks to the caller */

/* Runs inside. `dir` is the temporary folder (on the store's file system). */
typedef int sandbox_fn(void *arg, struct sandbox_self *self, const char *dir, struct err *err);

/* dir: must not exist, its parent must. Blocks until fn has ended, giving its error or its result.
 * On success the folder stays until sandbox_end(); on failure it is gone already. Of the caller's
 * descriptors only keep[] (borrowed) are open inside. */
int sandbox_run(const char *dir, sandbox_fn *fn, void *arg, const int *keep, size_t n_keep,
		image_progress_fn *progress, void *progress_arg, struct sandbox **ret,
		char ret_result[SANDBOX_RESULT_MAX], struct err *err);
/* Removes the folder, waits until that is done. NULL is fine. */
void sandbox_end(struct sandbox *s);

/* Inside: tells the caller's progress function. */
void sandbox_say(struct sandbox_self *self, const char *step, unsigned done, unsigned total,
		 const char *text);
/* Inside: what sandbox_run gives the caller. */
void sandbox_result(struct sandbox_self *self, const char *result);

/* The caller is an ordinary user, so a user namespace is needed: checks subordinate ids and tools,
 * with a line on what to do. */
int sandbox_check(struct err *err);
/* Removes a tree that subordinate ids may own. */
int sandbox_remove(const char *path, struct err *err);

#endif
