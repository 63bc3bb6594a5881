#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# tiny-image.sh VSE_GUEST FOLDER [KERNEL]: the smallest image that boots, for the contract suite. No mmdebstrap: the
# kernel is Debian's cloud kernel (or that of the package KERNEL: linux-image-amd64 has 9p) by apt's own configuration, the root is busybox, /init is the real guest agent.
# Writes kernel, vmlinux, initrd, root and cmdline into FOLDER.
set -eu
guest=$1 out=$2 kernel=${3-linux-image-cloud-amd64}
tmp=$(mktemp -d "${TMPDIR:-/tmp}/tiny-image.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' INT TERM HUP
mkdir -p "$out"

fetch() { # PACKAGE: unpacked below $tmp/PACKAGE
	(cd "$tmp" && apt-get download -q "$1" >/dev/null 2>&1) || {
		echo "tiny-image: cannot download $1" >&2
		exit 1
	}
	dpkg -x "$tmp/$1"_*.deb "$tmp/$1"
}

package=$(apt-cache depends "$kernel" | sed -n 's/^ *Depends: \(linux-image-[^ ]*\).*/\1/p' | head -n 1)
fetch "$package"
cp "$tmp/$package"/boot/vmlinuz-* "$out/kernel"
# The payload of Debian's bzImage is one lz4 frame of the legacy format (magic 02 21 4c 18); what follows it is
# not of it, so lz4 ends with an error after the last byte that matters.
# That of the general kernel is xz's.
unpack() { # MAGIC PROGRAM...
	at=$(LC_ALL=C grep -obUaP "$1" "$out/kernel" | head -n 1 | cut -d: -f1)
	shift
	tail -c +$((at + 1)) "$out/kernel" | "$@" >"$out/vmlinux" 2>/dev/null || true
}
if [ "$kernel" = linux-image-cloud-amd64 ]; then
	unpack '\x02\x21\x4c\x18' lz4 -dcq
else
	unpack '\xfd7zXZ\x00' xz -dcq --single-stream
fi
[ "$(head -c 4 "$out/vmlinux" | od -An -tx1)" = ' 7f 45 4c 46' ]

# Modules, each after what it needs.
list=virtio_ring,virtio,virtio_mmio,virtio_pci_legacy_dev,virtio_pci_modern_dev,virtio_pci,virtio_console,virtio_blk
list=$list,failover,net_failover,virtio_net,squashfs,overlay,pvpanic,pvpanic-mmio,xen-blkfront,xen-netfront
[ "$kernel" = linux-image-cloud-amd64 ] || list=$list,netfs,fscache,9pnet,9pnet_virtio,9p
mkdir -p "$tmp/initrd/modules"
cp "$guest" "$tmp/initrd/init"
for name in $(echo "$list" | tr , ' '); do
	find "$tmp/$package/lib/modules" -name "$name.ko" -exec cp '{}' "$tmp/initrd/modules/" \;
done
(cd "$tmp/initrd" && find . | sort | cpio -o -H newc --quiet) >"$out/initrd"

fetch busybox-static
mkdir -p "$tmp/root/bin" "$tmp/root/etc" "$tmp/root/dev" "$tmp/root/proc" "$tmp/root/sys" "$tmp/root/run" "$tmp/root/tmp" "$tmp/root/root"
cp "$tmp/busybox-static/bin/busybox" "$tmp/root/bin/busybox"
for name in cat echo false hostname ip ping sh sleep true; do
	ln -s busybox "$tmp/root/bin/$name"
done
echo 'root:x:0:0:root:/root:/bin/sh' >"$tmp/root/etc/passwd"
echo 'root:x:0:' >"$tmp/root/etc/group"
mksquashfs "$tmp/root" "$out/root" -quiet -no-progress -noappend -all-root >/dev/null
printf 'vse.mods=%s vse.root=squashfs:vda:mem vse.init=vse\n' "$list" >"$out/cmdline"
