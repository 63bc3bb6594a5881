#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Who may include whom, and who may do what.
. "$(dirname "$0")/lib.sh"

rule() { # name of the awk script; in the current folder
	find src -name '*.[ch]' | sort | xargs -r awk -f "$lint/$1.awk"
}

cd "$top" || exit 1
rule layers | ok_when_empty "every include goes to a lower layer"
rule doors | ok_when_empty "ops, printing, exit and programs only where they belong"

plant src/hypervisor/fake.c '#include "commands/command.h"'
plant src/net/a.c '#include "stage/stage.h"'
plant src/guest/a.c '#include <jansson.h>'
plant src/guest/b.c '#include "io/loop.h"'
plant src/vm/a.c '#include <uv.h>'
plant src/vm/b.c '#include "b.h"'
plant src/utils/a.c ''
plant src/cluster/a.c 'void f(void) { h->start(l); }'
plant src/agent/a.c 'void f(void) { qmp_send(q); }'
plant src/spec/a.c 'void f(void) { printf("x"); }'
plant src/spec/b.c 'void f(void) { exit(1); }'
plant src/stage/a.c 'void f(void) { system("x"); }'
plant src/stage/b.c '/* system("x") */ const char *s = "printf(";'
plant src/image/a.c 'void f(void) { strcpy(a, b); }'
cd "$planted" || exit 1
rule layers >found
ok_when_found "finds an upward include" 'src/hypervisor/fake.c:1: hypervisor may not include commands' <found
ok_when_found "finds a sibling" 'src/net/a.c:1: net may not include stage' <found
ok_when_found "finds a library in the guest" 'src/guest/a.c:1: the guest links' <found
ok_when_found "finds a room the guest may not use" 'src/guest/b.c:1: guest may not include io' <found
ok_when_found "finds libuv outside io" 'src/vm/a.c:1: only io knows <uv.h>' <found
ok_when_found "finds an include without its room" 'src/vm/b.c:1: "b.h": write it' <found
ok_when_found "finds a folder that is no room" 'src/utils/a.c:1: utils is no room' <found
rule doors >found
ok_when_found "finds a call of an op" 'src/cluster/a.c:1: only hypervisor.c' <found
ok_when_found "finds QMP outside qemu" 'src/agent/a.c:1: only qemu' <found
ok_when_found "finds printing" 'src/spec/a.c:1: library code does not print' <found
ok_when_found "finds exit" 'src/spec/b.c:1: library code does not exit' <found
ok_when_found "finds a shell" 'src/stage/a.c:1: programs are run' <found
ok_when_found "finds an unsafe call" 'src/image/a.c:1: unbounded' <found
grep 'src/stage/b.c' found | ok_when_empty "leaves comments and strings alone"
finish
