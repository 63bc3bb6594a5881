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
run() { # MACHINE VMS NUMBER [IMAGE TESTS]
	image=$tmp/${4-image}
	as env TMPDIR="$dir" "$tmp/contract" qemu --kernel "$image/kernel" --vmlinux "$image/vmlinux" \
		--initrd "$image/initrd" --root "$image/root" --cmdline "$(cat "$image/cmdline")" ${5:+--only "$5"} \
		--machine "$1" --vms "$2" --bound 120 --label "qemu-$1" --results "$tmp/results" >"$tmp/$1.tap" 2>&1
	code=$?
	sed 's/^/# /' "$tmp/$1.tap"
	[ $code = 0 ] && echo "ok $3 - the contract on $1${5:+: $5}" || echo "not ok $3 - the contract on $1${5:+: $5}"
}
as() { "$@"; }
dir=$tmp
cp "$build/tests/contract/contract" "$tmp/contract"
pages 128 # the memory of one VM
run microvm 8 1
run q35 2 2
if "$top/tests/contract/tiny-image.sh" "$build/vse-guest" "$tmp/with-9p" linux-image-amd64 2>"$tmp/why"; then
	run microvm 1 3 with-9p host_dir
	# On the other machine type as an ordinary user, where root runs this.
	if [ "$(id -u)" = 0 ]; then
		dir=$tmp/user
		mkdir -m 777 "$dir" && chmod -R a+rX "$tmp/with-9p" "$tmp/contract" && chmod 711 "$tmp" && chmod 666 "$tmp/results"
		as() { setpriv --reuid 61945 --regid 61945 --clear-groups -- "$@"; }
	fi
	run q35 1 4 with-9p host_dir
else
	echo "not ok 3 - an image with 9p: $(head -n 1 "$tmp/why")"
	echo "not ok 4 - the same"
fi
TMPDIR=$tmp "$build/tests/contract/contract" fake --results "$tmp/results" >/dev/null
"$build/tests/contract/contract" --matrix "$tmp/results" # all of them in one
echo 1..4
