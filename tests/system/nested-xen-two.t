#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# check: alone in nightly runs
# check: 3600 s
test_description='VMs move from one dom0 to another, under real Xen

Two machines of our own (nested in QEMU TCG) on one wire, each dom0 of a Xen: a, where vse is, and b, with sshd, to which agent and image
travel. A PV and a PVH guest that write a counter move from a to b, and the PVH guest back. For nightly runs.'
. "$(dirname "$0")/lib.sh"
MACHINE_SH=$TOP/tests/system/machine.sh
MACHINE_CACHE=${MACHINE_CACHE:-$VSE_TEST_HOME/.cache/vse-test}
MACHINE_CPUS=1
MACHINE_TRIES=1 # both begin anew, or none
. "$MACHINE_SH"
. "$TOP/tests/system/xen-machine.sh"
MACHINE_PACKAGES=$MACHINE_PACKAGES,openssh-server
one=a two=b
. "$TOP/tests/system/pair.sh"

if [ "$(uname -m)" != x86_64 ]; then
	skip_all='the test machine is x86_64'
	test_done
fi
if [ -z "${VSE_NIGHTLY-}" ]; then
	skip_all='for nightly runs: VSE_NIGHTLY is not set'
	test_done
fi
seconds=${MACHINE_TIME:-2400}
own_store # an image of before has no drivers for Xen

in_a() { "$@"; }
in_b() { "$@"; }

test_expect_success 'the test machine is built' '
	machine_build
'

mkdir -p a/bin a/apt a/store/images
test_expect_success 'what they are to run is built' '
	id=$(vse build "$EXAMPLES/minimal.yaml") &&
	cp -R "$XDG_DATA_HOME/vse/images/$id" a/store/images/ &&
	cp -R "$XDG_DATA_HOME/vse/inputs" a/store/ &&
	cp "$VSE_BUILD/vse" "$VSE_BUILD/vse-agent" "$VSE_BUILD/vse-guest" a/bin/ &&
	cp "$EXAMPLES/minimal.yaml" a/ &&
	for file in sources.list sources.list.d; do
		[ ! -e /etc/apt/$file ] || cp -R /etc/apt/$file a/apt/ || return 1
	done &&
	pair_keys
'

pair_net
cat >a/cluster <<'GUEST'
set -ex
host=1
. /payload/net
mount --bind /payload/apt /etc/apt
export VSE_SITE_STORE=/payload/store PATH=/payload/bin:$PATH XDG_RUNTIME_DIR=/root/run
mkdir -p -m 700 "$XDG_RUNTIME_DIR"
cd /root
until ssh -o ConnectTimeout=10 b true; do sleep 1; done
trap '[ $? = 0 ] || { vse events moved; tail -n 50 $(find /root/run -name agent.log); } >&2; ssh b touch /run/end' EXIT

move() { # TO NAME
	vse migrate -c moved --json 0 --to "$1" >"/out/$2.json"
	vse exec -c moved -- sh -c 'cat /root/n; sleep 2; cat /root/n; cmp /proc/sys/kernel/random/boot_id /tmp/boot && echo same' >"/out/$2.count"
	xl list >"/out/$2.a"
	ssh b xl list >"/out/$2.b"
}

for type in pv pvh; do
	vse up -q -n 1 --name moved --hosts a,b --hypervisor xen --machine $type --timeout 10m --node-timeout 5m --lost-after 60s \
		--give-up-after 5m /payload/minimal.yaml
	vse ps --json moved >/out/$type.json
	vse exec -c moved -- sh -c 'cp /proc/sys/kernel/random/boot_id /tmp/boot
		(i=0; while :; do i=$((i + 1)); echo $i >/root/n.new; sync /root/n.new; mv /root/n.new /root/n; sleep 0.05; done) >/dev/null 2>&1 &'
	vse exec -c moved -- sh -c 'until [ -s /root/n ]; do sleep 0.1; done; cat /root/n' >/out/$type.before
	move b $type-there
	[ $type = pv ] || move a $type-back
	vse events moved >/out/$type.events
	vse down moved
done
# What ends a VM that was let go is a process of its own.
tries=0
while { xl list; ssh b xl list; } | grep -q vse && [ $tries -lt 60 ]; do
	sleep 1
	tries=$((tries + 1))
done
{ xl list; ssh b xl list; } >/out/list-after
GUEST

cat >b/node <<'GUEST'
set -ex
host=2
. /payload/net
until [ -e /run/end ]; do sleep 1; done
GUEST

test_expect_success 'the machines run all to its end' '
	pair_run "sh ./cluster" "sh ./node"
'

cat >look <<'PYTHON'
import json, sys
vm = json.load(open("out.a/%s.json" % sys.argv[1]))["clusters"][0]["vms"][0]
print(vm["name"], "on", vm["node"], "under", vm["hypervisor"])
PYTHON

went() { # NAME THERE GONE BEFORE: it counts on, on this node alone
	cat "out.a/$1.json" "out.a/$1.count" &&
	grep "\"downtime_ms\"" "out.a/$1.json" &&
	[ "$(sed -n 3p "out.a/$1.count")" = same ] &&
	[ "$(sed -n 1p "out.a/$1.count")" -ge "$4" ] &&
	[ "$(sed -n 2p "out.a/$1.count")" -gt "$(sed -n 1p "out.a/$1.count")" ] &&
	grep vse-moved "out.a/$1.$2" &&
	# What is left on the other is being destroyed, perhaps.
	{ grep vse-moved "out.a/$1.$3" || :; } >there && ! grep -v -e "--p---" there
}

test_expect_success 'PV: saved, sent and restored on the other' '
	python3 look pv >have && echo "vm0 on a under xen" >want && test_cmp want have &&
	went pv-there b a "$(cat out.a/pv.before)" &&
	cat out.a/pv.events && grep "moved from a to b" out.a/pv.events && grep "not live (.*): saved, sent and restored" out.a/pv.events
'

test_expect_success 'PVH: live, there and back' '
	went pvh-there b a "$(cat out.a/pvh.before)" && went pvh-back a b "$(sed -n 2p out.a/pvh-there.count)" &&
	cat out.a/pvh.events && grep "moved from a to b" out.a/pvh.events && grep "moved from b to a" out.a/pvh.events &&
	! grep "not live" out.a/pvh.events
'
for name in pv-there pvh-there pvh-back; do
	echo "# $name: $(tr -d '\n' <out.a/$name.json)"
done

test_expect_success 'nothing is left on either' '
	grep Domain-0 out.a/list-after && ! grep vse- out.a/list-after
'

test_done
