# shellcheck shell=sh disable=SC2034,SC2154
# SPDX-License-Identifier: Apache-2.0
# The test machine of machine.sh with Xen: COMMAND runs in dom0, where `xl` works. Source it after machine.sh.
#
# Xen 4.17 of Debian boots on an emulated processor that has SVM, so PVH and HVM guests run too, slowly. Its memory:
# 768 MiB are dom0's, the rest of MACHINE_MEM is for guests. / is writable, and as it was at every boot. COMMAND finds
# what the toolstack said in /var/log/xen.
#
# What this needs of QEMU 7.2: no SMAP, which its iret gets wrong for a PV dom0 (it dies at once); no RDTSCP, which Xen
# has no way to emulate for SVM guests on it. And of Xen: no lazy switching of the FPU, as it has by itself on AMD; with it
# registers of one domain turn up in another (PVH: one of five copies of 60 KB into a guest was wrong, then none of sixty). And the
# older scheduler: with credit2 and HVM guests the machine stood still after half an hour, twice; Xen's own dump (its console,
# three times Ctrl-A, then r) showed dom0 in the queue of what could run, and both processors idle.

MACHINE_MORE=$TOP/tests/system/xen-machine.sh
MACHINE_PACKAGES=busybox-static,e2fsprogs,iproute2,kmod,procps,qemu-system-xen,xen-utils-4.17,xenstore-utils
MACHINE_BOOT=240
MACHINE_CRASH='Kernel panic\|BUG: \|Panic on CPU\|Hardware Dom0 crashed'

# The cloud kernel is built without dom0.
machine__kernel_package() {
	apt-cache depends linux-image-amd64 | awk '$1 == "Depends:" && $2 ~ /^linux-image-[0-9]/ { print $2; exit }'
}

machine__xen_init() {
	cat <<'INIT'
#!/bin/sh
# Process 1 of dom0. No udev and no systemd: what they would have made is made here.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
mkdir -p /dev/pts /dev/shm
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devpts -o mode=620,ptmxmode=666 devpts /dev/pts
for d in /tmp /run /root /out /dev/shm; do
	mount -t tmpfs -o mode=755 tmpfs $d
done
chmod 1777 /tmp /dev/shm
# locking.sh of Xen's hotplug scripts waits for ever without /dev/stdin.
ln -sf /proc/self/fd /dev/fd
for n in 0:stdin 1:stdout 2:stderr; do ln -sf "fd/${n%:*}" "/dev/${n#*:}"; done
mkdir -p /run/lock /run/xen /run/xenstored /var/log/xen/console
exec </dev/null >/dev/hvc0 2>&1
stty -F /dev/hvc0 -echo # of what wakes the machine
hostname dom0
ip link set lo up
modprobe -a loop bridge tun xen-evtchn xen-gntdev xen-gntalloc xen-privcmd xen-netback xen-blkback
mount -t xenfs xenfs /proc/xen
echo 'XENCONSOLED_ARGS="--log=guest --log-dir=/var/log/xen/console"' >>/etc/default/xen
/etc/init.d/xen start
mount -t ext4 -o ro /dev/vdb /payload
read -r seconds </payload/.machine-time
cd /payload
echo "machine: up after $(cut -d' ' -f1 /proc/uptime) s"
timeout -k 5 "$seconds" sh /payload/.machine-command >/out/stdout 2>/out/stderr
echo $? >/out/rc
mkdir -p /out/log
cp -R /var/log/xen /out/log/ 2>/dev/null
xl dmesg >/out/log/xl-dmesg 2>&1
tar -C /out -cf /dev/vdc . || echo "machine: the results do not fit"
sync
echo machine: done
echo b >/proc/sysrq-trigger
while :; do sleep 1; done
INIT
}

machine__xen_initrd_init() {
	cat <<'INIT'
#!/bin/busybox sh
/bin/busybox mkdir -p /proc /dev /new
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t devtmpfs devtmpfs /dev
while read -r module; do insmod "/modules/$module"; done </modules/list
tries=0
until [ -b /dev/vda ] || [ $tries = 300 ]; do
	sleep 0.1
	tries=$((tries + 1))
done
mount -t ext4 /dev/vda /new || exec sh
umount /proc
mount -o move /dev /new/dev
exec switch_root /new /init
INIT
}

machine__modules() { # NAME...: their files and those they need, in the order of loading
	for module; do
		modprobe -d "$PWD/kernel" -S "$version" --show-depends "$module" 2>/dev/null
	done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }'
}

