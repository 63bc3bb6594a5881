/* SPDX-License-Identifier: Apache-2.0 */
/* Files and folders: whole-file reads and atomic writes, trees made and removed without following links. */
#ifndef VSE_BASE_PATH_H
#define VSE_BASE_PATH_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/err.h"

/* `a/b`, with exactly one slash between; malloc'ed. */
char *path_join(const char *a, const char *b);
/* mkdir -p. Existing folders are fine and keep their mode. */
int path_mkdirs(const char *path, mode_t mode, struct err *err);
/* Removes a file or a whole tree; never follows a symbolic link, never leaves the tree; absent is fine. */
int path_remove(const char *path, struct err *err);
/* The whole regular file (of /proc and /sys too) as malloc'ed bytes plus a closing NUL. EFBIG when longer than max,
 * EINVAL for a pipe, device or socket: never waits for one. ret_len may be NULL. */
int path_read(const char *path, size_t max, char **ret_data, size_t *ret_len, struct err *err);
/* The same for what the user names, pipes and devices too: may wait. */
int path_read_any(const char *path, size_t max, char **ret_data, size_t *ret_len, struct err *err);
/* Writes beside the target, fsyncs, renames over it: a reader sees the old or the new file, whole. */
int path_write(const char *path, const void *data, size_t len, mode_t mode, struct err *err);
/* As path_write() without the fsync, which takes seconds on a busy disk: for what is worth nothing after a power cut. */
int path_replace(const char *path, const void *data, size_t len, mode_t mode, struct err *err);
bool path_exists(const char *path); /* follows links */
/* The folder of the running program (from /proc/self/exe), malloc'ed; NULL where unknown. */
char *path_self_dir(void);
/* The program's full path as execvp would find it, malloc'ed, or NULL. `name` with a slash is taken as is. */
char *path_find_program(const char *name);
/* write(2) until all is out; retries EINTR, and waits where a non-blocking descriptor is full. 0 or -1 with errno. */
int fd_write_all(int fd, const void *data, size_t len);
/* read(2) until `len` bytes or the end; gives the count or -1 with errno. */
ssize_t fd_read_full(int fd, void *data, size_t len);

#endif
