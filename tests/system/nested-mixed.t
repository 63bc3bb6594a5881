#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# check: alone in nightly runs
test_description='MPI over a node with KVM and one with Xen, in one `vse up`

Two machines of our own (nested in QEMU TCG) on one wire: k, whose KVM is real, and x, which is dom0 of a real Xen. vse is on k; x has
sshd, to which agent and image travel. For nightly runs: two machines and an image are built first.'
. "$(dirname "$0")/lib.sh"
MACHINE_SH=$TOP/tests/system/machine.sh
MACHINE_CACHE=${MACHINE_CACHE:-$VSE_TEST_HOME/.cache/vse-test}
MACHINE_CPUS=1
MACHINE_TRIES=1 # both begin anew, or none
. "$MACHINE_SH"
one=k two=x
. "$TOP/tests/system/pair.sh"

if [ "$(uname -m)" != x86_64 ]; then
	skip_all='the test machine is x86_64'
	test_done
fi
if [ -z "${VSE_NIGHTLY-}" ]; then
	skip_all='for nightly runs: VSE_NIGHTLY is not set'
	test_done
fi
seconds=${MACHINE_TIME:-3000}
own_store # an image of before has no drivers for Xen

in_k() { # COMMAND...
	MACHINE_PACKAGES=$MACHINE_PACKAGES,openssh-server
	"$@"
}

in_x() (
	. "$TOP/tests/system/xen-machine.sh"
	MACHINE_PACKAGES=$MACHINE_PACKAGES,openssh-server
	"$@"
)

test_expect_success 'the test machines are built' '
	(in_k machine_build) && in_x machine_build
'

mkdir -p k/bin k/apt k/store/images
test_expect_success 'what they are to run is built' '
	id=$(vse build "$EXAMPLES/mpi.yaml") &&
	cp -R "$XDG_DATA_HOME/vse/images/$id" k/store/images/ &&
	cp -R "$XDG_DATA_HOME/vse/inputs" k/store/ &&
	cp "$VSE_BUILD/vse" "$VSE_BUILD/vse-agent" "$VSE_BUILD/vse-guest" k/bin/ &&
	cp "$EXAMPLES/mpi.yaml" "$EXAMPLES/mpi-check.c" k/ &&
	for file in sources.list sources.list.d; do
		[ ! -e /etc/apt/$file ] || cp -R /etc/apt/$file k/apt/ || return 1
	done &&
	pair_keys
'

pair_net
cat >k/cluster <<'GUEST'
set -ex
at() { echo "# $1: $(cut -d. -f1 /proc/uptime) s" >>/out/times; }
host=1
. /payload/net
mount --bind /payload/apt /etc/apt
export VSE_SITE_STORE=/payload/store PATH=/payload/bin:$PATH XDG_RUNTIME_DIR=/root/run
mkdir -m 700 "$XDG_RUNTIME_DIR"
cd /root
until ssh -o ConnectTimeout=10 x true; do sleep 1; done
trap 'ssh x touch /run/end' EXIT
at "both machines are up"
ssh x 'command -v vse vse-agent || [ $? = 127 ] || [ $? = 1 ]' >/out/before
# A processor that is emulated on a busy host may be too slow for the probe of KVM.
tries=0
until vse up -n 2 --name mixed --hosts k,x --hypervisor qemu,xen --accel kvm --machine pv --timeout 20m --node-timeout 5m \
	--lost-after 60s --give-up-after 5m /payload/mpi.yaml 2>/out/up; do
	tries=$((tries + 1))
	grep 'k: qemu: .*kvm' /out/up || exit 1
	[ $tries -lt 5 ]
done
at up
vse ps --json mixed >/out/ps.json
ssh x xl list >/out/xl-list
vse exec -c mixed --rank 0 -- dmesg | grep 'Hypervisor detected' >/out/type0
vse exec -c mixed --rank 1 -- cat /sys/hypervisor/type /sys/hypervisor/guest_type >/out/type1
vse exec -c mixed -- hostname | sort >/out/hostname
vse exec -c mixed -- ip -o link show eth0 >/out/links
at 'exec on both'
vse exec -c mixed --rank 0 -- mpirun --hostfile /etc/vse/hostfile hello >/out/hello
at 'mpirun hello'
vse exec -c mixed --rank 1 -- mpirun --hostfile /etc/vse/hostfile mpi-check >/out/mpi-check
at 'mpirun mpi-check, from the other'
vse events -c mixed >/out/events
vse down mixed
at down
tries=0
while ps -e -o args= | grep -e '[v]se' -e '[q]emu' >/out/left && [ $tries -lt 30 ]; do
	tries=$((tries + 1))
	sleep 1
done
find "$XDG_RUNTIME_DIR" ! -type d >>/out/left
GUEST

# Its agent has the cluster's end from k; what is left is looked at when k has done. Files of images are kept on purpose.
cat >x/node <<'GUEST'
set -ex
host=2
. /payload/net
ls -d /tmp/* >/run/before || :
until [ -e /run/end ]; do sleep 1; done
tries=0
while ps -e -o args= | grep '[v]se' >/out/left && [ $tries -lt 30 ]; do
	tries=$((tries + 1))
	sleep 1
done
xl list >/out/list-after
ls /sys/class/net >/out/links-after
{ ls -d /tmp/* || :; } | { diff /run/before - || :; } >>/out/left
ls /var/tmp >/out/cache
GUEST

test_expect_success 'the machines run all to its end' '
	pair_run "sh ./cluster" "sh ./node"
'

cat >look <<'PYTHON'
import json, sys
cluster = json.load(open(sys.argv[1]))["clusters"][0]
for vm in cluster["vms"]:
    print(vm["name"], "on", vm["node"], "under", vm["hypervisor"], vm["accel"])
# dom0 itself has 768 MiB.
print("\n".join(n["name"] for n in cluster["nodes"] if n["hypervisor"] == "xen" and n["memory"] > 1 << 30), "offers what Xen has")
PYTHON
test_expect_success 'k runs its VM under KVM, x its own as a PV guest of Xen' '
	cat out.k/ps.json out.k/xl-list out.k/type0 out.k/type1 &&
	python3 look out.k/ps.json >have && cat have &&
	printf "%s\n" "vm0 on k under qemu kvm" "vm1 on x under xen xen" "x offers what Xen has" >want && test_cmp want have &&
	grep KVM out.k/type0 && printf "xen\nPV\n" >want && test_cmp want out.k/type1 &&
	grep vse-mixed-.*-1- out.k/xl-list && ! grep vse-mixed-.*-0- out.k/xl-list
'

test_expect_success 'MPI across both' '
	cat out.k/times out.k/links out.k/hello out.k/mpi-check &&
	printf "vm0: vm0\nvm1: vm1\n" >want && test_cmp want out.k/hostname &&
	sort out.k/hello >have && printf "hello from rank %d of 2 on vm%d\n" 0 0 1 1 >want && test_cmp want have &&
	sort out.k/mpi-check >have && printf "rank %d of 2 on vm%d: all numbers are right\n" 0 1 1 0 >want && test_cmp want have
'
sed 's/^[^#]/# &/' out.k/times out.k/hello out.k/mpi-check

test_expect_success 'nothing is left on either' '
	test_must_be_empty out.k/before && test_must_be_empty out.k/left && test_must_be_empty out.x/left &&
	! grep vse- out.x/list-after && ! grep vse out.x/links-after && cat out.x/cache && grep vse-cache out.x/cache
'

test_done
