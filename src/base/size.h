/* SPDX-License-Identifier: Apache-2.0 */
/* Sizes and durations as people write them. */
#ifndef VSE_BASE_SIZE_H
#define VSE_BASE_SIZE_H

#include <stdint.h>

#include "base/err.h"

/* Bytes from "512M", "2GiB", "1.5G", "4096". Suffixes K M G T, with or without B or iB, any case, all
 * powers of 1024 (as Slurm and QEMU read them). EINVAL on anything else, on overflow and on nothing. */
int size_parse(const char *s, uint64_t *ret_bytes, struct err *err);
/* "1.5 GiB", "256 MiB", "12 B". */
void size_format(uint64_t bytes, char out[24]);
/* Milliseconds from "500ms", "30s", "5m", "2h", "1d", "90" (seconds), "1.5s". */
int duration_parse(const char *s, uint64_t *ret_ms, struct err *err);
/* "0.4s", "12s", "3m05s", "2h10m", "4d03h". */
void duration_format(uint64_t ms, char out[24]);
/* A whole decimal number within [min, max]; no sign unless min < 0, no white space, nothing after it. */
int int_parse(const char *s, int64_t min, int64_t max, int64_t *ret, struct err *err);

#endif
