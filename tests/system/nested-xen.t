#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# check: alone in nightly runs
# check: 7200 s
test_description='under real Xen, in dom0 of a machine of our own (nested in QEMU TCG)

The contract of a hypervisor back end and a virtual cluster, on PV guests, and in nightly runs on PVH and HVM guests. VSE_XEN_TYPES: kinds of
guests ("pv pvh hvm"); what is no PV guest takes minutes where the host is busy, and has two and three times as long.
VSE_XEN_ONLY: only contract tests whose name has one of these words, with commas.'
. "$(dirname "$0")/lib.sh"
MACHINE_SH=$TOP/tests/system/machine.sh
MACHINE_CACHE=${MACHINE_CACHE:-$VSE_TEST_HOME/.cache/vse-test}
MACHINE_CPUS=${VSE_NIGHTLY:+2} # a second one to pin vCPUs to
MACHINE_CPUS=${MACHINE_CPUS:-1}
export MACHINE_SH MACHINE_CACHE MACHINE_CPUS
. "$MACHINE_SH"
. "$TOP/tests/system/xen-machine.sh"

if [ "$(uname -m)" != x86_64 ]; then
	skip_all='the test machine is x86_64'
	test_done
fi
types=${VSE_XEN_TYPES:-pv${VSE_NIGHTLY:+ pvh hvm}} only=${VSE_XEN_ONLY-} pv_time=${MACHINE_TIME:-${VSE_NIGHTLY:+2400}}
pv_time=${pv_time:-1800}
own_store # an image of before has no drivers for Xen

test_expect_success 'the test machine is built' '
	machine_build
'

mkdir -p payload/bin payload/apt payload/store/images
test_expect_success 'what it is to run is built' '
	"$TOP/tests/contract/tiny-image.sh" "$VSE_BUILD/vse-guest" payload/image &&
	id=$(vse build "$EXAMPLES/minimal.yaml") &&
	cp -R "$XDG_DATA_HOME/vse/images/$id" payload/store/images/ &&
	cp -R "$XDG_DATA_HOME/vse/inputs" payload/store/ &&
	cp "$VSE_BUILD/vse" "$VSE_BUILD/vse-agent" "$VSE_BUILD/vse-guest" "$VSE_BUILD/tests/contract/contract" payload/bin/ &&
	cp "$EXAMPLES/minimal.yaml" payload/ &&
	chmod -R a+rX payload &&
	for file in sources.list sources.list.d; do
		[ ! -e /etc/apt/$file ] || cp -R /etc/apt/$file payload/apt/ || return 1
	done
'

# The machine has no network: the image goes in as a site store, found by the same input, of which the host's
# list of package sources is a part.
cat >payload/cluster <<'GUEST'
set -ex
mount --bind /payload/apt /etc/apt
export VSE_SITE_STORE=/payload/store PATH=/payload/bin:$PATH XDG_RUNTIME_DIR=/root/run
mkdir -m 700 "$XDG_RUNTIME_DIR" /out/cluster
cd /root
vse up -n 2 --name nested --hypervisor xen --machine "$1" --timeout 10m /payload/minimal.yaml
xl list >/out/cluster/list
vse ps --json nested >/out/cluster/ps.json
for rank in 0 1; do
	vse exec -c nested --rank $rank -- cat /sys/hypervisor/type /sys/hypervisor/guest_type
done >/out/cluster/type
vse exec -c nested -- hostname | sort >/out/cluster/hostname
vse exec -c nested --rank 0 -- perl -MIO::Socket::INET -e '
	$l = IO::Socket::INET->new(Listen => 1, LocalPort => 7000) or die;
	exit if fork; $c = $l->accept; print $c "hello from $ENV{VSE_NAME}\n"'
vse exec -c nested --rank 1 -- bash -c 'exec 3<>/dev/tcp/vm0/7000; read -r line <&3; echo "$line"' >/out/cluster/net
vse exec -c nested -- sh -c 'echo $VSE_RANK >/tmp/mark; cp /proc/sys/kernel/random/boot_id /tmp/boot'
vse save -q --down --to /var/saved
xl list >/out/cluster/list-saved
vse restore -q --timeout 10m /var/saved
for rank in 0 1; do
	vse exec -c nested --rank $rank -- sh -c 'cat /tmp/mark; cmp /proc/sys/kernel/random/boot_id /tmp/boot && echo same'
