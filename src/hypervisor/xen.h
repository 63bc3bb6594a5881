/* SPDX-License-Identifier: Apache-2.0 */
/* The inside of the back end `xen`: what its files share. Nothing else includes this. */
#ifndef VSE_HYPERVISOR_XEN_H
#define VSE_HYPERVISOR_XEN_H

#include "base/buf.h"
#include "hypervisor/hypervisor.h"

#define XEN_OLDEST                                                                                 \
	411 /* PVH as type="pvh", channels over a Unix socket; nothing older was looked at */
#define XEN_NAME_MAX 64 /* bytes of a domain's name with the terminator */
#define XEN_UUID_LEN 36
#define XEN_CONSOLE "hvc0" /* names in the guest: the first console is xenconsoled's, */
#define XEN_CHANNEL "hvc1" /* the second is our channel, */
#define XEN_CHANNEL_0                                                                              \
	"ch0" /* which is one of these two: names of channels, and of sockets in the VM's folder */
#define XEN_CHANNEL_1 "ch1"

#define XEN_NOTE "xen"      /* files in the VM's folder: name, uuid, signature; */
#define XEN_CONFIG "xl.cfg" /* xl's configuration */

enum xen_type { XEN_PV, XEN_PVH, XEN_HVM };

/* What `xl info` says of a node. */
struct xen_host {
	char version[32]; /* "4.17.7" */
	unsigned number;  /* major * 100 + minor: 417 */
	bool pv, hvm;     /* kinds of guests it can run; PVH comes with HVM */
	uint64_t free;    /* bytes of memory for new guests */
	unsigned cpus;    /* of the node; 0: not said */
};

/* One row of `xl list -v`. */
struct xen_domain {
	char name[XEN_NAME_MAX]; /* cut */
	char uuid[XEN_UUID_LEN + 1];
	unsigned id;
	uint64_t memory; /* bytes */
	uint64_t cpu_ms;
	bool paused, shutdown, dying;
	int reason; /* of a shutdown: XEN_REASON_; -1 = none given */
};

enum {
	XEN_REASON_POWEROFF,
	XEN_REASON_REBOOT,
	XEN_REASON_SUSPEND,
	XEN_REASON_CRASH,
	XEN_REASON_WATCHDOG
};

/* ---- xen_config.c: pure ---- */

/* Identity of one VM. */
struct xen_id {
	char name[XEN_NAME_MAX];
	char uuid[XEN_UUID_LEN + 1];
};

/* name: "vse-CLUSTER-RANK-XXXXXXXX": the folder that holds the VM's folder, its rank, and the start of the UUID. */
void xen_identify(const struct hv_spec *spec, const uint8_t random[16], struct xen_id *ret);
/* EINVAL: unknown. "auto": PVH where the node and the image can, else PV. */
int xen_type(const struct hv_spec *spec, const struct xen_host *host, enum xen_type *ret,
	     struct err *err);
const char *xen_type_name(enum xen_type t);
/* The text of the domain's xl.cfg. bridge: for eth0, or NULL. EINVAL: a spec that cannot be run, or a value that cannot be
 * written (a control character; a path that xl would take apart). */
int xen_config(const struct hv_spec *spec, const struct xen_id *id, enum xen_type type,
	       const char *bridge, struct buf *out, struct err *err);

/* ---- xen_parse.c: pure; the text is data of another program, and bounded by who reads it ---- */

int xen_parse_info(const char *text, struct xen_host *ret, struct err *err);
/* One line of `xl list -v`; false: it is no row (the header, a warning). */
bool xen_parse_row(const char *line, size_t len, struct xen_domain *ret);
/* The row with that UUID in the whole output; false: there is none. */
bool xen_parse_list(const char *text, const char *uuid, struct xen_domain *ret);
/* The element of `xl list -l` with that UUID: its type (-1: not known) and whether it has all `disks` disks. ESRCH: it is
 * not there; EPROTO: not what xl prints. */
int xen_parse_long(const char *text, size_t len, const char *uuid, int *ret_type, size_t *ret_disks,
		   struct err *err);
#define XEN_NO_LOG_DIRTY "Xen here cannot log dirty pages of PV guests"
/* What a failed xl said, in one line: the cause of the first line that tells one. "" when it said nothing. */
void xen_cause(const char *text, char *out, size_t size);

/* ---- xen_files.c ---- */

/* What two nodes must have in common for one to take over the other's guest. */
void xen_signature(const struct hv_spec *s, const struct xen_host *h, enum xen_type type,
		   char out[HV_SIGNATURE_MAX]);
/* The terminal of that name, raw; -1: not to be had. */
int xen_open_console(const char *path, struct err *err);
/* What xl said, and where it is the fault of the device model of the domain `name`, what that said in its log. */
void xen_explain(const char *name, const char *what, const char *errors, int status, char *out,
		 size_t size);
/* What adopt needs to know. ENOENT: there is none. */
int xen_note_write(const char *dir, const struct xen_id *id, const char *signature, struct err *err);
int xen_note_read(const char *dir, struct xen_id *ret_id, char ret_signature[HV_SIGNATURE_MAX],
		  struct err *err);
void xen_remove_files(const char *dir);
const char *xen_end_text(int reason); /* of a domain that shut itself down: XEN_REASON_ */

/* ---- xen_run.c: one call of xl or xenstore-read ---- */

struct xen_run;

/* status: as of waitpid(2). out, errors: what it printed, each cut to 1 MiB; of one that was ended at its bound, errors is
 * that it did not answer, and status no success. */
typedef void xen_run_fn(void *arg, int status, const char *out, size_t out_len, const char *errors);

