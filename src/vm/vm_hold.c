/* SPDX-License-Identifier: Apache-2.0 */
/* VMs that stand still, for their user or for a save. That it was not the user who paused them is in a note, so that an agent that
 * follows one that has died lets them go on. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/path.h"
#include "vm/saved.h"
#include "vm/vm_inside.h"

#define NOTE                                                                                       \
	"hold" /* '+': it goes on, '-': the user had paused it before; then the folder of the save */
#define NOTE_MAX 4200

/* ---- pause and resume ---- */

static int need(struct vm *vm, enum vm_state state, const char *verb, struct err *err)
{
	if (vm->state == state)
		return 0;
	return err_set(err, EBUSY, "%s: cannot %s: it is %s", vm->name, verb, vm_state_name(vm->state));
}

static int need_free(struct vm *vm, const char *verb, struct err *err)
{
	if (vm_move_holds(vm, verb, err))
		return -1;
	if (vm_is_held(vm))
		return err_set(err, EBUSY, "%s: cannot %s: it is being saved", vm->name, verb);
	return 0;
}

/* One that was asked to stand still, and has not answered yet, is not asked twice: Xen would count. */
static int stand_still(struct vm *vm, struct err *err)
{
	if (need(vm, VM_READY, "pause", err) < 0 || (!vm->pausing && hv_pause(vm->hv, err) < 0))
		return -1;
	vm->pausing = true;
	vm->going_on = false;
	return 0;
}

int vm_pause(struct vm *vm, struct err *err)
{
	if (need_free(vm, "pause", err) < 0 || (vm->state != VM_PAUSED && stand_still(vm, err) < 0))
		return -1;
	vm->going_on = false;
	vm_hold_over(vm); /* a save had it, and has let it go: now it is the user who wants it to stand still */
	return 0;
}

int vm_resume(struct vm *vm, struct err *err)
{
	if (need_free(vm, "resume", err) < 0 || need(vm, VM_PAUSED, "resume", err) < 0)
		return -1;
	return vm->going_on ? 0 : hv_resume(vm->hv, err);
}

void vm_look_go_on(struct vm *vm)
{
	if (!vm->going_on || vm->send_ops || vm->state != VM_PAUSED || vm->writing || vm->saving ||
	    !vm->hv)
		return;
	vm->going_on = false;
	if (hv_resume(vm->hv, NULL) < 0)
		log_warn("%s: it cannot be resumed", vm->name);
}

void vm_pause_failed(struct vm *vm)
{
	vm->pausing = vm->going_on = false;
	if (!vm->holder)
		vm_hold_over(vm);
}

/* ---- for a save ---- */

static int write_note(struct vm *vm, const char *dir, struct err *err)
{
	_cleanup_free_ char *path = path_join(vm->dir, NOTE),
			    *text = xasprintf("%c%s", vm->stays ? '-' : '+', dir);
	vm->on_hold = true;
	if (!vm->profile->keep)
		return 0;
	return path_replace(path, text, strlen(text), 0600, err);
}

int vm_hold(struct vm *vm, const char *dir, struct err *err)
{
	bool paused = vm->state == VM_PAUSED;
	if (vm_move_holds(vm, "save", err))
		return -1;
	if (vm_is_held(vm) || (paused && vm->going_on))
		return err_set(err, EBUSY, "%s: cannot save: another save has it", vm->name);
	if (!paused && need(vm, VM_READY, "save", err) < 0)
		return -1;
	vm->stays = paused;
	if (write_note(vm, dir, err) < 0 || (!paused && stand_still(vm, err) < 0)) {
		vm_hold_over(vm);
		return -1;
	}
	vm->holder = xstrdup(dir);
	return 0;
}

void vm_hold_over(struct vm *vm)
{
	_cleanup_free_ char *path = path_join(vm->dir, NOTE);
	if (vm->on_hold)
		unlink(path);
	vm->on_hold = vm->stays = false;
}

bool vm_is_held(const struct vm *vm)
{
	return vm->holder || ((vm->saving || vm->writing) && !vm->going_on);
}

bool vm_is_held_for(const struct vm *vm, const char *dir)
{
	return vm->holder && strcmp(vm->holder, dir) == 0;
}

bool vm_hold_end(struct vm *vm)
{
	free(TAKE_PTR(vm->holder));
	vm->going_on = !vm->stays && (vm->pausing || vm->state == VM_PAUSED);
	if (vm->going_on)
		vm_look_go_on(vm);
	else
		vm_hold_over(vm);
	return vm->state == VM_PAUSED && !vm->on_hold;
}

void vm_hold_adopt(struct vm *vm)
{
	_cleanup_free_ char *path = path_join(vm->dir, NOTE), *text = NULL;
	if (path_read(path, NOTE_MAX, &text, NULL, NULL) < 0 || !text[0])
		return;
	log_info("%s: the agent before this one was saving it into %s", vm->name, text + 1);
	vm->on_hold = true;
	vm->going_on = text[0] != '-';
	saved_remove(text + 1, vm->rank);
	if (!vm->going_on)
		vm_hold_over(vm);
}
