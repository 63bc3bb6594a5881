# shellcheck shell=sh disable=SC2154
# SPDX-License-Identifier: Apache-2.0
# Two test machines on one wire, with ssh from the first to both. Source it after lib.sh and machine.sh, with
#   one, two      their names: 10.79.0.1 and 10.79.0.2. Their payloads are made in the folders of these names.
#   in_NAME       a function that runs its words with the settings of that machine
#   seconds       how long the first one's command may take
# pair_keys makes keys, pair_net what a command in them begins with (`host=1; . /payload/net`), pair_run CMD CMD runs both to
# their ends: out.NAME is what came out, NAME.code the exit code. The second ends by itself after the first (it waits for
# /run/end, say).

pair_keys() {
	mkdir -p "$one/ssh" "$two/ssh" &&
	ssh-keygen -q -t ed25519 -N "" -f "$one/ssh/id_ed25519" && ssh-keygen -q -t ed25519 -N "" -f "$one/ssh/host" &&
	cp "$one/ssh/id_ed25519.pub" "$one/ssh/host" "$two/ssh/" &&
	echo "10.79.0.1,10.79.0.2 $(cat "$one/ssh/host.pub")" >"$one/ssh/known_hosts"
}

# The wire, sshd, and ssh to both; with names, since there is no /etc/hosts.
pair_net() {
	mkdir -p "$one" "$two"
	cat >"$one/net" <<GUEST
modprobe -a virtio_pci virtio_net
until [ -e /sys/class/net/eth0 ]; do sleep 0.1; done
ip address add "10.79.0.\$host/24" dev eth0
ip link set eth0 up
mkdir -p -m 755 /run/sshd
cp -R /payload/ssh /root/.ssh
chmod -R go= /root/.ssh
cat >/run/sshd.conf <<'END'
HostKey /root/.ssh/host
AuthorizedKeysFile /root/.ssh/id_ed25519.pub
PermitRootLogin prohibit-password
UsePAM no
UseDNS no
KexAlgorithms curve25519-sha256
END
cat >/root/.ssh/config <<'END'
Host $one
HostName 10.79.0.1
Host $two
HostName 10.79.0.2
END
/usr/sbin/sshd -f /run/sshd.conf -E /out/sshd.log
GUEST
	cp "$one/net" "$two/net"
}

pair_wires=$SHARNESS_TEST_DIRECTORY # without a blank
pair__wire() { # OWN OTHER NUMBER: its words for QEMU
	echo "-pidfile $pair_wires/$1.pid -device virtio-net-pci,netdev=wire,romfile=,mac=52:54:00:79:00:0$3" \
		"-netdev dgram,id=wire,local.type=unix,local.path=$pair_wires/$1.wire,remote.type=unix,remote.path=$pair_wires/$2.wire"
}

pair__boot() { # OWN OTHER NUMBER SECONDS COMMAND
	(
		machine_build && MACHINE_ARGS=$(pair__wire "$1" "$2" "$3") MACHINE_TIME=$4 machine_run "out.$1" "$1" "$5"
		echo $? >"$1.code"
	)
}

pair__one_ended() {
	[ -e "$one.code" ] || [ -e "$two.code" ]
}

pair__both_ended() {
	[ -e "$one.code" ] && [ -e "$two.code" ]
}

pair__end() { # NAME
	[ ! -s "$pair_wires/$1.pid" ] || kill "$(cat "$pair_wires/$1.pid")"
}

pair__run() { # COMMAND COMMAND
	rm -f "$one.code" "$two.code"
	"in_$one" pair__boot "$one" "$two" 1 "$seconds" "$1" &
	"in_$two" pair__boot "$two" "$one" 2 $((seconds + 300)) "$2" &
	wait_for $((seconds + 600)) pair__one_ended
	wait_for 60 pair__both_ended || { pair__end "$one"; pair__end "$two"; }
	wait
	for name in $one $two; do
		sed "s/^/$name: /" "out.$name/qemu.log" "out.$name/stdout" "out.$name/stderr"
	done
	[ "$(cat "$one.code")$(cat "$two.code")" = 00 ]
}

# Corrupted processes in dom0 were seen on hosts with much else to do, and a kernel that the emulated SVM brought down: what
# ends so is done once more. e008 is Xen's own code segment: a guest that is begun with it had the emulated SVM's registers.
pair__crashed() {
	[ "$(cat "$one.code")" -gt 125 ] || [ "$(cat "$two.code")" -gt 125 ] ||
		grep -q "$MACHINE_CRASH\|Panic on CPU\|Hardware Dom0 crashed" "out.$one/console.log" "out.$two/console.log" ||
		grep -h -A 12 "CONTEXT: hvm guest" "out.$one/console.log" "out.$two/console.log" | grep "cs: e008"
}

pair_run() { # COMMAND COMMAND
	pair__run "$@" || { pair__crashed && pair__run "$@"; } || { tail -n 30 "out.$one/console.log" "out.$two/console.log"; false; }
}
