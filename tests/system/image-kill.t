#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
test_description='builds that are killed at random moments leave no process, mount or file (KILL_ROUNDS, KILL_SEED)'
. "$(dirname "$0")/lib.sh"
. "$TOP/tests/system/image-lib.sh"
need_builder
own_store
KILL_ROUNDS=${KILL_ROUNDS:-20}
KILL_SEED=${KILL_SEED:-$(($(date +%s) % 100000))}
echo "# seed $KILL_SEED, $KILL_ROUNDS rounds"

test_expect_success 'set up' '
	make_kernel kernel && make_root root && mkdir root/much && head -c 3000000 /dev/urandom >root/much/data &&
	make_vse victim "dir:$PWD/root" <<-\EOF &&
	build:
	  - "n=0; while [ $n -lt 30000 ]; do n=$((n+1)); done"
	  - "while [ $n -lt 30000 ]; do n=$((n+1)); done & echo >/etc/x"
	EOF
	begin=$(date +%s%N) && vse build -q victim.yaml >id && end=$(date +%s%N) &&
	awk -v s="$KILL_SEED" -v n="$KILL_ROUNDS" -v t=$((end - begin)) "BEGIN {
		srand(s); for (i = 0; i < n; i++) printf \"%.3f\\n\", rand() * t * 1.1 / 1e9 }" >delays
'

# One round: a rebuild, killed after DELAY.
killed() { # SIGNAL DELAY
	vse build -q --rebuild victim.yaml >out 2>&1 &
	pid=$!
	sleep "$2"
	kill -s "$1" $pid 2>/dev/null
	wait $pid
	if ! wait_for 5 store_is_clean; then
		echo "after $1 at $2 s:"
		leftovers
		ls -la "$XDG_DATA_HOME/vse/tmp"
		return 1
	fi
	[ "$(ls "$XDG_DATA_HOME/vse/images")" = "$(cat id)" ]
}
test_expect_success 'SIGKILL of the front end' '
	while read -r delay; do
		killed KILL "$delay" || { echo "seed $KILL_SEED"; exit 1; }
	done <delays
'
test_expect_success 'SIGTERM and SIGHUP' '
	killed TERM "$(sed -n 1p delays)" && killed HUP "$(sed -n 2p delays)" && killed TERM "$(sed -n 3p delays)"
'
test_expect_success 'SIGKILL of the process that runs the build is told, and nothing is left' '
	make_vse slow "dir:$PWD/root" <<-\EOF &&
	build: ["echo begun; while :; do :; done"]
	EOF
	{ vse build slow.yaml 2>err & } && pid=$! && wait_for 20 grep "^build: " err &&
	keeper=$(ps -o pid= --ppid $pid) && kill -s KILL $keeper && test_expect_code 1 wait $pid &&
	grep "was killed" err && wait_for 5 store_is_clean
'
test_expect_success 'what a power cut left is swept by the next start' '
	node=$(cut -c1-8 /proc/sys/kernel/random/boot_id)-$(stat -Lc %i /proc/self/ns/pid) &&
	mkdir -p "$XDG_DATA_HOME/vse/tmp/$node-999999-1-0/work" && vse build -q --rebuild victim.yaml && store_is_clean
'
test_expect_success 'the next build works and is the same' '
	vse build -q --rebuild victim.yaml >again && test_cmp id again
'
test_nothing_left
test_done
