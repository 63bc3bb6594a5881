#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
test_description='verbs in unusual orders: what ends stays ended, and nothing hangs or dies'
. "$(dirname "$0")/lib.sh"

cat >f.yaml <<'EOT'
vse: 1
name: f
base: debian:bookworm
EOT
fake='--hypervisor fake'
agent() {
	vse ps --json | sed -n '/"agent"/,/}/s/.*"pid": \([0-9]*\).*/\1/p'
}

test_expect_success 'a VM that is ended during the start ends the start, not the agent' '
	{ vse up -q $fake -n 2 --hypervisor-arg boot=30s f.yaml 2>err & } &&
	up=$! &&
	wait_for 10 sh -c "vse ps | grep -q booting" &&
	vse kill 0 && test_expect_code 1 wait $up &&
	grep "vm0: stopped" err
'

test_expect_success 'a restart during the start is no failure' '
	{ vse up -q $fake -n 2 --parallel 2 --hypervisor-arg boot=2s f.yaml 2>err & } &&
	up=$! &&
	wait_for 10 sh -c "vse ps | grep -q booting" &&
	vse restart 0 && wait $up && vse exec true && vse down
'

test_expect_success 'down ends VMs that are being restarted' '
	vse up -q $fake -n 3 f.yaml && pid=$(agent) &&
	{ vse restart all 2>/dev/null & vse down; } &&
	wait_for 5 sh -c "! kill -0 $pid 2>/dev/null"
'

test_expect_success 'nothing is restarted while the cluster ends, and a hard down ends it at once' '
	vse up -q $fake --hypervisor-arg ignore-shutdown f.yaml && pid=$(agent) &&
	{ vse down -g & } && graceful=$! &&
	wait_for 10 sh -c "vse ps | grep -q stopping" &&
	test_must_fail vse restart 0 2>err && grep "being ended" err &&
	vse down && wait $graceful &&
	wait_for 5 sh -c "! kill -0 $pid 2>/dev/null"
'

test_expect_success 'nonsense on the channel is told at once, with the cause' '
	test_must_fail vse up -q $fake --timeout 1h --hypervisor-arg garbage f.yaml 2>err &&
	grep "vm0: frame of unknown type" err
'

test_expect_success 'a set-up that does not fit is refused at once' '
	{ cat f.yaml && echo "env:" && for i in 1 2 3; do
		printf "  A%s: %s\n" $i "$(head -c 30000 /dev/zero | tr "\0" x)"
	done; } >big.yaml &&
	test_must_fail vse up -q $fake --timeout 1h big.yaml 2>err &&
	grep "set-up of .* at most 65536" err
'

test_nothing_left
test_done
