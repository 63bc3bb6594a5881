#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
test_description='a VM moves between two agents as it runs, under real KVM (in a machine of our own, nested in QEMU TCG)'
# Two nodes within the machine: network namespaces on a bridge, each with a host name and a /tmp of its own; a launcher of the
# site's own (docs/launchers.md) starts their agents.
. "$(dirname "$0")/lib.sh"
MACHINE_SH=$TOP/tests/system/machine.sh
MACHINE_CACHE=${MACHINE_CACHE:-$VSE_TEST_HOME/.cache/vse-test}
MACHINE_CPUS=1 # as in nested-kvm.t: with two the emulated SVM crashes the machine's kernel
export MACHINE_SH MACHINE_CACHE MACHINE_CPUS
. "$MACHINE_SH"

if [ "$(uname -m)" != x86_64 ]; then
	skip_all='the test machine is x86_64'
	test_done
fi

mkdir payload payload/bin
test_expect_success 'the test machine is built' '
	machine_build
'

# The machine has no network: the image goes in as a site store, found by the same input, of which the host's
# list of package sources is a part.
test_expect_success 'the image is built' '
	PYTHONPATH=$TOP/tests/system PYTHONDONTWRITEBYTECODE=1 python3 -c "
import pathlib, counting, migrating
here = pathlib.Path(\"payload\")
(here / \"counter\").write_bytes(counting.COUNTER)
(here / \"begin\").write_text(counting.BEGIN)
(here / \"read\").write_text(counting.READ)
(here / \"dirty\").write_text(migrating.DIRTY)" &&
	id=$(vse build "$EXAMPLES/minimal.yaml") &&
	mkdir -p payload/store/images payload/apt &&
	cp -R "$XDG_DATA_HOME/vse/images/$id" payload/store/images/ &&
	cp -R "$XDG_DATA_HOME/vse/inputs" payload/store/ &&
	cp "$VSE_BUILD/vse" "$VSE_BUILD/vse-agent" "$VSE_BUILD/vse-guest" payload/bin/ &&
	cp "$EXAMPLES/minimal.yaml" payload/ &&
	for file in sources.list sources.list.d; do
		[ ! -e /etc/apt/$file ] || cp -R /etc/apt/$file payload/apt/ || return 1
	done
'

cat >payload/on-node <<'GUEST'
#!/bin/sh
node=$1
shift
exec ip netns exec "$node" unshare -m -u sh -c 'hostname "$0" && mount -t tmpfs -o mode=1777 tmpfs /tmp && exec "$@"' "$node" "$@"
GUEST

cat >payload/nodes <<'GUEST'
ip link add br0 type bridge
ip addr add 10.99.0.1/24 dev br0
ip link set br0 up
for i in 1 2; do
	ip netns add n$i
	ip link add v$i type veth peer name eth0 netns n$i
	ip link set v$i master br0 up
	ip -n n$i addr add 10.99.0.1$i/24 dev eth0
	ip -n n$i link set eth0 up
	ip -n n$i link set lo up
done
printf '127.0.0.1 localhost\n10.99.0.1 machine\n10.99.0.11 n1\n10.99.0.12 n2\n' >/run/hosts
mount --bind /run/hosts /etc/hosts
mkdir -p "$HOME/.config/vse/launchers.d"
printf 'launch = /bin/sh /payload/on-node %%h %%a\nstdin = all\n' >"$HOME/.config/vse/launchers.d/netns.conf"
GUEST

# VM 0 counts, on its disk and in its memory, and VM 1 pings it, while it moves away and back again, and away by post-copy, writing
# to its memory.
cat >payload/cluster <<'GUEST'
set -ex
tell() {
	code=$?
	[ $code = 0 ] || { vse ps nested; vse events nested; tail -n 50 $(find "$HOME/run" -name agent.log | sort -u); ps -eo pid,ppid,args; } >&2
	exit $code
}
trap tell EXIT
sh ./nodes
export VSE_SITE_STORE=/payload/store PATH=/payload/bin:$PATH XDG_RUNTIME_DIR=$HOME/run
mkdir -m 700 "$XDG_RUNTIME_DIR"
mount --bind /payload/apt /etc/apt
cd "$HOME"
# On a busy host the emulated processor may be too slow for the bounds of the KVM probe and of a lost node: that is the
# host's fault. Whatever else fails is ours.
tries=0
until vse up -q -n 2 --name nested --accel kvm --oversubscribe --scratch 16M --timeout 5m --lost-after 60s \
	--give-up-after 240s --launcher netns --hosts 'n[1-2]' /payload/minimal.yaml 2>/out/up; do
	cat /out/up >&2
	tries=$((tries + 1))
	grep -e 'no answer within' -e 'was lost' -e 'out of reach' /out/up || exit 1
	[ $tries -lt 10 ]
done
vse cp /bin/busybox all:/usr/local/bin/busybox # for its ping: the image has none
boot() { vse exec -r 0 -- cat /proc/sys/kernel/random/boot_id; }
boot >/out/boot
vse exec -r 0 -- sh -c "$(cat /payload/begin)" </payload/counter
vse exec -r 1 -- sh -c 'while [ ! -e /tmp/enough ]; do busybox ping -c 1 -W 1 vm0 >/dev/null && cut -d" " -f1 /proc/uptime; done' \
	>/out/pings &
vse ps --json nested >/out/before.json
for to in n2 n1; do
	vse migrate --json 0 --to $to >/out/to-$to.json
	vse ps --json nested >/out/on-$to.json
	sleep 1
done
vse exec -r 0 -- sh -c "$(cat /payload/dirty)"
vse migrate --json 0 --to n2 --post-copy >/out/late.json
vse ps --json nested >/out/on-late.json
sleep 1
vse exec -r 1 -- touch /tmp/enough
wait $!
boot >>/out/boot
vse exec -r 0 -- sh -c "$(cat /payload/read)" >/out/counter
vse exec -r 0 -- dmesg >/out/dmesg
vse down nested
find "$XDG_RUNTIME_DIR" ! -type d >/out/left
ps -eo args | grep '[q]emu-system' >>/out/left || :
GUEST

test_expect_success 'a cluster on two nodes of the machine: VM 0 moves away and back' '
	MACHINE_TIME=600 machine_run out payload "sh ./cluster"; code=$?
	cat out/stdout out/stderr; test $code = 0
'

field() { # FILE KEY: a number
	sed -n "s/.*\"$2\": *\([0-9]*\).*/\1/p" "$1"
}

shown() { # MOVE
	echo "# $1: stood still for $(field out/$1.json downtime_ms) ms, of $(field out/$1.json total_ms) ms; $(
		field out/$1.json bytes) bytes of memory, the last of it $(field out/$1.json late_ms) ms after it went on; $(
		field out/$1.json disk) of disk"
}

for node in n2 n1; do
	test_expect_success "it ran under KVM on $node then" '
		grep -q "\"accel\": *\"kvm\"" out/on-$node.json && ! grep -q "\"accel\": *\"tcg\"" out/on-$node.json &&
		tr -d " \n" <out/on-$node.json | grep -q "\"rank\":0,[^}]*\"node\":\"$node\"" &&
		tr -d " \n" <out/on-$node.json | grep -q "\"rank\":1,[^}]*\"node\":\"n2\""
	'
	shown to-$node
done

test_expect_success 'by post-copy it moves under KVM, too' '
	tr -d " \n" <out/on-late.json | grep -q "\"rank\":0,[^}]*\"node\":\"n2\"" && ! grep -q "\"accel\": *\"tcg\"" out/on-late.json
'
shown late

test_expect_success 'the other was answered all the while' '
	awk "NR > 1 && \$1 - last > most { most = \$1 - last } { last = \$1 }
		END { print NR \" answers, the longest time without one: \" most \" s\" }" out/pings >answers &&
	test $(wc -l <out/pings) -gt 2
'
sed 's/^/# /' answers

test_expect_success 'it is the one that was booted, and its guest saw KVM' '
	test $(sort -u out/boot | wc -l) = 1 && test $(wc -l <out/boot) = 2 &&
	grep "Hypervisor detected: KVM" out/dmesg
'

test_expect_success 'no number that it wrote is missing, in memory or on the disk' '
	awk "NR == 1 { memory = \$1; next } \$1 + 0 != NR - 1 { print \"not \" NR - 1 \": \" \$1; bad = 1 }
		END { print \"memory has \" memory + 0 \", the disk \" NR - 1
			exit bad || NR < 3 || (memory != NR - 1 && memory != NR) }" out/counter >counted; code=$?
	cat counted && test $code = 0
'
sed 's/^/# /' counted

test_expect_success 'nothing is left' '
	test_must_be_empty out/left
'

test_done
