#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
test_description='under real KVM, in a machine of our own (nested in QEMU TCG)'
. "$(dirname "$0")/lib.sh"
MACHINE_SH=$TOP/tests/system/machine.sh
MACHINE_CACHE=${MACHINE_CACHE:-$VSE_TEST_HOME/.cache/vse-test}
export MACHINE_SH MACHINE_CACHE
. "$MACHINE_SH"

if [ "$(uname -m)" != x86_64 ]; then
	skip_all='the test machine is x86_64'
	test_done
fi
machine_build || {
	echo "Bail out! no test machine"
	exit 1
}

# Small enough to hand over as a here-document: the plain guest needs no more than the machine's busybox.
mkdir payload
cp "$MACHINE_DIR/vmlinuz" payload/
cat >payload/plain <<'GUEST'
mkdir -p /tmp/guest/bin /tmp/guest/proc && cd /tmp/guest && cp /bin/busybox bin/
cat >init <<'INIT'
#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox dmesg | /bin/busybox grep 'Hypervisor detected'
/bin/busybox echo GUEST-IS-UP
/bin/busybox reboot -f
INIT
chmod 755 init
find . | busybox cpio -o -H newc >/tmp/initrd 2>/dev/null
timeout 100 qemu-system-x86_64 -accel kvm -cpu host -M microvm -bios qboot.rom -m 256 -nodefaults \
	-no-user-config -display none -no-reboot -serial stdio -kernel /payload/vmlinuz -initrd /tmp/initrd \
	-append 'console=ttyS0 quiet panic=-1 reboot=t tsc=reliable' </dev/null
GUEST

test_expect_success 'the machine boots, runs a command and brings its results' '
	test_expect_code 7 machine_run out payload "id -un; echo oops >&2; echo kept >/out/file; exit 7" &&
	echo root >want && test_cmp want out/stdout &&
	echo oops >want && test_cmp want out/stderr &&
	echo kept >want && test_cmp want out/file
'

test_expect_success 'a command that does not end is ended' '
	test_expect_code 124 env MACHINE_TIME=3 sh -c ". \"\$MACHINE_SH\"; machine_run out payload \"sleep 1000\""
'

test_expect_success 'a plain QEMU guest runs under KVM in it' '
	machine_run out payload "sh ./plain" &&
	grep GUEST-IS-UP out/stdout && grep "Hypervisor detected: KVM" out/stdout
'

test_done
