#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
test_description='builds that cannot work say what, where, why and what to do, in one line, and leave nothing'
. "$(dirname "$0")/lib.sh"
. "$TOP/tests/system/image-lib.sh"
need_builder
own_store
mkdir -p "$XDG_DATA_HOME/vse/tmp"

fails() { # WORDS COMMAND...: one line on stderr that has the words, exit 1
	words=$1
	shift
	test_expect_code 1 "$@" 2>err >out
	code=$?
	cat err
	[ $code = 0 ] && one_line err && grep -e "$words" err && store_is_clean
}
# In a mount namespace of its own, where DIR can be a small file system.
with_tmpfs() { # OPTIONS DIR COMMAND...
	if [ "$(id -u)" = 0 ]; then
		unshare -m sh -c 'mount -t tmpfs -o "$1" t "$2" && shift 2 && exec "$@"' sh "$@"
	else
		unshare --map-auto --map-root-user -m sh -c 'mount -t tmpfs -o "$1" t "$2" && shift 2 && exec "$@"' sh "$@"
	fi
}

test_expect_success 'set up' '
	make_kernel kernel && make_root root && make_vse dir "dir:$PWD/root" </dev/null &&
	printf "vse: 1\nname: deb\nbase: debian:bookworm\nmirror: http://127.0.0.1:9/debian\n" >deb.yaml && mkdir small
'
test_expect_success 'a store that cannot be written' '
	XDG_DATA_HOME=$PWD/small fails "store: .*small/vse.*set XDG_DATA_HOME" with_tmpfs ro small vse build -q dir.yaml &&
	echo file >inway && XDG_DATA_HOME=$PWD/inway fails "store: .*inway" vse build -q dir.yaml
'
test_expect_success 'no room in the store, known before the build' '
	XDG_DATA_HOME=$PWD/small fails "store .*small/vse: .* free, this build needs about .*gc" \
		with_tmpfs size=8m small vse build -q dir.yaml
'
test_expect_success 'no room in the store, found out during the build' '
	make_root big && mkdir -p big/usr/bin && cp "$(command -v head)" big/usr/bin/ &&
	make_vse big "dir:$PWD/big" <<-\EOF &&
	build: ["head -c 150000000 /dev/urandom >/junk"]
	EOF
	XDG_DATA_HOME=$PWD/small fails "no space left" with_tmpfs size=110m small vse build -q big.yaml
'
test_expect_success 'a program that is missing names its package' '
	mkdir few && for p in sh tar gzip newuidmap newgidmap apt-config dpkg-deb; do
		f=$(command -v $p) && ln -s "$f" few/$p
	done && ln -s "$(command -v vse)" few/vse &&
	fails "program mksquashfs: not found: install the package squashfs-tools" env PATH="$PWD/few" vse build -q dir.yaml
'
test_expect_success 'a base that is not there' '
	printf "vse: 1\nname: gone\nbase: dir:%s/nothing\n" "$PWD" >gone.yaml && test_must_fail vse build -q gone.yaml 2>err &&
	grep nothing err
'
test_expect_success 'a kernel that is none' '
	echo text >notkernel && printf "vse: 1\nname: k\nbase: dir:%s/root\nkernel: %s/notkernel\n" "$PWD" "$PWD" >k.yaml &&
	fails "kernel .*notkernel: not a Linux bzImage" vse build -q k.yaml
'
if [ "$(dpkg --print-architecture 2>/dev/null)" = amd64 ] && [ ! -e /proc/sys/fs/binfmt_misc/qemu-aarch64 ]; then
	test_expect_success 'another architecture' '
		make_vse arm "dir:$PWD/root" <<-\EOF &&
		arch: arm64
		EOF
		fails "programs are for amd64" vse build -q arm.yaml &&
		printf "vse: 1\nname: armdeb\nbase: debian:bookworm\narch: arm64\n" >arm.yaml &&
		fails "architecture arm64: this host is amd64.*qemu-user-static" vse build -q arm.yaml
	'
fi
if command -v mmdebstrap >/dev/null; then
	test_expect_success 'a mirror that does not answer' '
		printf "Dir::Etc::Main \"/dev/null\";\nDir::Etc::Parts \"/dev/null\";\n" >noproxy &&
		fails "network: .*Could not connect to 127.0.0.1:9" env -u http_proxy -u HTTP_PROXY -u all_proxy \
			APT_CONFIG="$PWD/noproxy" vse build -q deb.yaml
	'
fi
if [ "$(id -u)" = 0 ] && setpriv --reuid=54321 --regid=54321 --clear-groups test -x "$VSE_BUILD/vse"; then
	test_expect_success 'a user without subordinate ids' '
		mkdir nobody && cp -r dir.yaml kernel root nobody/ && chmod -R a+rX .. . && chown -R 54321 nobody &&
		XDG_DATA_HOME=$PWD/nobody fails "has no range in /etc/subuid.*usermod" \
			setpriv --reuid=54321 --regid=54321 --clear-groups vse build -q dir.yaml
	'
fi
test_nothing_left
test_done
