# shellcheck shell=sh
# SPDX-License-Identifier: Apache-2.0
# A whole test machine in QEMU: source this file, then
#   machine_build                         makes (or finds) the machine's disk and kernel
#   machine_run OUT PAYLOAD COMMAND...    boots it, runs COMMAND in it as root, ends it
#
# The machine is emulated (TCG) with an AMD processor that has SVM, so /dev/kvm in it is real: what runs
# there with -accel kvm really goes through KVM, on hosts that have none. It needs no root, no network and
# no sshd: the payload goes in as a disk, the answer comes out as a disk.
#
# PAYLOAD is a folder; COMMAND finds a read-only copy of it at /payload and starts there. OUT is made anew:
# it has stdout, stderr, rc, console.log and whatever COMMAND left in /out. machine_run gives COMMAND's exit
# code, or 125 when the machine did not get that far (console.log tells).
# In it: root and the ordinary user `tester` (in group kvm), / read-only, /tmp /root /home/tester writable.
# Settings: MACHINE_TIME (seconds for COMMAND, 300), MACHINE_MEM (MiB, 3072), MACHINE_CPUS (2),
# MACHINE_OUT (MiB that may come out, 64), MACHINE_CACHE (default $XDG_CACHE_HOME/vse-test), MACHINE_TRIES (3: so often it
# is booted where its kernel crashes), MACHINE_ARGS (more words for QEMU, of which none has a blank: a network, say),
# MACHINE_PACKAGES (more of them make another machine; set after this file).
# xen-machine.sh makes another machine out of this one: it has its own machine__make, machine__qemu and so on.

# MACHINE_SH must name this file (sh cannot tell); MACHINE_DIR is set by machine_build.
MACHINE_SUITE=bookworm
MACHINE_MORE=            # another file that the machine is made by
MACHINE_BOOT=60          # seconds to come up and to write the results
MACHINE_CRASH='Kernel panic\|BUG: ' # in the console of a machine that is booted again
MACHINE_PACKAGES=busybox-static,iproute2,kmod,procps,qemu-system-x86,seabios

# Users' PATH often lacks depmod, modprobe and mke2fs.
PATH=$PATH:/usr/sbin:/sbin

machine__die() {
	echo "machine: $*" >&2
	return 1
}

# The host's own Debian sources, as one-line entries: mirrors and proxies are the site's business, not ours.
machine__sources() {
	apt-get indextargets --format 'deb $(REPO_URI) $(CODENAME) $(COMPONENT)' \
		'Created-By: Packages' 'Origin: Debian' | sort -u | awk -v s="$MACHINE_SUITE" '$3 ~ "^" s'
}

# Runs a command as root, or as root of a user namespace with this user's subordinate ids.
machine__as_root() {
	if [ "$(id -u)" = 0 ]; then "$@"; else unshare --map-auto --map-root-user "$@"; fi
}

machine__init() {
	cat <<'INIT'
#!/bin/sh
# Process 1 of the test machine: mounts, KVM, the command, its results to the third disk, power off.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
for d in /tmp /run /root /out /var/tmp /var/lib/vse /home/tester /dev/shm; do
	mount -t tmpfs -o mode=755 tmpfs $d
done
chmod 1777 /tmp /var/tmp /dev/shm
chmod 777 /out
chown tester:tester /home/tester
exec </dev/null >/dev/ttyS0 2>&1
stty -F /dev/ttyS0 -echo # of what wakes it: see machine__boot
hostname machine
ip link set lo up
modprobe -a kvm-amd tun overlay 2>/dev/null
if [ -e /dev/kvm ]; then chgrp kvm /dev/kvm; chmod 660 /dev/kvm; fi
mount -t ext4 -o ro /dev/nvme0n2 /payload
read -r seconds </payload/.machine-time
cd /payload
timeout -k 5 "$seconds" sh /payload/.machine-command >/out/stdout 2>/out/stderr
echo $? >/out/rc
tar -C /out -cf /dev/nvme0n3 . || echo "machine: the results do not fit"
sync
echo machine: done
echo b >/proc/sysrq-trigger
while :; do sleep 1; done
INIT
}

