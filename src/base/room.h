/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VSE_BASE_ROOM_H
#define VSE_BASE_ROOM_H

#include <stdint.h>

/* Bytes of memory that this process and its children may still take: what the kernel has available (MemAvailable of
 * proc(5)), within what the limits of its cgroups leave (versions 1 and 2). UINT64_MAX: not known. */
uint64_t room_memory(void);

#endif
