# shellcheck shell=sh
# SPDX-License-Identifier: Apache-2.0
# For the system tests, which run the built programs on this machine. A test is tests/system/NAME.t:
#
#   #!/bin/sh
#   test_description='what it shows'
#   . "$(dirname "$0")/lib.sh"
#   test_expect_success 'a VM says its name' 'vse run -n 1 minimal.yaml -- hostname >out && grep vm0 out'
#   test_done
#
# sharness does the bookkeeping (test_expect_success, test_must_fail, test_cmp, test_when_finished). Here:
#   - every test has its own folder ($PWD at the start), HOME, run folder, cache, and runs alone or beside others;
#   - $VSE_BUILD (default build/ of this tree) is first in PATH, $TOP is the tree, $EXAMPLES its examples;
#   - images of one ./check are shared: $XDG_DATA_HOME stays unless the test sets its own (own_store);
#   - at the end every process that carries the test's mark is ended, and one left over fails the test.
TOP=$(cd "$(dirname "$0")/../.." && pwd -P)
EXAMPLES=$TOP/examples
VSE_BUILD=${VSE_BUILD:-$TOP/build}
: "${VSE_TEST_HOME:=$HOME}" # the user's own, for caches
# Short: a Unix socket's path has at most 107 bytes.
SHARNESS_TEST_DIRECTORY=$(mktemp -d "${VSE_TEST_TMP:-${TMPDIR:-/tmp}}/t.XXXXXX") || exit 1
SHARNESS_BUILD_DIRECTORY=$VSE_BUILD
: "${SHELL_PATH:=/bin/sh}"
VSE_TEST_MARK=${SHARNESS_TEST_DIRECTORY##*/}-$$
export TOP EXAMPLES VSE_BUILD VSE_TEST_HOME VSE_TEST_MARK SHELL_PATH
if [ ! -r /usr/share/sharness/sharness.sh ]; then
	echo "1..0 # SKIP sharness is not here"
	rm -rf "$SHARNESS_TEST_DIRECTORY"
	exit 0
fi
XDG_DATA_HOME=${VSE_TEST_DATA:-${XDG_CACHE_HOME:-$VSE_TEST_HOME/.cache}/vse-test/data}
XDG_RUNTIME_DIR=$SHARNESS_TEST_DIRECTORY/run
mkdir -p "$XDG_DATA_HOME" && mkdir -m 700 "$XDG_RUNTIME_DIR" || exit 1
# Of this test alone: templates of others must not decide whether VMs boot.
VSE_CACHE=$SHARNESS_TEST_DIRECTORY/cache
export XDG_DATA_HOME XDG_RUNTIME_DIR VSE_CACHE
unset XDG_CACHE_HOME XDG_CONFIG_HOME VSE_SITE_STORE

lib__log=$SHARNESS_TEST_DIRECTORY/log
lib__finish() {
	code=$?
	trap - EXIT
	[ -n "$EXIT_OK" ] || {
		echo "# the test was cut short"
		[ $code != 0 ] || code=1
	}
	left=$("$TOP/scripts/end-marked.sh" VSE_TEST_MARK "$VSE_TEST_MARK")
	[ -z "$left" ] || echo "$left" | sed 's/^/# /'
	[ $code = 0 ] || tail -n 200 "$lib__log" | sed 's/^/# /'
	cd / && rm -rf "$SHARNESS_TEST_DIRECTORY"
	exit $code
}
. /usr/share/sharness/sharness.sh
trap lib__finish EXIT
trap 'exit 130' INT TERM HUP
# What the test's commands print is shown when the test fails, as comments: it is not TAP.
exec 3>>"$lib__log" 4>&3

# An image store of this test's own.
own_store() {
	XDG_DATA_HOME=$SHARNESS_TEST_DIRECTORY/data
	export XDG_DATA_HOME
}

# For the matrix of all back ends (matrix.t): what the contract suite found in a machine of its own.
keep_matrix() { # RESULTS NAME
	[ -z "${VSE_MATRIX_DIR-}" ] || [ ! -e "$1" ] || cp "$1" "$VSE_MATRIX_DIR/$2"
}

# Waits up to SECONDS for COMMAND... to succeed; polls, and gives the last answer.
wait_for() { # SECONDS COMMAND...
	lib__left=$(($1 * 10))
	shift
	until "$@"; do
		lib__left=$((lib__left - 1))
		[ "$lib__left" -gt 0 ] || return 1
		sleep 0.1
	done
}

# Processes of this test that are not the test itself: pids with their command lines.
leftovers() {
	"$TOP/scripts/end-marked.sh" --list VSE_TEST_MARK "$VSE_TEST_MARK"
}
nothing_left() {
	[ -z "$(leftovers)" ]
}

# The last test of a file: what was started has ended, and the run folder is empty.
test_nothing_left() {
	test_expect_success 'nothing is left' '
		wait_for 5 nothing_left || { leftovers; false; } &&
		! grep -F "$SHARNESS_TEST_DIRECTORY" /proc/self/mounts &&
		find "$XDG_RUNTIME_DIR" -mindepth 1 ! -type d >left && test_must_be_empty left
	'
}
