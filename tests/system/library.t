#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
test_description='libvse as other programs use it: installed, by pkg-config, from C and by ctypes'
. "$(dirname "$0")/lib.sh"
if ! [ -e "$VSE_BUILD/include/libvse.so" ]; then
	skip_all='libvse is not built (sanitizers)'
	test_done
fi
unset VSE_GUEST
cat >f.yaml <<'YAML'
vse: 1
name: f
base: debian:bookworm
YAML
cat >hello.want <<'TEXT'
f: 4 VMs
greatest exit code: 0
vm0: exit 0
vm0: hello
vm1: exit 0
vm1: hello
vm2: exit 0
vm2: hello
vm3: exit 0
vm3: hello
TEXT
# The folder of the test itself has a space in its name.
root=$SHARNESS_TEST_DIRECTORY/root
PKG_CONFIG_SYSROOT_DIR=$root PKG_CONFIG_ALLOW_SYSTEM_CFLAGS=1 PKG_CONFIG_ALLOW_SYSTEM_LIBS=1
export PKG_CONFIG_SYSROOT_DIR PKG_CONFIG_ALLOW_SYSTEM_CFLAGS PKG_CONFIG_ALLOW_SYSTEM_LIBS
no_clusters() {
	vse ps >ps.out && ! grep ready ps.out
}

test_expect_success 'meson installs library, header and pkg-config file' '
	DESTDIR=$root meson install --no-rebuild --quiet -C "$VSE_BUILD" &&
	pc=$(find "$root" -name libvse.pc) && test -n "$pc" &&
	lib=$(dirname "$(find "$root" -name libvse.so.1)") && bin=$(dirname "$(find "$root" -path "*/bin/vse")") &&
	PKG_CONFIG_PATH=$(dirname "$pc") && export PKG_CONFIG_PATH &&
	test "$(pkg-config --modversion libvse)" = "$(vse --version | sed "s/[^0-9]*//")"
'

test_expect_success 'the header stands alone, in C11, C++ and without warnings' '
	echo "#include <vse.h>" >alone.c &&
	cc -std=c11 -Wall -Wextra -Wpedantic -Werror -fsyntax-only $(pkg-config --cflags libvse) alone.c &&
	{ ! command -v c++ || c++ -Wall -Wextra -Wpedantic -Werror -fsyntax-only -x c++ $(pkg-config --cflags libvse) alone.c; }
'

test_expect_success 'the example: four VMs from C, with the shared library' '
	cc -std=c11 -Wall -Wextra -Werror "$EXAMPLES/api/hello.c" -o hello $(pkg-config --cflags --libs libvse) &&
	LD_LIBRARY_PATH=$lib ./hello f.yaml hypervisor=fake >out 2>err </dev/null &&
	LC_ALL=C sort out >got && test_cmp hello.want got && grep "starting VMs 4/4" err && no_clusters
'

test_expect_success 'the same with the static library' '
	cc -Wall "$EXAMPLES/api/hello.c" -o hello-static $(pkg-config --cflags libvse) "$lib/libvse.a" \
		$(env -u PKG_CONFIG_SYSROOT_DIR pkg-config --libs libuv jansson yaml-0.1 libcrypto libzstd) -lm &&
	{ ldd hello-static | grep libvse && return 1 || :; } &&
	cp hello-static "$bin" && "$bin/hello-static" f.yaml hypervisor=fake >out </dev/null &&
	LC_ALL=C sort out >got && test_cmp hello.want got && no_clusters
'

test_expect_success 'it says what went wrong' '
	test_expect_code 1 env LD_LIBRARY_PATH=$lib ./hello f.yaml hypervisor=fake count=0 >out 2>err &&
	grep "^hello: count: " err && test_must_be_empty out &&
	test_expect_code 1 env LD_LIBRARY_PATH=$lib ./hello f.yaml hypervisor=fake hypervisor-arg=fail-start 2>err &&
	grep "^hello: vm.*told to fail" err && no_clusters
'

test_expect_success 'programs with symbols of the same names link with both' '
	cat >own.c <<-\C &&
	#include <vse.h>
	int log_setup(void) { return 1; }
	int buf_add(void) { return 2; }
	int err_set(void) { return 3; }
	struct vse { int x; } vse;
	int main(void)
	{
		struct vse_session *s;
		return vse_open(&s, 0) || vse_close(s) || log_setup() + buf_add() + err_set() != 6;
	}
	C
	cc own.c -o own $(pkg-config --cflags --libs libvse) && LD_LIBRARY_PATH=$lib ./own &&
	cc own.c -o own-static $(pkg-config --cflags libvse) "$lib/libvse.a" \
		$(env -u PKG_CONFIG_SYSROOT_DIR pkg-config --libs libuv jansson yaml-0.1 libcrypto libzstd) -lm && ./own-static
'

if command -v python3 >/dev/null; then
	test_expect_success 'the example by ctypes, in an event loop of its own' '
		LD_LIBRARY_PATH=$lib python3 "$EXAMPLES/api/hello.py" f.yaml hypervisor=fake >out </dev/null &&
		sed "s/ VMs, ready/ VMs/" out | LC_ALL=C sort >got && test_cmp hello.want got && no_clusters
	'
	test_expect_success 'everything else, by ctypes' '
		LD_LIBRARY_PATH=$lib python3 "$TOP/tests/system/library.py" f.yaml >out </dev/null &&
		grep -c "^ok " out >n && echo 4 | test_cmp - n && no_clusters
	'
fi

test_done