done >/out/cluster/restored
vse exec -c nested --rank 1 -- bash -c '! (exec 3<>/dev/tcp/vm0/7001) 2>&1' | grep -o 'Connection refused' | sort -u >/out/cluster/net-restored
vse down nested
find "$XDG_RUNTIME_DIR" ! -type d >/out/cluster/left
xl list >/out/cluster/list-after
ls /sys/class/net >/out/cluster/links-after
GUEST
# Two agents in one dom0, each with a host name and a /tmp of its own; a launcher of the site's own starts them.
cat >payload/on-node <<'GUEST'
#!/bin/sh
node=$1
shift
exec unshare -m -u sh -c 'hostname "$0" && mount -t tmpfs -o mode=1777 tmpfs /tmp && exec "$@"' "$node" "$@"
GUEST
cat >payload/moved <<'GUEST'
set -ex
trap '[ $? = 0 ] || { vse events moved; tail -n 50 $(find /root/run -name agent.log); } >&2' EXIT
mkdir -p /out/moved /root/.config/vse/launchers.d
mount --bind /payload/apt /etc/apt
printf 'launch = /bin/sh /payload/on-node %%h %%a\nstdin = all\n' >/root/.config/vse/launchers.d/dom0.conf
printf '127.0.0.1 localhost dom0 n1 n2\n' >/etc/hosts
export VSE_SITE_STORE=/payload/store PATH=/payload/bin:$PATH XDG_RUNTIME_DIR=/root/run HOME=/root
mkdir -p -m 700 "$XDG_RUNTIME_DIR"
cd /root
vse up -q -n 1 --name moved --hypervisor xen --machine "$1" --timeout 10m --lost-after 60s --give-up-after 240s --launcher dom0 \
	--hosts 'n[1-2]' /payload/minimal.yaml
vse exec -c moved -- sh -c 'echo kept >/tmp/mark; cp /proc/sys/kernel/random/boot_id /tmp/boot'
vse ps --json moved >/out/moved/before.json
vse migrate -c moved --json 0 --to n2 >/out/moved/there.json
vse ps --json moved >/out/moved/after.json
vse exec -c moved -- sh -c 'cat /tmp/mark; cmp /proc/sys/kernel/random/boot_id /tmp/boot && echo same' >/out/moved/mark
vse events moved >/out/moved/events
xl list >/out/moved/list
vse down moved
# What ends a VM that was let go is a process of its own.
tries=0
while xl list | grep -q vse && [ $tries -lt 60 ]; do
	sleep 1
	tries=$((tries + 1))
done
xl list >/out/moved/list-after
GUEST
cat >payload/contract <<'GUEST'
image=/payload/image
mkdir -p /tmp/contract
# On the console too: of a machine that does not come to its end nothing else is left.
: >/out/contract.tap
tail -f /out/contract.tap >/dev/hvc0 &
shown=$!
TMPDIR=/tmp/contract timeout -s INT "$3" /payload/bin/contract xen --machine "$1" --label "xen-$1" --kernel $image/kernel \
	--vmlinux $image/vmlinux --initrd $image/initrd --root $image/root --cmdline "$(cat $image/cmdline)" --memory 128 --vms 2 \
	--bound 600 ${2:+--only "$2"} --results /out/results >>/out/contract.tap 2>&1
echo $? >/out/contract.rc
kill $shown
find /tmp/contract -mindepth 1 >/out/left
# What ends a VM that was let go is a process of its own.
tries=0
while { xl list && ls /sys/class/net; } | grep -q vse && [ $tries -lt 60 ]; do
	sleep 1
	tries=$((tries + 1))
done
xl list >/out/list-after
ls /sys/class/net >/out/links-after
[ "$1" != pv ] || sh ./cluster "$1" || exit
sh ./moved "$1"
GUEST

# What is the host's fault is done once more: a process that ends by a signal (they were seen while Xen switched the FPU lazily,
# see xen-machine.sh), a hotplug script that had no processor for the 40 s that libxl gives it, and a guest that was begun with
# the registers of Xen itself (e008 is Xen's code segment, no guest can have it): the emulated SVM's, seen once in three runs.
host_failed() { # TYPE
	grep "took longer than libxl waits" "out.$1/contract.tap" ||
		grep -A 12 "CONTEXT: hvm guest" "out.$1/console.log" | grep "cs: e008"
}

