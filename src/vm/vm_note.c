/* SPDX-License-Identifier: Apache-2.0 */
/* The note of a VM: what another process needs in order to go on (vm_adopt). */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/path.h"
#include "vm/vm_inside.h"

#define NOTE "vm" /* "STATE SINCE READY_AFTER BOOT[ CLONED]", then a line with the reason */
#define CLONED "cloned"

void vm_note_write(const struct vm *vm, enum vm_state state)
{
	_cleanup_free_ char *path = path_join(vm->dir, NOTE);
	_cleanup_free_ char *text = xasprintf("%s %" PRIu64 " %" PRIu64 " %s%s\n%s\n",
					      vm_state_name(state), vm->running, vm->ready_after,
					      vm->boot ? vm->boot : "-",
					      vm->cloned ? " " CLONED : "", vm->reason);
	struct err err = ERR_INIT;
	if (path_replace(path, text, strlen(text), 0600, &err) < 0)
		log_warn("%s: it could not be adopted: %s", vm->name, err.text);
}

bool vm_note_wanted(enum vm_state s)
{
	return s == VM_STARTING || s == VM_READY || vm_state_is_over(s);
}

static enum vm_state state_named(const char *name)
{
	static const enum vm_state noted[] = {VM_STARTING, VM_READY, VM_STOPPED, VM_FAILED};
	for (size_t i = 0; i < ARRAY_SIZE(noted); i++)
		if (strcmp(vm_state_name(noted[i]), name) == 0)
			return noted[i];
	return VM_PLANNED;
}

enum vm_state vm_note_read(struct vm *vm)
{
	char state[16], boot[80], cloned[16] = "";
	struct err err = ERR_INIT;
	_cleanup_free_ char *path = path_join(vm->dir, NOTE), *text = NULL;
	if (path_read(path, 4096, &text, NULL, &err) < 0 && err.code == ENOENT)
		return VM_PLANNED;
	vm->ran = true; /* or not: who asks must not count on its copy elsewhere */
	if (!text || sscanf(text, "%15s %" SCNu64 " %" SCNu64 " %79s%*1[ ]%15[a-z]", state,
			    &vm->running, &vm->ready_after, boot, cloned) < 4) {
		log_warn("%s: %s says nothing: it may run all the same", vm->name, path);
		return VM_STARTING;
	}
	vm->cloned = strcmp(cloned, CLONED) == 0;
	char *reason = strchr(text, '\n');
	if (reason && strchr(reason + 1, '\n'))
		*strchr(reason + 1, '\n') = '\0';
	vm_set_reason(vm, reason ? reason + 1 : "");
	vm->boot = strcmp(boot, "-") == 0 ? NULL : xstrdup(boot);
	return state_named(state);
}