machine__xen_files() {
	cp kernel/boot/vmlinuz-* vmlinuz
	# Unpacked here: both decompressors of Xen are slow under emulation, and QEMU's loader wants Xen unpacked.
	at=$(LC_ALL=C grep -obUaP '\xfd7zXZ\x00' vmlinuz | head -n 1 | cut -d: -f1)
	tail -c +$((at + 1)) vmlinuz | xz -dc --single-stream >vmlinux || return 1
	zcat kernel/boot/xen-4.17-amd64.gz >xen || return 1
	modules=$(echo kernel/lib/modules/*)
	version=${modules##*/}
	depmod -b kernel "$version" || return 1
	mkdir -p root initrd/bin initrd/modules
	machine__modules virtio_pci virtio_blk virtio_net ext4 bridge tun loop xen-evtchn xen-gntdev xen-gntalloc xen-privcmd \
		xen-netback xen-blkback xenfs | while read -r file; do
		dir=root${file#"$PWD/kernel"}
		mkdir -p "${dir%/*}" && cp "$file" "$dir"
	done
	cp "$modules"/modules.builtin* "$modules"/modules.order "root/lib/modules/$version/"
	depmod -b root "$version" || return 1
	machine__modules virtio_pci virtio_blk ext4 | while read -r file; do
		cp "$file" initrd/modules/ && echo "${file##*/}"
	done >list
	mv list initrd/modules/
}

# Makes the disk in the current folder.
machine__make() {
	apt-get -qq -o APT::Sandbox::User=root download "$1" xen-hypervisor-4.17-amd64 >&2 || return 1
	for file in *.deb; do dpkg -x "$file" kernel || return 1; done
	rm -- *.deb
	machine__xen_files || return 1
	machine__sources >sources
	machine__xen_init >init
	machine__xen_initrd_init >initrd/init
	chmod 755 initrd/init
	install -D -m 755 init root/init
	mkdir -p root/payload root/out root/var/lib/vse
	mmdebstrap --quiet --variant=minbase --include="$MACHINE_PACKAGES" \
		--aptopt='APT::Install-Recommends "false"' \
		--dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
		--dpkgopt='path-exclude=/usr/share/locale/*' \
		"$MACHINE_SUITE" root.tar sources >&2 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&- || return 1
	tar -C initrd/bin --strip-components=3 -xf root.tar ./usr/bin/busybox 2>/dev/null ||
		tar -C initrd/bin --strip-components=2 -xf root.tar ./bin/busybox || return 1
	(cd initrd && find . | cpio -o -H newc --quiet | gzip -1) >initrd.img || return 1
	machine__as_root sh -ec 'mkdir tree; tar -C tree -xpf root.tar --exclude="./dev/*"
		tar -C root --owner=0 --group=0 -cf - . | tar -C tree -xpf - --keep-directory-symlink
		truncate -s 1536M root.ext4; mke2fs -q -t ext4 -O ^has_journal -m 0 -d tree -F root.ext4; rm -rf tree' ||
		return 1
	rm -rf kernel root root.tar sources init initrd vmlinuz
}

# QEMU parts "-initrd" at spaces and commas: no paths in it.
# shellcheck disable=SC2086 # MACHINE_ARGS are words
machine__qemu() (
	out=$(cd "$out" && pwd) && cd "$MACHINE_DIR" || exit 1
	# Xen parts words at blanks alone.
	words="console=com1 com1=115200,8n1 dom0_mem=768M,max:768M dom0_max_vcpus=1 loglvl=warning guest_loglvl=warning"
	words="$words spec-ctrl=eager-fpu sched=credit"
	machine__wake | TMPDIR=$out timeout -k 5 "$limit" qemu-system-x86_64 -accel tcg,thread=multi,tb-size=512 -M q35 \
		-cpu max,-smap,-rdtscp -smp "${MACHINE_CPUS:-2}" -m "${MACHINE_MEM:-3072}" -nodefaults -no-user-config \
		-display none -no-reboot -kernel xen -append "$words" \
		-initrd "vmlinux console=hvc0 quiet loglevel=4 net.ifnames=0 mitigations=off cryptomgr.notests panic=-1,initrd.img" \
		-serial stdio \
		-drive "if=none,id=root,format=raw,snapshot=on,file=root.ext4" -device virtio-blk-pci,drive=root \
		-drive "if=none,id=payload,format=raw,readonly=on,file=$out/.machine/payload.ext4" \
		-device virtio-blk-pci,drive=payload \
		-drive "if=none,id=result,format=raw,file=$out/.machine/result" -device virtio-blk-pci,drive=result \
		${MACHINE_ARGS-} >"$out/console.log"
)