in_dom0() { # TYPE
	case $1 in
	pv) type_time=$pv_time ;;
	pvh) type_time=$((pv_time * 2)) ;;
	*) type_time=$((pv_time * 3)) ;;
	esac
	for try in 1 2; do
		MACHINE_TIME=$type_time machine_run "out.$1" payload "sh ./contract $1 '$only' $((type_time - 400))"
		code=$?
		read -r contract <"out.$1/contract.rc" || contract=$code
		[ "$contract" -ge 126 ] || [ $code -ge 126 ] ||
			host_failed "$1" || break
	done
	cat "out.$1/contract.tap" "out.$1/stderr" && cp -R "out.$1/." out/
	[ $code = 0 ] || tail -n 30 "out.$1/console.log"
	return $code
}

contract_holds() {
	{ grep -A 8 "^not ok" out/contract.tap || :; } &&
	echo 0 >want && test_cmp want out/contract.rc &&
	grep "^# probe: .* accel .xen." out/contract.tap &&
	! grep "^not ok" out/contract.tap &&
	! grep "	FAIL	" out/results && ! grep "	ENOTSUP	\$" out/results &&
	grep "^xen-[a-z]*	start	pass" out/results &&
	test_must_be_empty out/left && ! grep vse- out/list-after && ! grep vse out/links-after
}

# Xen of Debian cannot log what a PV guest writes.
moved() { # TYPE
	case $1 in
	pv) grep "^# migrated .* not live (xl migrate: Xen here cannot log dirty pages of PV guests)" out/contract.tap ;;
	*) grep "^# migrated [0-9]* bytes live\$" out/contract.tap ;;
	esac
}

cluster_ran() {
	cat out/cluster/* &&
	grep "\"accel\": *\"xen\"" out/cluster/ps.json &&
	printf "vm0: vm0\nvm1: vm1\n" >want && test_cmp want out/cluster/hostname &&
	printf "xen\nPV\nxen\nPV\n" >want && test_cmp want out/cluster/type &&
	grep "vse-nested-0" out/cluster/list && grep "vse-nested-1" out/cluster/list &&
	echo "hello from minimal" >want && test_cmp want out/cluster/net &&
	! grep vse- out/cluster/list-saved &&
	printf "0\nsame\n1\nsame\n" >want && test_cmp want out/cluster/restored &&
	echo "Connection refused" >want && test_cmp want out/cluster/net-restored &&
	! grep vse- out/cluster/list-after && ! grep vse out/cluster/links-after &&
	test_must_be_empty out/cluster/left
}

# An emulated dom0 without shadow paging cannot log what a PV guest writes; a PVH guest's it can. What is left on n1 is being
# destroyed, perhaps.
migrated() { # TYPE
	cat out/moved/* &&
	tr -d " \n" <out/moved/before.json | grep "\"node\":\"n1\"" &&
	tr -d " \n" <out/moved/after.json | grep "\"node\":\"n2\"" &&
	grep "\"downtime_ms\"" out/moved/there.json &&
	printf "kept\nsame\n" >want && test_cmp want out/moved/mark &&
	grep "moved from n1 to n2" out/moved/events &&
	if [ "$1" = pv ]; then grep "not live (.*): saved, sent and restored" out/moved/events; else ! grep "not live" out/moved/events; fi &&
	grep "vse-moved-n2-0" out/moved/list &&
	{ grep "vse-moved-n1-0" out/moved/list || :; } >there && ! grep -v -e "--p---" there &&
	! grep vse- out/moved/list-after
}

for type in $types; do
	rm -rf out && mkdir out
	test_expect_success "$type: the machine runs all to its end" "in_dom0 $type"
	test_expect_success "$type: the contract holds" contract_holds
	[ -n "$only" ] || test_expect_success "$type: a guest moves as it can" "moved $type"
	[ "$type" != pv ] || test_expect_success 'pv: a virtual cluster runs' cluster_ran
	test_expect_success "$type: vse migrate moves a VM to another agent" "migrated $type"
	keep_matrix out/results "xen-$type"
	[ ! -e out/results ] || VSE_MATRIX=$("$VSE_BUILD/tests/contract/contract" --matrix out/results)
	echo "$VSE_MATRIX" | sed 's/^#* */# /'
done

test_done
