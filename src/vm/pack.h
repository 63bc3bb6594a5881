/* SPDX-License-Identifier: Apache-2.0 */
/* The files of a saved VM: a byte stream (memory, devices) or a disk with its holes, compressed piece by piece (zstd), each
 * piece with its length and checksum (XXH3), and an end that says how much it was: what is damaged or cut short is
 * found before a byte of it is used. Blocking; run by a process of its own (packer.h). */
#ifndef VSE_VM_PACK_H
#define VSE_VM_PACK_H

#include "base/err.h"

#define PACK_ID_MAX 64 /* bytes: which save, which VM; both files of a VM must be of one save */

enum pack_kind { PACK_STREAM = 1, PACK_DISK = 2 };

/* Reads `in` to its end (a disk: its data, not its holes) and writes the file `out`, to the disk below it (fsync). */
int pack_write(enum pack_kind kind, const char *id, int in, int out, struct err *err);
/* Reads the file `in` and writes what was packed; a disk goes into an empty file, which gets its size. EBADMSG: damaged,
 * or another file than id says; what was written until then is good. */
int pack_read(enum pack_kind kind, const char *id, int in, int out, struct err *err);

/* The program behind packer_start(): words "pack" or "unpack", "state" or "disk", id; from descriptor 0 to 1. */
int pack_main(int n, char **words, struct err *err);

#endif
