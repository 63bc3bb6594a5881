/* SPDX-License-Identifier: Apache-2.0 */
/* What the back end `container` and vse-guest, which is process 1 in there, agree on. The program comes from the
 * image's initramfs in a memfd, so both are always of one build.
 *   vse-guest --container UPPER RUN CPUS FIRST MEMORY NET [DIR...]   process 1: bytes of the writable layer, bytes of each
 *                                                       of /run and /dev/shm, CPUs from the FIRST of those allowed,
 *                                                       bytes that one process may have (0: any), 1 = with an eth0;
 *                                                       DIR: where CONTAINER_MOUNT 0, 1... are to be
 *   vse-guest --guard UID GID DIR PROGRAM ARG...        runs bwrap, ends it and its process 1 when the agent ends; as
 *                                                       UID if that is not 0, with an image that only root may read
 *                                                       as a nameless copy in DIR ("-": no image)
 *   vse-guest --relay                                   outside: eth0's frames to and from the switch
 *   vse-guest --unpack DIR KEY                          the root image (squashfs) into DIR/KEY, once for all */
#ifndef VSE_WIRE_CONTAINER_H
#define VSE_WIRE_CONTAINER_H

/* Descriptors of --container; those of bwrap lie above. */
enum {
	CONTAINER_FD_CHANNEL = 3, /* byte stream of the guest's channel */
	CONTAINER_FD_CONSOLE,     /* terminal that becomes /dev/console */
	CONTAINER_FD_WIRE,        /* socket to the relay, which wants the other end of eth0 */
	CONTAINER_FD_PROGRAM,     /* vse-guest itself */
	CONTAINER_FD_STATUS,      /* CONTAINER_UP is written when all is in place */
	CONTAINER_FD_INFO,        /* bwrap tells the pid of process 1 */
	CONTAINER_FD_BLOCK,       /* bwrap waits for a byte: the id maps are written */
	CONTAINER_FD_LIFE,        /* of --guard: its end is the end */
	CONTAINER_FDS
};
#define CONTAINER_UP 'u'
/* Folders and files that bwrap makes for --container in the first root, which is then left. */
#define CONTAINER_LOWER "/lower"
#define CONTAINER_UPPER "/upper"
#define CONTAINER_ROOT "/newroot"
#define CONTAINER_MOUNT "/mount" /* and a number: a host directory */

/* Of --relay. */
enum { RELAY_FD_WIRE = 3, RELAY_FD_SWITCH };

/* Of --unpack; open for reading. */
#define UNPACK_FD_IMAGE 3

#endif
