/* SPDX-License-Identifier: Apache-2.0 */
/* The CPUs of a VM: from its start to its end. Who adopts it learns them from a note in its folder. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/path.h"
#include "vm/binding.h"
#include "vm/vm_inside.h"

#define NOTE "cpus" /* "0 1 4 5": a CPU for each vCPU */
#define NOTE_MAX 65536

static void write_note(const struct vm *vm)
{
	_cleanup_free_ char *path = path_join(vm->dir, NOTE);
	_cleanup_buf_ struct buf text = BUF_INIT;
	struct err err = ERR_INIT;
	for (unsigned i = 0; i < vm->profile->cpus; i++)
		buf_addf(&text, "%s%u", i ? " " : "", vm->cpus[i]);
	buf_adds(&text, "\n");
	if (path_replace(path, buf_cstr(&text), buf_len(&text), 0600, &err) < 0)
		log_warn("%s: it could not be adopted with its CPUs: %s", vm->name, err.text);
}

int vm_bind(struct vm *vm, struct err *err)
{
	const struct vm_profile *p = vm->profile;
	if (!p->binding || vm->cpus)
		return 0;
	_cleanup_free_ unsigned *cpus = xcalloc(p->cpus, sizeof(*cpus));
	if (binding_take(p->binding, p->cpus, cpus, &vm->numa_nodes, err) < 0)
		return -1;
	vm->cpus = TAKE_PTR(cpus);
	if (p->keep)
		write_note(vm);
	return 0;
}

static bool parse(const char *text, unsigned n, unsigned *cpus)
{
	for (unsigned i = 0; i < n; i++) {
		char *end;
		unsigned long v = strtoul(text, &end, 10);
		if (end == text || v >= UINT32_MAX)
			return false;
		cpus[i] = (unsigned)v;
		text = end;
	}
	return text[strspn(text, " \n")] == '\0';
}

void vm_bind_adopted(struct vm *vm)
{
	const struct vm_profile *p = vm->profile;
	_cleanup_free_ char *path = path_join(vm->dir, NOTE), *text = NULL;
	struct err err = ERR_INIT;
	if (!p->binding || vm->cpus || path_read(path, NOTE_MAX, &text, NULL, NULL) < 0)
		return;
	_cleanup_free_ unsigned *cpus = xcalloc(p->cpus, sizeof(*cpus));
	if (!parse(text, p->cpus, cpus))
		vm->ops->on_note(vm->arg, vm, "which CPUs it has is not known: the note is damaged");
	else if (binding_claim(p->binding, p->cpus, cpus, &vm->numa_nodes, &err) < 0)
		vm->ops->on_note(vm->arg, vm, err.text); /* it stays where it is */
	else
		vm->cpus = TAKE_PTR(cpus);
}

void vm_unbind(struct vm *vm)
{
	_cleanup_free_ char *path = path_join(vm->dir, NOTE);
	if (!vm->cpus)
		return;
	binding_give(vm->profile->binding, vm->profile->cpus, vm->cpus);
	free(TAKE_PTR(vm->cpus));
	vm->numa_nodes = 0;
	unlink(path);
}

const unsigned *vm_cpus(const struct vm *vm)
{
	return vm->cpus;
}
