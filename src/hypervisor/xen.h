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
#define XEN_CHANNEL "hvc1" /* the second is our channel */

enum xen_type { XEN_PV, XEN_PVH, XEN_HVM };

/* What `xl info` says of a node. */
struct xen_host {
	char version[32]; /* "4.17.7" */
	unsigned number;  /* major * 100 + minor: 417 */
	bool pv, hvm;     /* kinds of guests it can run; PVH comes with HVM */
	uint64_t free;    /* bytes of memory for new guests */
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
/* What a failed xl said, in one line: the cause of the first line that tells one. "" when it said nothing. */
void xen_cause(const char *text, char *out, size_t size);

#endif