/* Bounds of a call, in ms. libxl itself gives up on a hotplug script after 40 s, on a device model or guest after 60 s. */
#define XEN_READ_MS 20000   /* what only reads: list, info, xenstore-read */
#define XEN_CHANGE_MS 60000 /* pause, unpause, shutdown, destroy */
#define XEN_MAKE_MS                                                                                \
	180000 /* create; also restore and save, as long as no byte of the state moves */

/* Starts argv ("xl" is $VSE_XL, else that of PATH or /usr/sbin), with an extra descriptor 3 (borrowed) or -1. After bound_ms
 * it is killed. done() comes once, from the loop; after it the run is freed. ENOENT. */
int xen_run(struct loop *l, struct strvec *argv, int fd3, unsigned bound_ms, xen_run_fn *done,
	    void *arg, struct xen_run **ret, struct err *err);
/* Asked at the bound, with the arg of xen_run(): true gives it as much time again. */
void xen_run_ask(struct xen_run *r, bool (*goes_on)(void *arg));
pid_t xen_run_pid(const struct xen_run *r);
/* done() will not come; the program goes on, and is reaped. NULL is fine. */
void xen_run_forget(struct xen_run *r);
char *xen_program(const char *name); /* its path, malloc'ed, or NULL */

/* ---- xen_watch.c: what domains there are, for all VMs of this process ---- */

struct xen_watch;

/* d: the domain of that UUID in a list whose asking began with number `asked`; NULL: it is not there. Or why not NULL: there
 * was no list, for the third time or more in a row; nothing is known. */
typedef void xen_watch_fn(void *arg, const struct xen_domain *d, uint64_t asked, const char *why);
struct xen_watch *xen_watch_create(struct loop *l, const char *uuid, xen_watch_fn *fn, void *arg);
void xen_watch_destroy(struct xen_watch *w); /* NULL is fine */
/* Asks anew, at once; the answer, and every later one, has at least this number. */
uint64_t xen_watch_ask(struct xen_watch *w);

/* ---- xen_stream.c: pure; a state that `xl migrate` writes ---- */

/* All 0 at first. */
struct xen_stream {
	bool pages;    /* the guest's memory has begun: xl has found that it can */
	int part;      /* the rest is its own */
	uint64_t skip; /* bytes until the next head */
	char head[48];
	size_t have; /* bytes of it */
};

/* Looks at the next n bytes; how many of them are of the state: all but at its end, or where it is none. */
size_t xen_stream_feed(struct xen_stream *s, const char *data, size_t n);
bool xen_stream_whole(const struct xen_stream *s); /* its end has come */
bool xen_stream_bad(const struct xen_stream *s);   /* it is no state of a guest */

/* ---- xen_relay.c: bytes from one descriptor to another ---- */

struct xen_relay;

/* Both descriptors are taken. When nobody takes the bytes any more (or xen_relay_drop() was called) what comes is thrown
 * away to its end: who writes must not be cut off. done(): the end came; broken: not all bytes went out. */
struct xen_relay *xen_relay_create(struct loop *l, int in, int out,
				   void (*done)(void *arg, uint64_t bytes, bool broken), void *arg,
				   struct err *err);
/* What comes is the state of a live migration: nothing goes out before the guest's memory begins, `out` ends with the state
 * (`in` stays open, for who writes waits for that), and done() comes then, or as soon as not all bytes can go out. */
void xen_relay_live(struct xen_relay *r);
/* Live, and nothing has gone out yet. Then it may begin again, with another kind of stream (in: taken). */
bool xen_relay_fresh(const struct xen_relay *r);
int xen_relay_again(struct xen_relay *r, int in, struct err *err);
void xen_relay_drop(struct xen_relay *r);
uint64_t xen_relay_bytes(const struct xen_relay *r); /* that went out or were thrown away */
bool xen_relay_full(const struct xen_relay *r);      /* it waits for who reads */
void xen_relay_destroy(struct xen_relay *r);         /* NULL is fine */

/* ---- xen_net.c: eth0 ---- */

/* eth0 is a vif in a bridge of its own with a tap, which the kernel hands whole frames: it takes apart what the guest's
 * network card would, and fills in checksums. */
#define XEN_BRIDGE_LEN 16
struct xen_net;

void xen_net_bridge(const char *uuid, char out[XEN_BRIDGE_LEN]);
/* Makes the bridge, or finds it. */
int xen_net_make(const char *uuid, struct err *err);
void xen_net_remove(const char *uuid);
/* Attaches to the bridge; *ret_fd is the end to hand out (HV_EVENT_NET). */
struct xen_net *xen_net_open(struct loop *l, const char *uuid, int *ret_fd, struct err *err);
void xen_net_close(struct xen_net *n); /* NULL is fine */

/* ---- xen_keeper.c: ends a domain whose agent cannot ---- */

/* A process of its own for each VM: a domain is no child of anybody, and outlives all. It destroys the domain when it is
 * told to, when the VM's device model has ended, and when this process has; with keep not before the subreaper above this
 * process has ended, too. */
int xen_keeper_start(const struct xen_id *id, bool keep, int *ret_pipe, struct err *err);
void xen_keeper_making(int pipe, pid_t pid); /* of the xl that makes the domain: it is waited for */
void xen_keeper_made(int pipe, pid_t model); /* the domain is there */
void xen_keeper_end(int *pipe);              /* destroy it now, if it is there; the keeper goes */
void xen_keeper_leave(int *pipe);            /* the domain is gone: the keeper goes */

/* ---- xen_probe.c ---- */

int xen_probe(struct loop *l, const char *accel, void (*done)(void *arg, const struct hv_probe *p),
	      void *arg, struct err *err);
const struct xen_host *xen_host_known(void); /* of the last probe that found one, or NULL */

#endif
