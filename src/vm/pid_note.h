/* SPDX-License-Identifier: Apache-2.0 */
/* A VMM's pid, kept in its VM's folder, where a sweep finds it should all of ours be killed (base/rundir.h). */
#ifndef VSE_VM_PID_NOTE_H
#define VSE_VM_PID_NOTE_H

#include <sys/types.h>

void pid_note_write(const char *dir, pid_t pid);
void pid_note_kill(const char *dir); /* the process that is noted, if it is still that one */

#endif