machine__kernel_package() {
	apt-cache depends linux-image-cloud-amd64 | awk '$1 == "Depends:" && $2 ~ /^linux-image-[0-9]/ { print $2; exit }'
}

# Makes the disk in the current folder.
machine__make() {
	kernel=$1
	apt-get -qq -o APT::Sandbox::User=root download "$kernel" >&2 || return 1
	dpkg -x "$kernel"_*.deb kernel && rm -- "$kernel"_*.deb || return 1
	cp kernel/boot/vmlinuz-* vmlinuz
	machine__sources >sources
	machine__init >init
	# Only the modules that tests here have a use for: the whole set is 120 MB.
	mkdir -p root
	modules=$(echo kernel/lib/modules/*)
	version=${modules##*/}
	depmod -b kernel "$version" || return 1
	for module in kvm-amd kvm-intel tun overlay squashfs erofs virtio_pci virtio_console virtio_blk virtio_net \
		virtio_mmio vhost_net loop bridge veth fuse; do
		modprobe -d "$PWD/kernel" -S "$version" --show-depends "$module" 2>/dev/null
	done | awk '$1 == "insmod" { print $2 }' | sort -u | while read -r file; do
		dir=root${file#"$PWD/kernel"}
		mkdir -p "${dir%/*}" && cp "$file" "$dir"
	done
	cp "$modules"/modules.builtin* "$modules"/modules.order "root/lib/modules/$version/"
	depmod -b root "$version" || return 1
	install -D -m 755 init root/init
	mkdir -p root/payload root/out root/var/lib/vse
	# Few open descriptors: mmdebstrap hands one to a hook of apt that dash runs, whose redirections end at 9.
	mmdebstrap --quiet --variant=minbase --include="$MACHINE_PACKAGES" \
		--aptopt='APT::Install-Recommends "false"' \
		--dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
		--dpkgopt='path-exclude=/usr/share/locale/*' \
		--customize-hook='chroot "$1" groupadd -rf kvm' \
		--customize-hook='chroot "$1" useradd -m -s /bin/bash -G kvm tester' \
		"$MACHINE_SUITE" root.tar sources >&2 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&- || return 1
	machine__as_root sh -ec 'mkdir tree; tar -C tree -xpf root.tar --exclude="./dev/*"
		tar -C root --owner=0 --group=0 -cf - . | tar -C tree -xpf - --keep-directory-symlink
		truncate -s 1G root.ext4; mke2fs -q -t ext4 -O ^has_journal -m 0 -d tree -F root.ext4; rm -rf tree' ||
		return 1
	rm -rf kernel root root.tar sources init
}

# Sets MACHINE_DIR to the folder with vmlinuz and root.ext4.
machine_build() {
	cache=${MACHINE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/vse-test}
	package=$(machine__kernel_package)
	[ -n "$package" ] || machine__die "no kernel for it in apt's lists (apt-get update?)" || return 1
	key=$({ cat "$MACHINE_SH" ${MACHINE_MORE:+"$MACHINE_MORE"}; echo "$package $MACHINE_PACKAGES"; machine__sources; } | sha256sum | cut -c1-16)
	MACHINE_DIR=$cache/machine-$key
	export MACHINE_DIR
	mkdir -p "$cache" || return 1
	(
		flock 9 || exit 1
		[ ! -e "$MACHINE_DIR" ] || exit 0
		find "$cache" -maxdepth 1 -name 'machine-*' -mtime +7 -exec rm -rf {} +
		work=$cache/work-$key
		machine__as_root rm -rf "$work"
		mkdir "$work" && cd "$work" || exit 1
		if machine__make "$package"; then
			mv "$work" "$MACHINE_DIR" && exit 0
		fi
		cd / && machine__as_root rm -rf "$work"
		exit 1
	) 9>"$cache/lock" || machine__die "could not build the machine below $cache"
}

# The kernel's estimate of the TSC rate fails now and then under TCG: tell it (kHz, from the host).
machine__tsc_khz() {
	awk '/^bogomips/ { printf "%d\n", $3 * 500; exit }' /proc/cpuinfo
}

# Result disk -> OUT; fails when the machine never wrote one.
machine__collect() {
	tar -C "$2" -xf "$1" --no-same-owner --no-same-permissions 2>/dev/null && [ -s "$2/rc" ]
}

# Once a second, on the machine's serial line. Its emulated local APIC now and then keeps an interrupt that it has
# accepted (seen with QEMU 7.2: the timer's vector in IRR, nothing asked of the processor, which stays in HLT for ever),
# until another device has one.
machine__wake() {
	while echo 2>/dev/null; do sleep 1; done
}

# Of machine__boot: $limit, $out, $disk, $result.
# shellcheck disable=SC2086 # MACHINE_ARGS are words
machine__qemu() {
	machine__wake | timeout -k 5 "$limit" qemu-system-x86_64 -accel tcg,thread=multi -M q35 -cpu EPYC,+svm,+npt \
		-smp "${MACHINE_CPUS:-2}" -m "${MACHINE_MEM:-3072}" -nodefaults -no-user-config -display none -no-reboot \
		-kernel "$MACHINE_DIR/vmlinuz" -append "console=ttyS0 panic=-1 root=/dev/nvme0n1 rootfstype=ext4 ro rootwait \
			init=/init tsc_early_khz=$(machine__tsc_khz) tsc=reliable no_timer_check cryptomgr.notests mitigations=off" \
		-serial stdio -device nvme,id=disks,serial=machine \
		-drive "if=none,id=root,format=raw,readonly=on,file=$MACHINE_DIR/root.ext4" \
		-drive "if=none,id=payload,format=raw,readonly=on,file=$disk" \
		-drive "if=none,id=result,format=raw,file=$result" \
		-device nvme-ns,drive=root,bus=disks,nsid=1 -device nvme-ns,drive=payload,bus=disks,nsid=2 \
		-device nvme-ns,drive=result,bus=disks,nsid=3 ${MACHINE_ARGS-} >"$out/console.log"
}

# One boot. 125: no result.
machine__boot() {
	out=$1 payload=$2
	shift 2
	seconds=${MACHINE_TIME:-300}
	limit=$((seconds + MACHINE_BOOT))
	rm -rf "$out" && mkdir "$out" && mkdir "$out/.machine" "$out/.machine/payload" || return 125
	disk=$out/.machine/payload.ext4 result=$out/.machine/result
	cp -R "$payload/." "$out/.machine/payload/" || return 125
	echo "$*" >"$out/.machine/payload/.machine-command"
	echo "$seconds" >"$out/.machine/payload/.machine-time"
	size=$(du -sm "$out/.machine/payload" | cut -f1)
	truncate -s $((size + size / 8 + 16))M "$disk"
	truncate -s "${MACHINE_OUT:-64}M" "$result"
	mke2fs -q -t ext4 -O ^has_journal -m 0 -E root_owner=0:0 -d "$out/.machine/payload" -F "$disk" || return 125
	machine__qemu 2>"$out/qemu.log"
	machine__collect "$result" "$out"
	collected=$?
	rm -rf "$out/.machine"
	[ $collected = 0 ] || { tail -n 20 "$out/console.log" >&2; return 125; }
	return "$(cat "$out/rc")"
}

# The emulated SVM of QEMU 7.2 now and then gives the machine's kernel a wrong state back, and it panics. Nothing
# that runs in the machine can do that to it: it is booted again.
machine_run() {
	for machine__try in $(seq "${MACHINE_TRIES:-3}"); do
		machine__boot "$@"
		machine__code=$?
		[ $machine__code = 125 ] || break
		grep -q "$MACHINE_CRASH" "$1/console.log" 2>/dev/null || break
		echo "machine: its kernel crashed (try $machine__try)" >&2
	done
	return $machine__code
}
