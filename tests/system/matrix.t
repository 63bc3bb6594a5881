#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# check: alone
# The last test of ./check: what the contract suite found of every back end, in one matrix. Each run of the suite leaves its
# part below $VSE_MATRIX_DIR. A back end whose test ran must be in it; no cell failed, and what is not supported has its reason.
build=${VSE_BUILD:-$(cd "$(dirname "$0")/../.." && pwd -P)/build}
taps=${PERL_TEST_HARNESS_DUMP_TAP-}
if [ -z "${VSE_MATRIX_DIR-}" ] || [ ! -d "$taps" ]; then
	echo "1..0 # SKIP it needs what other tests of ./check leave behind"
	exit 0
fi
tmp=$(mktemp -d "${VSE_TEST_TMP:-${TMPDIR:-/tmp}}/matrix.XXXXXX") || exit 1
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' INT TERM HUP
n=0
result() { # TEXT, after a command
	code=$?
	n=$((n + 1))
	[ $code = 0 ] && echo "ok $n - $1" || echo "not ok $n - $1"
}

# prove may still be reading what the last of them printed.
there() { # COLUMN TEST
	for _ in 1 2 3 4 5 6 7 8 9 10; do
		! cat "$VSE_MATRIX_DIR"/* 2>/dev/null | grep -q "^$1" || return 0
		! grep -qs '^1\.\.0' "$taps/$2" || return 2
		sleep 1
	done
	return 1
}
while read -r column test; do
	if [ ! -e "$taps/$test" ]; then
		[ -z "${VSE_MATRIX_WHOLE-}" ]
		result "$column: $test was not run, and was not asked for"
		continue
	fi
	there "$column" "$test"
	case $? in
	0) true ;;
	2) echo "# $column: $test: $(grep '^1\.\.0' "$taps/$test")" ;;
	*) false ;;
	esac
	result "$column is in the matrix, or $test says why it did not run"
done <<'TESTS'
fake contract/contract-fake
qemu-microvm system/contract-qemu
qemu-q35 system/contract-qemu
qemu-kvm-microvm system/nested-contract
xen-pv system/nested-xen
palacios system/contract-palacios
container system/contract-container
TESTS

cat "$VSE_MATRIX_DIR"/* >"$tmp/all" 2>/dev/null && "$build/tests/contract/contract" --matrix "$tmp/all"
result 'one matrix of all'
! grep "	FAIL	" "$tmp/all"
result 'no operation failed'
! grep "	ENOTSUP	\$" "$tmp/all"
result 'what is not supported has its reason'
echo "1..$n"
