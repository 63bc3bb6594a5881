/* SPDX-License-Identifier: Apache-2.0 */
/* The binary interface of Palacios' Linux module: numbers and structures of its ioctls (raw numbers, x86-64, packed).
 * Source: the public interface of the NU line (PeterDinda/palacios, devel) and of the Pitt/Hobbes line
 * (drouyang/palacios, devel). docs/palacios.md says what was seen to work on a real module and what was only read. */
#ifndef VSE_HYPERVISOR_PALACIOS_ABI_H
#define VSE_HYPERVISOR_PALACIOS_ABI_H

#include <stdint.h>

#define PALACIOS_NAME_MAX 127 /* bytes of a VM's name; the field has one more for the NUL */
#define PALACIOS_VMS_MAX 32   /* VMs on a node */
#define PALACIOS_CPUS_MAX                                                                          \
	31 /* CPUs that a VM may be given: 0 to 30 (the launch builds its mask in a signed 32-bit int) */

/* Two lines of development with incompatible numbers. Sending one's numbers to the other only fails (EINVAL). */
enum palacios_line { PALACIOS_ABSENT, PALACIOS_NU, PALACIOS_PITT };

/* On /dev/v3vee, NU line. */
enum {
	V3_CREATE_GUEST = 12, /* struct v3_create; gives N >= 0: the VM is /dev/v3-vmN */
	V3_FREE_GUEST = 13,   /* the argument is N itself */
};

/* On /dev/v3-vmN, NU line. The result of PAUSE, CONTINUE and STOP says nothing: read the state back. */
enum {
	V3_VM_STREAM_CONNECT = 21, /* char[128]: the stream's name; gives a descriptor */
	V3_VM_PAUSE = 23,
	V3_VM_CONTINUE = 24,
	V3_VM_LAUNCH = 25,
	V3_VM_STOP = 26,
	V3_VM_LOAD = 27,      /* struct v3_checkpoint */
	V3_VM_SAVE = 28,      /* struct v3_checkpoint */
	V3_VM_MOVE_CORE = 33, /* struct v3_move_core */
	V3_VM_RESET = 40,     /* struct v3_reset */
};

struct v3_create {
	uint64_t size; /* of the guest image */
	const void *image;
	char name[PALACIOS_NAME_MAX + 1];
} __attribute__((packed));

struct v3_checkpoint {
	char store[128]; /* "DIR" */
	char url[256];   /* with DIR: an absolute path of a folder */
	uint64_t options; /* bits: 1 no memory, 2 no devices, 4 no cores, 8 no architecture; 0: everything */
} __attribute__((packed));

struct v3_move_core {
	uint16_t vcore, pcore;
} __attribute__((packed));

struct v3_reset {
	uint32_t type; /* 0: all */
	uint32_t first_core, num_cores;
} __attribute__((packed));

_Static_assert(sizeof(struct v3_create) == 144, "as the module has it");
_Static_assert(sizeof(struct v3_checkpoint) == 392, "as the module has it");
_Static_assert(sizeof(struct v3_move_core) == 4, "as the module has it");
_Static_assert(sizeof(struct v3_reset) == 12, "as the module has it");

#endif
