#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
test_description='a real Debian image: packages, kernel, modules; the same bytes again; boots'
. "$(dirname "$0")/lib.sh"
. "$TOP/tests/system/image-lib.sh"
need_builder
for tool in mmdebstrap qemu-system-x86_64; do
	command -v $tool >/dev/null || {
		skip_all="$tool is not here"
		test_done
	}
done
if [ "$(dpkg --print-architecture)" != amd64 ]; then
	skip_all='the kernel that is looked at is the one for amd64'
	test_done
fi
# The packages that other tests downloaded are taken, and what this one downloads is left for them.
shared=$XDG_DATA_HOME
own_store
mkdir -p "$XDG_DATA_HOME/vse" && if [ -d "$shared/vse/cache" ]; then cp -r "$shared/vse/cache" "$XDG_DATA_HOME/vse/"; fi

test_expect_success 'a minimal image is built; plain progress lines name the steps' '
	cat >min.yaml <<-EOF &&
	vse: 1
	name: min
	base: debian:bookworm
	packages: [iputils-ping]
	env: {GREETING: hello}
	build: ["dpkg -s iputils-ping >/dev/null"]
	EOF
	vse build min.yaml >id 2>progress && id=$(cat id) && dir=$XDG_DATA_HOME/vse/images/$id &&
	grep "^packages" progress && grep "^kernel" progress && grep "^root" progress &&
	mkdir -p "$shared/vse/cache/debs" && cp -rn "$XDG_DATA_HOME/vse/cache/debs/." "$shared/vse/cache/debs/"
'
test_expect_success 'kernel, PVH kernel, modules, packages and index are there' '
	test -s "$dir/vmlinux" && test -s "$dir/kernel" && vse image show --json min >manifest &&
	grep "\"name\": \"iputils-ping\"" manifest && grep "\"package\": \"linux-image-cloud-amd64 " manifest &&
	grep -A20 "\"order\"" manifest | tr -d "\" ,\n" | grep "virtio_ring.*virtio.*virtio_mmio.*virtio_blk" &&
	unsquashfs -lln "$dir/root.squashfs" >list && grep "/lib/modules/.*/modules.dep.bin$" list &&
	grep "/lib/modules/.*/ext4\|/lib/modules/.*/squashfs.ko" list
'
test_expect_success 'nothing of this host is in it' '
	test -z "$(unsquashfs -cat "$dir/root.squashfs" etc/resolv.conf)" &&
	test "$(unsquashfs -cat "$dir/root.squashfs" etc/hostname)" = vse &&
	! grep -E "ssh_host_|/var/lib/apt/lists/.|policy-rc.d|/usr/share/man/man1/." list &&
	! grep "/etc/apt/apt.conf.d/99mmdebstrap" list && ! grep -E "squashfs-root/(dev|run|tmp|proc)/." list
'
test_expect_success 'unchanged: found in well under a second' '
	begin=$(date +%s%N) && test "$(vse build -q min.yaml)" = "$id" && end=$(date +%s%N) &&
	echo "# cache hit: $(((end - begin) / 1000000)) ms" && vse build --json min.yaml | grep "\"cached\": true"
'
test_expect_success 'built again, it is the same byte for byte' '
	cp -r "$dir" first && vse image rm min && vse build -q min.yaml && diff -r first "$dir"
'
test_expect_success 'packages of the cache are used where they are, and stay' '
	debs=$XDG_DATA_HOME/vse/cache/debs && find "$debs" -name "*.deb" -type f -size +0 | sort >before && test -s before &&
	first=$(head -n 1 before) && : >"${first%/*}/zz-unneeded_1_all.deb" && vse image rm min &&
	vse build min.yaml >id 2>progress && ! grep "^download" progress && test -f "${first%/*}/zz-unneeded_1_all.deb" &&
	find "$debs" -name "*.deb" -type f -size +0 | sort | test_cmp before - &&
	unsquashfs -lln "$dir/root.squashfs" >list && ! grep -E "cache/apt/(lent|archives/.*deb)" list
'
test_expect_success 'the image boots to its guest agent' '
	kernel=$(vse build --json min.yaml | sed -n "s/^  \"vmlinux\": \"\(.*\)\",*$/\1/p") &&
	initrd=$(vse build --json min.yaml | sed -n "s/^  \"initrd\": \"\(.*\)\",*$/\1/p") &&
	mods=$(vse image show min | sed -n "s/^modules *//p") &&
	khz=$(awk -F: "/^bogomips/ { printf \"%d\", \$2 * 500; exit }" /proc/cpuinfo) &&
	{ timeout 120 qemu-system-x86_64 -accel tcg -M microvm -cpu max,-la57 -m 256 -nodefaults -no-user-config \
		-display none -no-reboot -bios qboot.rom -kernel "$kernel" -initrd "$initrd" -serial file:console \
		-append "console=ttyS0 panic=-1 tsc_early_khz=$khz tsc=reliable no_timer_check cryptomgr.notests vse.mods=$mods vse.root=squashfs:vda:mem" \
		-chardev file,id=c0,path=channel -device virtio-serial-device \
		-device virtserialport,chardev=c0,name=org.vse.agent.0 \
		-blockdev driver=raw,node-name=root,read-only=on,file.driver=file,file.filename="$dir/root.squashfs" \
		-device virtio-blk-device,drive=root </dev/null & } && qemu=$! &&
	{ wait_for 90 grep -aq "verb.*hello" channel || { tail -20 console; false; }; } && kill $qemu
'
test_expect_success 'a package that is not there, a suite that is not there' '
	sed "s/iputils-ping/no-such-package-xyz/;s/name: min/name: bad/" min.yaml >bad.yaml &&
	test_expect_code 1 vse build -q bad.yaml 2>err && one_line err && grep "package no-such-package-xyz: not in bookworm" err &&
	sed "s/bookworm/nosuchsuite/;s/name: min/name: bad/" min.yaml >bad.yaml &&
	test_expect_code 1 vse build -q bad.yaml 2>err && one_line err && grep "suite nosuchsuite" err && store_is_clean
'
test_expect_success 'killed while packages are installed: nothing is left' '
	{ vse build --rebuild min.yaml 2>progress >out & } && pid=$! && wait_for 300 grep "^packages" progress &&
	kill -s KILL $pid && wait_for 5 store_is_clean
'
test_nothing_left
test_done
