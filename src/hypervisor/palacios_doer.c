/* SPDX-License-Identifier: Apache-2.0 */
/* One operation from its beginning to its end, in a process that may block or die in the kernel. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "base/alloc.h"
#include "base/path.h"
#include "hypervisor/palacios.h"

#define SAVE_EXTRA (64ull << 20) /* bytes that a save needs beside the guest's memory */

static const char *const streams[] = {PALACIOS_STREAM_CHANNEL, PALACIOS_STREAM_CONSOLE};

/* ---- start ---- */

static int make_image(const struct palacios_doing *d, const char *boot, struct buf *image,
		      struct err *err)
{
	const struct hv_spec *s = d->spec;
	_cleanup_free_ unsigned *cpus = xcalloc(s->cpus, sizeof(*cpus));
	_cleanup_buf_ struct buf xml = BUF_INIT;
	struct palacios_info info;
	if (palacios_info_read(&info, err) < 0)
		return -1;
	for (unsigned i = 0; s->pins && i < s->cpus; i++) {
		cpus[i] = s->pins[i];
		if (cpus[i] >= info.cpus)
			return err_set(err, EINVAL, "CPU %u: this node has %u", cpus[i], info.cpus);
	}
	if (!s->pins && palacios_choose_cpus(s->cpus, &info, cpus, err) < 0)
		return -1;
	const struct palacios_machine m = {.memory = s->memory,
					   .cpus = s->cpus,
					   .target_cpus = cpus,
					   .boot = boot,
					   .root = s->root,
					   .scratch = s->scratch,
					   .extra = s->extra_args};
	if (palacios_config(&m, &xml, err) < 0)
		return -1;
	return palacios_image_write(image, 1, buf_cstr(&xml), NULL, 0, err);
}

/* The guest's streams are open before it runs its first instruction. */
static int connect_streams(const struct palacios_doing *d, struct err *err)
{
	for (unsigned i = 0; i < ARRAY_SIZE(streams); i++) {
		_cleanup_close_ int fd = -1;
		if (palacios_stream(d->name, streams[i], &fd, err) < 0)
			return -1;
		if (palacios_message_write(d->report,
					   &(struct palacios_message){.kind = PALACIOS_STREAM, .vcpu = i},
					   fd) < 0)
			return err_set(err, EPIPE, "the keeper has ended");
	}
	return 0;
}

static int make_vm(const struct palacios_doing *d, const char *boot, const char *load, struct err *err)
{
	_cleanup_buf_ struct buf image = BUF_INIT;
	palacios_sweep();
	if (make_image(d, boot, &image, err) < 0 ||
	    palacios_check_create(d->name, d->spec->memory, d->spec->cpus, err) < 0 ||
	    palacios_create(d->name, &image, err) < 0 || connect_streams(d, err) < 0)
		return -1;
	return load ? palacios_load(d->name, load, err) : palacios_launch(d->name, err);
}

static int fresh_folder(const char *path, struct err *err)
{
	if (path_remove(path, err) < 0)
		return -1;
	return mkdir(path, 0700) < 0 ? err_errno(err, errno, "%s", path) : 0;
}

static int start(const struct palacios_doing *d, struct err *err)
{
	const struct hv_spec *s = d->spec;
	_cleanup_buf_ struct buf cmdline = BUF_INIT;
	_cleanup_free_ char *boot = NULL, *load = d->from < 0 ? NULL : path_join(s->dir, "load");
	_cleanup_close_ int lock = -1;
	if (load && (fresh_folder(load, err) < 0 || palacios_state_read(d->from, load, err) < 0))
		return -1;
	if (palacios_cmdline(s->cmdline, s->trusted, &cmdline, err) < 0 ||
	    palacios_boot_make(s->dir, s->kernel, s->initrd, buf_cstr(&cmdline), &boot, err) < 0)
		return -1;
	if (palacios_lock(&lock, err) < 0)
		return -1;
	int rc = make_vm(d, boot, load, err);
	if (load)
		path_remove(load, NULL);
	return rc;
}

/* ---- save ---- */

static int check_space(const char *folder, uint64_t memory, struct err *err)
{
	struct statvfs v;
	if (statvfs(folder, &v) < 0)
		return err_errno(err, errno, "%s", folder);
	uint64_t room = (uint64_t)v.f_bavail * v.f_frsize, want = memory + SAVE_EXTRA;
	if (room >= want)
		return 0;
	return err_set(err, ENOSPC,
		       "%s: Palacios saves to files, which need %llu MiB here; %llu MiB are free",
		       folder, (unsigned long long)(want >> 20), (unsigned long long)(room >> 20));
}

static int save_files(const struct palacios_doing *d, const char *folder, struct err *err)
{
	_cleanup_close_ int lock = -1;
	if (palacios_lock(&lock, err) < 0)
		return -1;
	if (d->state != PALACIOS_PAUSED && palacios_pause(d->name, err) < 0)
		return -1;
	return palacios_save(d->name, folder, err);
}

/* Paused first and then saved, so that the guest runs no instruction more than what is in the files. */
static int save(const struct palacios_doing *d, uint64_t *ret_bytes, struct err *err)
{
	_cleanup_free_ char *folder = path_join(d->spec->dir, "save");
	if (fresh_folder(folder, err) < 0 || check_space(folder, d->spec->memory, err) < 0 ||
	    save_files(d, folder, err) < 0)
		return -1;
	int rc = palacios_state_write(d->stream, folder, ret_bytes, err);
	path_remove(folder, NULL);
	return rc;
}

static int undo(const struct palacios_doing *d, struct err *err)
{
	_cleanup_free_ char *folder = path_join(d->spec->dir, "save");
	path_remove(folder, NULL);
	return d->what.state == HV_PAUSED ? 0 : palacios_continue(d->name, err);
}

/* ---- */

static int on_vm(const struct palacios_doing *d, struct err *err)
{
	_cleanup_close_ int lock = -1;
	if (palacios_lock(&lock, err) < 0)
		return -1;
	switch (d->what.op) {
	case PALACIOS_OP_PAUSE: return d->loaded ? 0 : palacios_pause(d->name, err);
	case PALACIOS_OP_RESUME:
		return d->loaded ? palacios_launch(d->name, err) : palacios_continue(d->name, err);
	case PALACIOS_OP_RESET: return palacios_reset(d->name, err);
	case PALACIOS_OP_PIN:
		return palacios_move_core(d->name, d->what.vcpu, (unsigned)d->what.cpu, err);
	case PALACIOS_OP_UNDO: return undo(d, err);
	default: return err_set(err, EINVAL, "no such operation");
	}
}

int palacios_do(const struct palacios_doing *d)
{
	struct palacios_message m = {.kind = PALACIOS_RESULT, .op = d->what.op};
	struct err err = ERR_INIT;
	int rc;
	if (d->what.op == PALACIOS_OP_START) {
		rc = start(d, &err);
	} else if (d->what.op == PALACIOS_OP_SAVE || d->what.op == PALACIOS_OP_MIGRATE) {
		rc = d->loaded ? err_set(&err, EINVAL, "it was restored and has not run since")
			       : save(d, &m.bytes, &err);
		palacios_signature(d->spec->cpus, d->spec->memory, m.text);
	} else {
		rc = on_vm(d, &err);
	}
	if (rc < 0) {
		m.code = err.code ? err.code : EIO;
		snprintf(m.text, sizeof(m.text), "%s", err.text);
	}
	return palacios_message_write(d->report, &m, -1) < 0;
}
