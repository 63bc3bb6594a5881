#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The guest agent in real VMs: everything of the guest protocol, with changes in memory and on a scratch disk, and the
# line that a VM which cannot start leaves.
top=$(cd "$(dirname "$0")/../.." && pwd -P)
build=${VSE_BUILD:-$top/build}
tmp=$(mktemp -d "${VSE_TEST_TMP:-${TMPDIR:-/tmp}}/guest.XXXXXX") || exit 1
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' INT TERM HUP
if ! "$top/tests/contract/tiny-image.sh" "$build/vse-guest" "$tmp/image" 2>"$tmp/why"; then
	echo "1..0 # SKIP no image: $(head -n 1 "$tmp/why")"
	exit 0
fi
khz=$(awk -F: '/^bogomips/ { printf "%d", $2 * 500; exit }' /proc/cpuinfo)
mods=$(sed -n 's/.*\(vse.mods=[^ ]*\).*/\1,ext4/p' "$tmp/image/cmdline")
kernel="console=ttyS0 quiet panic=-1 tsc_early_khz=$khz tsc=reliable no_timer_check cryptomgr.notests"

boot() { # NAME PROGRAM-BEFORE-QEMU WORDS [QEMU ARGUMENT...]
	name=$1 before=$2 words=$3
	shift 3
	# shellcheck disable=SC2086 # two lists of words
	timeout 300 $before qemu-system-x86_64 -accel tcg -M microvm -bios qboot.rom -cpu max,-la57 -m 256 \
		-nodefaults -no-user-config -display none -no-reboot -kernel "$tmp/image/vmlinux" \
		-initrd "$tmp/image/initrd" -append "$kernel $mods $words" -serial "file:$tmp/$name.console" \
		-chardev "socket,id=c,path=$tmp/s,server=on,wait=off" -device virtio-serial-device \
		-device virtserialport,chardev=c,name=org.vse.agent.0 \
		-drive "if=none,id=d,format=raw,file=$tmp/image/root,readonly=on" -device virtio-blk-device,drive=d "$@"
	code=$?
	rm -f "$tmp/s"
	return $code
}
count=0
result() { # CODE WHAT LOG
	count=$((count + 1))
	sed 's/^/# /' "$3"
	[ "$1" = 0 ] && echo "ok $count - $2" || echo "not ok $count - $2"
}
nic='-netdev user,id=n -device virtio-net-device,netdev=n,mac=52:54:00:12:34:56'

# shellcheck disable=SC2086
VSE_TEST_NET=1 boot mem "$build/tests/unit/guest-boot $tmp/s vse" vse.root=squashfs:vda:mem $nic >"$tmp/log" 2>&1
result $? 'the protocol, changes in memory' "$tmp/log"

truncate -s 256M "$tmp/scratch" && PATH=$PATH:/sbin:/usr/sbin mke2fs -q -F -t ext4 "$tmp/scratch"
boot scratch "$build/tests/unit/guest-boot $tmp/s vse" vse.root=squashfs:vda:vdb \
	-drive "if=none,id=e,format=raw,file=$tmp/scratch" -device virtio-blk-device,drive=e >"$tmp/log" 2>&1
result $? 'the protocol, changes on a scratch disk' "$tmp/log"
PATH=$PATH:/sbin:/usr/sbin e2fsck -fn "$tmp/scratch" >"$tmp/log" 2>&1
result $? 'the scratch disk is clean afterwards' "$tmp/log"

# Stand-ins of ssh-keygen, which takes its time, and of sshd: what matters is when they are started and ended.
mkdir -p "$tmp/more/usr/sbin" "$tmp/more/usr/bin" "$tmp/more/etc/ssh"
cat >"$tmp/more/usr/bin/ssh-keygen" <<-'END'
	#!/bin/sh
	cat /proc/sys/kernel/random/uuid >/etc/ssh/ssh_host_ed25519_key
	sleep 2
END
cat >"$tmp/more/usr/sbin/sshd" <<-'END'
	#!/bin/sh
	exec /bin/busybox nc -ll -p 22 -e /bin/cat
END
chmod 755 "$tmp/more/usr/bin/ssh-keygen" "$tmp/more/usr/sbin/sshd"
unsquashfs -q -n -d "$tmp/whole" "$tmp/image/root" >/dev/null && cp -a "$tmp/more/." "$tmp/whole" &&
	mksquashfs "$tmp/whole" "$tmp/image/root" -quiet -no-progress -noappend -all-root >/dev/null
boot twice "$build/tests/unit/guest-boot $tmp/s twice" vse.root=squashfs:vda:mem >"$tmp/log" 2>&1
result $? 'told twice who it is while its ssh key is made' "$tmp/log"

boot noroot env vse.root=ext4:vda:mem >"$tmp/log" 2>&1
grep -a 'vse-guest: panic: mount /dev/vda (ext4)' "$tmp/noroot.console" >>"$tmp/log"
result $? 'a root that cannot be mounted: one line, and off' "$tmp/log"
echo "1..$count"
