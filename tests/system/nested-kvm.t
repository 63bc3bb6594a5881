#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
test_description='under real KVM, in a machine of our own (nested in QEMU TCG)'
. "$(dirname "$0")/lib.sh"
MACHINE_SH=$TOP/tests/system/machine.sh
MACHINE_CACHE=${MACHINE_CACHE:-$VSE_TEST_HOME/.cache/vse-test}
# With two emulated processors the machine's kernel crashed in three runs one after the other (a stack overwritten by the
# emulated SVM), with one in none of four.
MACHINE_CPUS=1
export MACHINE_SH MACHINE_CACHE MACHINE_CPUS
. "$MACHINE_SH"

if [ "$(uname -m)" != x86_64 ]; then
	skip_all='the test machine is x86_64'
	test_done
fi
test_expect_success 'the test machine is built' '
	machine_build
'

# Small enough to hand over as a here-document: the plain guest needs no more than the machine's busybox.
mkdir payload
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
	cp "$MACHINE_DIR/vmlinuz" payload/ &&
	machine_run out payload "sh ./plain" &&
	grep GUEST-IS-UP out/stdout && grep "Hypervisor detected: KVM" out/stdout
'

# The machine has no network: the image goes in as a site store, found by the same input, of which the host's
# list of package sources is a part.
cat >payload/cluster <<'GUEST'
set -e
export VSE_SITE_STORE=/payload/store PATH=/payload/bin:$PATH XDG_RUNTIME_DIR=$HOME/run
mkdir -m 700 "$XDG_RUNTIME_DIR"
cd "$HOME"
# On a busy host the emulated processor may be too slow for the probe's time bound: that is the host's fault.
tries=0
until vse up -n 2 --name nested --accel kvm --timeout 5m /payload/minimal.yaml 2>"$1/up"; do
	cat "$1/up" >&2
	tries=$((tries + 1))
	grep 'no answer within' "$1/up" || exit 1
	[ $tries -lt 10 ]
done
vse ps --json nested >"$1/ps.json"
vse exec -c nested -- hostname | sort >"$1/hostname"
vse exec -c nested --rank 1 -- dmesg >"$1/dmesg"
vse down nested
find "$XDG_RUNTIME_DIR" ! -type d >"$1/left"
GUEST

test_expect_success 'the image is built' '
	id=$(vse build "$EXAMPLES/minimal.yaml") &&
	mkdir -p payload/store/images payload/bin payload/apt &&
	cp -R "$XDG_DATA_HOME/vse/images/$id" payload/store/images/ &&
	cp -R "$XDG_DATA_HOME/vse/inputs" payload/store/ &&
	cp "$VSE_BUILD/vse" "$VSE_BUILD/vse-agent" "$VSE_BUILD/vse-guest" payload/bin/ &&
	cp "$EXAMPLES/minimal.yaml" payload/ &&
	chmod -R a+rX payload &&
	for file in sources.list sources.list.d; do
		[ ! -e /etc/apt/$file ] || cp -R /etc/apt/$file payload/apt/ || return 1
	done
'

in_machine() {
	MACHINE_TIME=600 machine_run out payload "$@"
	code=$?
	cat out/stdout out/stderr
	return $code
}

kvm_cluster_ran() { # folder with what the cluster left
	cat "$1/ps.json" &&
	grep -q "\"accel\": *\"kvm\"" "$1/ps.json" && ! grep -q "\"accel\": *\"tcg\"" "$1/ps.json" &&
	printf "vm0: vm0\nvm1: vm1\n" >want && test_cmp want "$1/hostname" &&
	grep "Hypervisor detected: KVM" "$1/dmesg" &&
	test_must_be_empty "$1/left"
}

test_expect_success 'a virtual cluster runs under KVM, as root' '
	in_machine "mount --bind /payload/apt /etc/apt && sh ./cluster /out" &&
	kvm_cluster_ran out
'

test_expect_success 'a virtual cluster runs under KVM, as an ordinary user' '
	in_machine "mount --bind /payload/apt /etc/apt && su tester -c \"sh ./cluster /out\"" &&
	kvm_cluster_ran out
'

test_done
