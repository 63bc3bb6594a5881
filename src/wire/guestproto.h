/* SPDX-License-Identifier: Apache-2.0 */
/* The protocol between a node's agent and the guest agent, over one byte stream (virtio-serial, Xen
 * channel, Palacios stream). Frames of wire/frame.h, at most FRAME_MAX_GUEST bytes of payload; messages
 * are key-value records of wire/kv.h; `rank` in the frame header is 0. The first key is "verb". The agent
 * chooses request ids, never 0; id 0 is for what belongs to no request.
 *
 * A stream that carries nonsense is answered by closing (host) or by resynchronising: when the host end
 * closes, the guest ends all its requests (children get SIGHUP, 2 s later SIGKILL), forgets its read
 * buffer and, once the host is back, begins again with "hello". Nonsense from the host has the same effect, without
 * a close: what follows is thrown away until nothing came for 100 ms, then "hello" is sent. So a host that
 * attached to a running VM and hears no "hello" sends FRAME_MAX_GUEST + FRAME_HEADER zero bytes to get one.
 *
 * guest -> host, id 0
 *   hello   version=GUESTPROTO_VERSION  boot=<id, random per boot>  uptime_ms
 *           Sent when the channel opens. Nothing else is sent until "setup" came, but answers, and
 *           "failed" when the VM could not even start (no root file system): it powers off then.
 *   log     text=<one line>             What the guest agent wants in the VM's log.
 *   ready   uptime_ms                   "setup" is applied (init: systemd: and the system is up, or degraded;
 *                                       init: vse with ssh keys: and sshd listens, or 20 s passed). One for each "setup".
 *   failed  text=<one line>             "setup" could not be applied; the VM is of no use.
 *   bye     how=poweroff|reboot|halt    The system is going down.
 *
 * host -> guest, id 0
 *   setup   Everything personal. May be sent again, also before "ready" was said: what changed is applied anew.
 *           hostname  domain?  rank  size  cluster  time_ns (wall clock, nanoseconds since 1970)
 *           seed=<64 random bytes>      -> RNDADDENTROPY and RNDRESEEDCRNG, before anything of the user's
 *           machine_id=<32 hex>
 *           clone=1                     it started from a template (vm/template.h): it gets a boot id of its own
 *           mac  ipv4=<a.b.c.d/bits>  ipv6=<a/64>  mtu    of eth0; absent: no network
 *           nat=1                       eth1 is there: 10.0.2.15/24, gateway 10.0.2.2, DNS 10.0.2.3
 *           hosts=<text appended to /etc/hosts>  hostfile=<text of /etc/vse/hostfile>
 *           env=NAME=VALUE (repeats)    for every program started; also /etc/profile.d/vse.sh and /etc/environment
 *           mount=<TAG ro|rw PATH> (repeats)   a host directory: 9p over virtio with that tag; in a container it is there already
 *           ssh_private, ssh_public, ssh_authorized=<text>   cluster-only key of root; absent: no ssh set-up.
 *                                       With them and /usr/sbin/sshd present (init: vse): host keys are made and sshd is started.
 *   ping    -> answered by "pong" with the same id
 *   time    time_ns
 *   shutdown  how=poweroff|reboot       terminate processes (TERM, 2 s, KILL), sync, go. With systemd: through it.
 *   stats   -> "stats": uptime_ms load1 mem_total mem_free (bytes) procs
 *
 * host -> guest, id = request
 *   exec    arg=<argv, repeats>  env=NAME=VALUE (repeats)  user? (name or uid[:gid]; default root)  cwd?
 *           tty=0|1 rows cols    stdin=0|1 (0: /dev/null)  window=<bytes the host takes of stdout+stderr together
 *           per fd before a FRAME_CREDIT>
 *           -> "started" pid; FRAME_DATA fd 1/2, FRAME_EOF on each at its end (with tty: fd 1 only);
 *              "exit" code=<0-255> or signal=<number>, after both ends of output were sent. That ends the id.
 *           -> or "error" code=<errno> text=<one line>. That ends the id. (A program that is not there is
 *              "exit" code=127, one that cannot be executed code=126, with a line on fd 2, as shells do.)
 *              Output that a background child still holds open 1 s after the program ended is cut off.
 *   signal  signal=<number>             to the program's process group
 *   resize  rows cols
 *   cancel                              ends the request: SIGHUP, 2 s later SIGKILL to the group; "exit" follows
 *                                       (put, get: "error" code=ECANCELED)
 *   put     path=<destination>  into=0|1 (1: path is a folder that must exist, entries go inside it; 0: path is the
 *           new name of the one top entry, or, if path is an existing folder, as into=1)
 *           then FRAME_DATA fd 0 with an archive (wire/archive.h), FRAME_EOF -> "done" files bytes | "error"
 *   get     path=<source>  window=<as with exec>  -> FRAME_DATA fd 1 with an archive, FRAME_EOF, then "done" files bytes
 *           skipped? (sockets, pipes and devices in the tree, left out) | "error"
 *
 * Flow control: for every stream and direction the receiver grants credit. The guest may send `window` bytes
 * per fd at first (put/exec stdin: the host may send GUESTPROTO_STDIN_WINDOW at first), then as much more as
 * FRAME_CREDIT frames allow. An exceeded window is a protocol error. */
#ifndef VSE_WIRE_GUESTPROTO_H
#define VSE_WIRE_GUESTPROTO_H

#define GUESTPROTO_VERSION 1
#define GUESTPROTO_STDIN_WINDOW (256u << 10)
/* Of the NIC with NAT: in every VM the same, its network is its own. */
#define GUESTPROTO_NAT_MAC                                                                         \
	{                                                                                          \
		0x52, 0x54, 0x00, 0x12, 0x34, 0x56                                                 \
	}
#define GUESTPROTO_PORT "org.vse.agent.0" /* name of the virtio-serial port */

#endif
