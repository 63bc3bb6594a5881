#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The contract of a hypervisor back end, on palacios: on an EMULATION of its module with a real kernel and the real guest
# agent, or, with VSE_PALACIOS_REAL set, on the real module. An operation that would crash a real host fails it.
# VSE_PALACIOS_ONLY: only tests whose name has this in it.
top=$(cd "$(dirname "$0")/../.." && pwd -P)
build=${VSE_BUILD:-$top/build}
skip() {
	echo "1..0 # SKIP $1"
	exit 0
}
for program in xorriso qemu-system-x86_64; do
	command -v "$program" >/dev/null || skip "$program is not installed"
done
tmp=$(mktemp -d "${VSE_TEST_TMP:-${TMPDIR:-/tmp}}/contract.XXXXXX") || exit 1
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' INT TERM HUP
"$top/tests/contract/tiny-image.sh" "$build/vse-guest" "$tmp/image" 2>"$tmp/why" || skip "no image: $(head -n 1 "$tmp/why")"
image=$tmp/image
set -- "$build/tests/contract/contract" palacios --kernel "$image/kernel" --initrd "$image/initrd" --root "$image/root" \
	--cmdline "$(cat "$image/cmdline")" --vms 2 --bound 240
label=palacios-EMULATION
if [ -n "${VSE_PALACIOS_REAL-}" ]; then
	label=palacios
else
	set -- "$top/tests/palacios/emulation" "$@"
fi
TMPDIR=$tmp "$@" --label "$label" ${VSE_PALACIOS_ONLY:+--only "$VSE_PALACIOS_ONLY"} >"$tmp/tap" 2>&1
code=$?
sed 's/^/# /' "$tmp/tap"
[ "$code" = 0 ] && echo "ok 1 - the contract on $label" || echo "not ok 1 - the contract on $label: status $code"
echo 1..1
