/* SPDX-License-Identifier: Apache-2.0 */
/* A streamed archive of files, folders and symbolic links: what a copy into or out of a VM carries.
 *
 * Entries hold one name, never a path: a folder is entered by its DIR record and left by an UP record. A
 * reader keeps a stack of open folders, so there is no path that could lead out of the target. Integers
 * are big endian.
 *   stream: magic (8 bytes), records, an END record, nothing after it
 *   record: u8 kind | u8 length of the name | u16 length of the target | u32 mode (permission bits) |
 *           i64 mtime, seconds | u32 mtime, nanoseconds | name | target
 *     1 FILE     then chunks: u32 length (1..ARCHIVE_CHUNK) and the bytes; u32 0; u64 XXH3-64 of the content
 *     2 DIR      its entries follow, then UP
 *     3 LINK     a symbolic link to `target` (any text; never followed by the reader)
 *     4 UP       name and target are empty
 *     5 END      then u64 files | u64 bytes of content | u64 XXH3-64 of every byte of the stream before this
 *                number that is not content of a file
 * Names are 1..255 bytes without '/' and NUL, and neither "." nor "..". Owners are not carried: what is
 * extracted belongs to who extracts. Set-user-id, set-group-id and sticky bits are dropped. */
#ifndef VSE_WIRE_ARCHIVE_H
#define VSE_WIRE_ARCHIVE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

#define ARCHIVE_MAGIC "vsearch\1"
#define ARCHIVE_CHUNK (64u << 10) /* bytes */
#define ARCHIVE_DEPTH 128         /* folders within folders, each an open descriptor */

struct archive_count {
	uint64_t files;   /* regular files */
	uint64_t bytes;   /* of their content */
	uint64_t skipped; /* writer only: sockets, pipes and devices below a top entry */
};

struct archive_writer;
/* An archive whose top entries are these n >= 1 paths (copied), each under its last component. A symbolic
 * link is followed when it is a top entry and kept as a link below one. Nothing is opened yet but each
 * path is looked at: ENOENT, EACCES; EINVAL for a path without a name ("/"), ENOTSUP for a device. */
int archive_writer_create(char *const *paths, size_t n, struct archive_writer **ret, struct err *err);
/* The next bytes, at most `max` (>= 1). 0: the archive is complete. -1: a file could not be read, or shrank
 * while it was read (ESTALE); the archive is of no use then. A file that grows is cut at the size it had. */
ssize_t archive_writer_read(struct archive_writer *w, void *p, size_t max, struct err *err);
struct archive_count archive_writer_count(const struct archive_writer *w);
void archive_writer_destroy(struct archive_writer *w); /* NULL is fine */

struct archive_reader;
/* Extracts into the folder `dirfd` (duplicated). `name` (copied), if not NULL, replaces the name of the one
 * top entry; a second one is then refused. EINVAL: a name that no entry may have. */
int archive_reader_create(int dirfd, const char *name, struct archive_reader **ret, struct err *err);
/* Before the first byte: the archive must hold exactly one top entry, a file or a folder, of this name (copied);
 * anything else is refused with EBADMSG or EINVAL before it is written. For archives of who is not trusted. */
void archive_reader_expect(struct archive_reader *r, const char *name);
/* Takes all bytes. Existing folders are kept and filled, existing files and links are replaced, whole, once
 * the new content's checksum was right; a folder in the place of a file or the reverse is an error, and so
 * is a symbolic link where the archive has a folder. EBADMSG: not an archive, or a damaged one. After -1 every
 * call fails; what was extracted before stays, the file in work does not. */
int archive_reader_feed(struct archive_reader *r, const void *p, size_t n, struct err *err);
/* 0 when the archive was complete. EBADMSG when it ended early. */
int archive_reader_finish(struct archive_reader *r, struct err *err);
struct archive_count archive_reader_count(const struct archive_reader *r);
void archive_reader_destroy(struct archive_reader *r); /* NULL is fine */

/* Where a copy to `path` goes, for archive_reader_create(). `into`, or `path` ends in '/', or it is an existing
 * folder: *ret_dirfd is that folder and *ret_name NULL; else the folder above and the last component. */
int archive_target(const char *path, bool into, int *ret_dirfd, char **ret_name, struct err *err);
/* 1..255 bytes, no '/', no NUL, not "." or "..". */
bool archive_name_ok(const char *name, size_t len);

#endif
