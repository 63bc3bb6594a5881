/* SPDX-License-Identifier: Apache-2.0 */
/* VMs that stand still for a save. That it was not the user who paused them is in a note, so that an agent that follows one that
 * has died lets them go on. */
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

static int write_note(struct vm *vm, bool stays, const char *dir, struct err *err)
{
	_cleanup_free_ char *path = path_join(vm->dir, NOTE),
			    *text = xasprintf("%c%s", stays ? '-' : '+', dir);
	vm->on_hold = true;
	vm->stays = stays;
	if (!vm->profile->keep)
		return 0;
	return path_replace(path, text, strlen(text), 0600, err);
}

int vm_hold(struct vm *vm, const char *dir, struct err *err)
{
	bool held = vm->on_hold, paused = vm->state == VM_PAUSED;
	if (paused && held) /* by another save */
		return 0;
	bool noted = (!paused && vm->state != VM_READY) || write_note(vm, paused, dir, err) == 0;
	if (noted && (paused || vm_pause(vm, err) == 0))
		return 0;
	if (!held)
		vm_hold_over(vm);
	return -1;
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
	return vm->on_hold || vm->saving || vm->writing;
}

void vm_hold_forget(struct vm *vm)
{
	if (vm->stays)
		vm_hold_over(vm);
}

void vm_hold_adopt(struct vm *vm)
{
	_cleanup_free_ char *path = path_join(vm->dir, NOTE), *text = NULL;
	if (path_read(path, NOTE_MAX, &text, NULL, NULL) < 0 || !text[0])
		return;
	log_info("%s: the agent before this one was saving it into %s", vm->name, text + 1);
	vm->on_hold = true;
	vm->stays = text[0] == '-';
	vm->going_on = !vm->stays;
	saved_remove(text + 1, vm->rank);
	vm_hold_forget(vm);
}
