#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The contract of a hypervisor back end, on containers with the real guest agent: as whoever runs this, and, where that is
# root, as an ordinary user with subordinate ids of his own.
top=$(cd "$(dirname "$0")/../.." && pwd -P)
build=${VSE_BUILD:-$top/build}
for program in bwrap unsquashfs newuidmap; do
	command -v $program >/dev/null || {
		echo "1..0 # SKIP $program is not here"
		exit 0
	}
done
tmp=$(mktemp -d "${VSE_TEST_TMP:-${TMPDIR:-/tmp}}/contract.XXXXXX") || exit 1
finish() { # what was unpacked belongs to other ids
	[ "$(id -u)" = 0 ] || unshare --map-auto --map-root-user rm -rf "$tmp/user/roots" 2>/dev/null
	rm -rf "$tmp"
}
trap finish EXIT
trap 'exit 130' INT TERM HUP
chmod 711 "$tmp"
if ! "$top/tests/contract/tiny-image.sh" "$build/vse-guest" "$tmp/image" 2>"$tmp/why"; then
	echo "1..0 # SKIP no image: $(head -n 1 "$tmp/why")"
	exit 0
fi
chmod -R a+rX "$tmp/image"
cp "$build/tests/contract/contract" "$tmp/contract" # where another user can reach it
chmod 755 "$tmp/contract"

run() { # NAME NUMBER COMMAND...: the suite, by the command
	name=$1 number=$2
	shift 2
	"$@" env TMPDIR="$tmp/$name" VSE_ROOTS="$tmp/$name/roots" "$tmp/contract" container --label "container, $name" \
		--kernel "$tmp/image/kernel" --initrd "$tmp/image/initrd" --root "$tmp/image/root" \
		--cmdline "$(cat "$tmp/image/cmdline")" --vms 8 --bound 60 >"$tmp/$name.tap" 2>&1
	code=$?
	sed 's/^/# /' "$tmp/$name.tap"
	[ $code = 0 ] && echo "ok $number - the contract as $name" || echo "not ok $number - the contract as $name"
}

if [ "$(id -u)" != 0 ]; then
	mkdir "$tmp/user"
	run user 1 env
	echo 1..1
	exit 0
fi
mkdir -m 711 "$tmp/root"
run root 1 env
# The user and his ids exist for his processes only.
mkdir -m 700 "$tmp/user" "$tmp/etc" && chown 61943 "$tmp/user"
for file in passwd group; do cp "/etc/$file" "$tmp/etc/"; done
echo 'vsetest:x:61943:61943::/:/bin/sh' >>"$tmp/etc/passwd"
for file in subuid subgid; do echo 'vsetest:7100000:65536' >"$tmp/etc/$file"; done
chmod 755 "$tmp/etc"
as_user() {
	# shellcheck disable=SC2016 # for the inner shell
	unshare -m sh -c '
		for f in passwd group subuid subgid; do mount --bind "$0/etc/$f" "/etc/$f" || exit 99; done
		exec setpriv --reuid 61943 --regid 61943 --clear-groups -- "$@"' "$tmp" "$@"
}
if as_user true 2>/dev/null; then
	run user 2 as_user
else
	echo "ok 2 - the contract as user # SKIP there is no other user's mount namespace here"
fi
echo 1..2
