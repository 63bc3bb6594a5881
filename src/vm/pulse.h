/* SPDX-License-Identifier: Apache-2.0 */
/* How long a VM that boots has given no sign of life: nothing on its console, not a word of its guest agent, no CPU time worth
 * the name. Pure. A guest that is slow, or gets little of a busy node, gives signs; one whose vCPU sleeps for ever gives none. */
#ifndef VSE_VM_PULSE_H
#define VSE_VM_PULSE_H

#include <stdbool.h>
#include <stdint.h>

struct pulse {
	bool begun;
	uint64_t looked; /* when; ms */
	uint64_t silent; /* ms */
	uint64_t said, cpu_ms;
};

#define PULSE_LOOK_MAX_MS                                                                          \
	10000 /* counted of the time between two looks: a node that was stopped slept as a whole */

/* now: loop time; said: bytes and words so far; cpu_ms: CPU time so far, 0: not known, then it is never silent. Silent for so
 * long, ms. */
uint64_t pulse_look(struct pulse *p, uint64_t now, uint64_t said, uint64_t cpu_ms);

#endif
