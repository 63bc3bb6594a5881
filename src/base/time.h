/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VSE_BASE_TIME_H
#define VSE_BASE_TIME_H

#include <stdint.h>

uint64_t time_mono_ms(void); /* CLOCK_MONOTONIC, milliseconds */
uint64_t time_wall_ns(void); /* CLOCK_REALTIME, nanoseconds since 1970 */
/* UTC as "2026-01-31T12:00:00Z". */
void time_format(uint64_t wall_s, char out[24]);

#endif
