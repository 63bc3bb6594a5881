#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The contract of a hypervisor back end, on QEMU with a real kernel and the real guest agent, on both machine types.
top=$(cd "$(dirname "$0")/../.." && pwd -P)
build=${VSE_BUILD:-$top/build}
tmp=$(mktemp -d "${VSE_TEST_TMP:-${TMPDIR:-/tmp}}/contract.XXXXXX") || exit 1
pool=/proc/sys/vm/nr_hugepages added=0
pages() { # N: so many reserved pages more (or fewer), where this may be said; others may say it too
	[ -w $pool ] && (flock 9 && echo $(($(cat $pool) + $1)) >$pool) 9<$pool && added=$((added + $1))
}
trap 'pages -$added; rm -rf "$tmp"' EXIT
trap 'exit 130' INT TERM HUP
if ! "$top/tests/contract/tiny-image.sh" "$build/vse-guest" "$tmp/image" 2>"$tmp/why"; then
	echo "1..0 # SKIP no image: $(head -n 1 "$tmp/why")"
	exit 0
fi
run() { # MACHINE VMS
	TMPDIR=$tmp "$build/tests/contract/contract" qemu --kernel "$tmp/image/kernel" --vmlinux "$tmp/image/vmlinux" \
		--initrd "$tmp/image/initrd" --root "$tmp/image/root" --cmdline "$(cat "$tmp/image/cmdline")" \
		--machine "$1" --vms "$2" --bound 120 --label "qemu-$1" --results "$tmp/results" >"$tmp/$1.tap" 2>&1
	code=$?
	sed 's/^/# /' "$tmp/$1.tap"
	[ $code = 0 ] && echo "ok $3 - the contract on $1" || echo "not ok $3 - the contract on $1"
}
pages 128 # the memory of one VM
run microvm 8 1
run q35 2 2
TMPDIR=$tmp "$build/tests/contract/contract" fake --results "$tmp/results" >/dev/null
"$build/tests/contract/contract" --matrix "$tmp/results" # all of them in one
echo 1..2
