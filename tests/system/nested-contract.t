#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
test_description='the contract of a hypervisor back end, on QEMU with real KVM (in a machine of our own)'
# The very suite of contract-qemu.t, with --accel kvm: nothing falls back to emulation. With VSE_NIGHTLY also on the other
# type of machine, which takes as long again. VSE_CONTRACT_ONLY: only tests whose name has this in it.
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
if ! "$TOP/tests/contract/tiny-image.sh" "$VSE_BUILD/vse-guest" payload/image 2>why; then
	skip_all="no image: $(head -n 1 why)"
	test_done
fi
directories=y
"$TOP/tests/contract/tiny-image.sh" "$VSE_BUILD/vse-guest" payload/with-9p linux-image-amd64 2>why || directories=
cp "$VSE_BUILD/tests/contract/contract" payload/
machines="microvm${VSE_NIGHTLY:+ q35}" only=${VSE_CONTRACT_ONLY-} seconds=${VSE_NIGHTLY:+3000}
seconds=${seconds:-1000}

# A probe that is too slow on a busy host is that host's fault: it is asked again, before anything counts.
cat >payload/suite <<'GUEST'
tries=0
mkdir /tmp/c
echo 128 >/proc/sys/vm/nr_hugepages # the memory of one VM
run() { # IMAGE MACHINE NAME SECONDS [TEST]
	while :; do
		TMPDIR=/tmp/c timeout "$4" ./contract qemu --kernel "/payload/$1/kernel" --vmlinux "/payload/$1/vmlinux" \
			--initrd "/payload/$1/initrd" --root "/payload/$1/root" --cmdline "$(cat "/payload/$1/cmdline")" \
			--accel kvm --machine "$2" --vms 2 ${5:+--only "$5"} --bound 600 --label "qemu-kvm-$2" \
			--results "/out/results.$3" >"/out/$3.tap" 2>&1
		code=$?
		tries=$((tries + 1))
		grep -q 'qemu is usable here: ' "/out/$3.tap" && [ "$tries" -lt 10 ] || break
		rm -f "/out/results.$3"
	done
	echo "$code" >"/out/$3.rc"
}
for machine in $1; do # $2: only this test; $3: seconds for one machine type
	run image "$machine" "$machine" "$3" "$2"
done
[ ! -e /payload/with-9p/cmdline ] || run with-9p microvm directories 200 host_dir
cat /out/results.* >/out/results
./contract --matrix /out/results >/out/matrix
find /tmp/c -mindepth 1 >/out/left
GUEST

passed() { # MACHINE
	cat "out/$1.tap" &&
	grep "^# probe: .* accel 'kvm'" "out/$1.tap" &&
	echo 0 >want && test_cmp want "out/$1.rc" &&
	! grep "^not ok" "out/$1.tap" &&
	grep -c "^ok" "out/$1.tap"
}

test_expect_success 'the test machine is built' '
	machine_build
'

test_expect_success 'the suite runs in it to its end' '
	MACHINE_TIME=$((seconds * $(echo $machines | wc -w) + 300)) machine_run out payload "sh ./suite \"$machines\" \"$only\" $seconds" && cat out/matrix
'

for machine in $machines; do
	test_expect_success "the contract on $machine, under KVM" "passed $machine"
done

if [ -n "$directories" ]; then
	test_expect_success 'and its host directories, on a kernel that has 9p' 'passed directories && grep "	host directories	pass" out/results'
else
	echo "# host directories: no image with 9p: $(head -n 1 why)"
fi

test_expect_success 'what it cannot do has its reason, and nothing failed' '
	grep "^qemu-kvm-microvm	start	pass" out/results &&
	! grep "	FAIL	" out/results &&
	! grep "	ENOTSUP	\$" out/results
'

test_expect_success 'it leaves no file' '
	test_must_be_empty out/left
'

[ ! -e out/matrix ] || sed 's/^#* */# /' out/matrix
keep_matrix out/results qemu-kvm
test_done
