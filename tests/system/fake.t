#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
test_description='every verb on clusters of the fake back end: fast, and no VM needed'
. "$(dirname "$0")/lib.sh"

json() { # EXPRESSION: of the JSON on stdin, as d
	python3 -c 'import json, sys; d = json.load(sys.stdin); print(eval(sys.argv[1]))' "$1"
}
states() { # the states of all VMs in order, in one word
	vse ps --json "$@" | json '",".join(v["state"] for v in d["clusters"][0]["vms"])'
}
state_is() { # STATES
	[ "$(states)" = "$1" ]
}
no_clusters() {
	vse ps >ps.out && ! grep ready ps.out
}
# The most memory that the agent of the only cluster ever had, in KiB.
agent_peak() {
	pid=$(vse ps --json | json 'd["clusters"][0]["agent"]["pid"]') &&
		sed -n 's/^VmHWM:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$pid/status"
}
# KIB: the agent never had more than that. With sanitizers memory says nothing.
agent_bounded() {
	peak=$(agent_peak) && echo "the agent had at most $peak KiB" &&
		{ [ "$peak" -lt "$1" ] || grep -q __asan_init "$VSE_BUILD/vse-agent"; }
}
cat >f.yaml <<'EOF'
vse: 1
name: f
base: debian:bookworm
env:
  COLOUR: blue
EOF
sed 's/^name: f/name: g/' f.yaml >g.yaml
fake='--hypervisor fake'
fg='env --default-signal=INT' # a shell lets its background jobs ignore it

test_expect_success 'doctor: which operation each hypervisor can do here, and why not' '
	{ vse doctor >out || true; } && { vse doctor --json >doctor.json || true; } &&
	grep -E "^pause  .*yes" out && grep "^fake: no network: no network behind it" out &&
	python3 -c "
import json
by = {h[\"name\"]: h[\"lacks\"] for h in json.load(open(\"doctor.json\"))[\"hypervisors\"]}
assert by[\"fake\"][\"pause\"] is None and \"network\" in by[\"fake\"][\"network\"], by
assert {tuple(lacks) for lacks in by.values()} == {tuple(by[\"fake\"])}, by"
'

test_expect_success 'without a cluster: ps is empty, the others say so' '
	no_clusters &&
	vse ps --json | json "d[\"clusters\"]" >out && echo "[]" >want && test_cmp want out &&
	for command in "exec true" "down" "events" "logs vm0" "stop 0"; do
		test_expect_code 1 vse $command 2>err && grep "no cluster runs" err || return 1
	done &&
	vse down --all && find "$XDG_RUNTIME_DIR" -mindepth 1 >left && test_must_be_empty left
'

test_expect_success 'dry run does nothing' '
	vse up --dry-run $fake -n 3 --memory 1G f.yaml >out && grep "cluster f: 3 VMs of f, each 1 CPU, 1 GiB memory" out &&
	no_clusters
'

test_expect_success 'up: 16 VMs' '
	vse up $fake -n 16 f.yaml >out 2>err && grep "^f: 16 VMs ready in " out
'

test_expect_success 'ps shows them' '
	vse ps >out && test $(grep -c "^vm[0-9]* *ready " out) = 16 && head -n 1 out | grep "^VM  *STATE  *NODE"
'

test_expect_success 'ps --json has every field, of the right type' '
	vse ps --json >ps.json && python3 - ps.json <<-\EOF
	import json, sys
	d = json.load(open(sys.argv[1]))["clusters"]
	assert len(d) == 1, d
	c = d[0]
	for key, kind in {"name": str, "phase": str, "vse": str, "image": str, "size": int, "hypervisor": str,
	                  "accel": str, "hypervisor_version": str, "cpus": int, "memory": int, "scratch": int,
	                  "created": int, "ready_ms": int, "vms": list, "agent": dict}.items():
	    assert type(c[key]) is kind, (key, c.get(key))
	assert (c["name"], c["phase"], c["size"], c["accel"]) == ("f", "up", 16, "fake"), c
	for i, v in enumerate(c["vms"]):
	    for key, kind in {"rank": int, "name": str, "state": str, "reason": str, "uptime_ms": int,
	                      "ready_ms": int, "memory_used": int, "cpu_ms": int, "pid": int, "node": str}.items():
	        assert type(v[key]) is kind, (key, v.get(key))
	    assert (v["rank"], v["name"], v["state"]) == (i, "vm%d" % i, "ready"), v
	    assert v["memory_used"] > 0
	EOF
'

test_expect_success 'equal output is folded, different output is labelled' '
	vse exec -- echo hello there >out && echo "vm[0-15]: hello there" >want && test_cmp want out &&
	vse exec -r 0-2 hostname >out && printf "vm%d: vm%d\n" 0 0 1 1 2 2 >want && test_cmp want out &&
	vse exec -r 3 hostname >out && echo vm3 >want && test_cmp want out &&
	vse exec -r 3 -l always hostname >out && echo "vm3: vm3" >want && test_cmp want out &&
	vse exec -r 0-1 -l never echo x >out && printf "x\nx\n" >want && test_cmp want out
'

test_expect_success 'a command of many words, spaces and an option of its own is passed on whole' '
	vse exec -r 0 echo "a  b" -n --rank 7 "" "\$HOME;*" >out && echo "a  b -n --rank 7  \$HOME;*" >want && test_cmp want out
'

test_expect_success 'exit codes: the greatest, signals, unknown programs' '
	test_expect_code 3 vse exec -r 0 exit 3 &&
	test_expect_code 1 vse exec false 2>err && grep "^vse exec: vm\[0-15\]: exit 1" err &&
	test_expect_code 137 vse exec -r 0 kill 9 &&
	test_expect_code 143 vse exec -r 0-3 kill 15 2>err && grep "vm\[0-3\]: exit 143 (SIGTERM)" err &&
	test_expect_code 127 vse exec -r 5 nothing
'

test_expect_success 'stdin goes to all' '
	seq 1 20000 >in && vse exec -r 0-3 cat <in >out && sed "s/^/vm[0-3]: /" in >want && test_cmp want out &&
	vse exec -r 2 cat <in >out && test_cmp in out
'

test_expect_success 'bytes are bytes' '
	head -c 3000000 /dev/urandom >in && vse exec -r 0 cat <in >out && cmp in out
'

test_expect_success 'large output through a slow reader: all of it, and no memory of the agent' '
	vse exec yes 10M | { sleep 1; cat; } | sed "s/^vm.*: //" | sort | uniq -c | tr -d " " >out &&
	agent_bounded 16384 &&
	vse exec -r 0 yes 30M >big && test $(wc -c <big) = 31457280 && rm big
'

test_expect_success 'files go in' '
	mkdir -p tree/sub && echo 1 >tree/a && echo 2 >tree/sub/b && ln -s a tree/link &&
	vse cp in vm0:/tmp/ && vse cp in tree all:/tmp/ && vse cp -q tree 3-5:/tmp/there
'
test_expect_success 'a file that the guest does not have is an error of that VM' '
	test_expect_code 1 vse cp vm1:/tmp/in . 2>err && grep "^vse cp: vm1: " err && test $(wc -l <err) = 1
'

test_expect_success 'a source of cp is a name' '
	for path in / "" // . .. /tmp/. /tmp/.. /tmp/../; do
		test_expect_code 2 vse cp "vm0:$path" . 2>err && grep "vm0:$path: end the path in the name" err || return 1
	done &&
	test_expect_code 1 vse cp vm0:/tmp/in/ . 2>err && grep "^vse cp: vm0: " err
'

test_expect_success 'text that is not UTF-8 is a usage error, never left out' '
	bad=$(printf "\\377") &&
	for option in -e=X= -u= -w= -r= -c=; do
		test_expect_code 2 vse exec ${option%%=*} "${option#*=}$bad" true 2>err && grep "not UTF-8" err || return 1
	done &&
	test_expect_code 2 vse cp "$bad" vm0:/tmp/ 2>err && grep "not UTF-8" err &&
	test_expect_code 2 vse cp "vm0:/$bad" . 2>err && grep "not UTF-8" err &&
	VSE_SCRATCH=/tmp/$bad test_expect_code 2 vse up $fake --name other f.yaml 2>err && grep "not UTF-8" err
'

test_expect_success 'a pipe that does not block loses nothing, and stays as it was' '
	cat >pipe.py <<-\EOF &&
	import fcntl, os, subprocess, time
	r, w = os.pipe()
	fcntl.fcntl(w, fcntl.F_SETFL, os.O_NONBLOCK)
	p = subprocess.Popen(["vse", "exec", "-r", "0", "yes", "3M"], stdin=subprocess.DEVNULL, stdout=w)
	os.close(w)
	time.sleep(0.3)
	n = 0
	while True:
	    b = os.read(r, 65536)
	    if not b:
	        break
	    n += len(b)
	assert (p.wait(), n) == (0, 3 << 20), (p.returncode, n)
	import pty
	for argv in (["exec", "-r", "0", "-i", "cat"], ["console", "vm0"]):
	    master, slave = pty.openpty()
	    before = fcntl.fcntl(slave, fcntl.F_GETFL)
	    p = subprocess.Popen(["vse"] + argv, stdin=slave, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
	    os.write(master, b"typed here\n")
	    said = b""
	    while b"typed here" not in said:
	        said += os.read(p.stdout.fileno(), 4096) or exit("%s ended" % argv)
	    during = fcntl.fcntl(slave, fcntl.F_GETFL)
	    p.terminate()
	    code = p.wait()
	    assert (during, fcntl.fcntl(slave, fcntl.F_GETFL), code) == (before, before, 143), (argv, before, during, code)
	EOF
	python3 pipe.py
'

test_expect_success 'pause and resume' '
	vse pause 1-2 && state_is ready,paused,paused$(printf ",ready%.0s" $(seq 13)) &&
	test_expect_code 1 vse exec -r 0-3 echo hi >out 2>err && grep "vm1: is paused, not ready" err && grep "vm\[0,3\]: hi" out &&
	vse resume vm1 && vse resume 2 && vse resume 2 && vse exec -r 1,2 true
'

test_expect_success 'stop, kill and restart' '
	vse stop 3 && vse kill 4,5 && vse ps >out && test $(grep -c " stopped " out) = 3 &&
	test_expect_code 1 vse exec -r 3 true 2>err && grep "vm3: " err &&
	vse restart 3-5 && vse exec true && vse restart 3 && vse exec -r 3 hostname >out && grep "^vm3$" out
'

test_expect_success 'logs and console' '
	vse logs vm7 >out && grep "vm7: a fake guest boots" out &&
	echo typed | vse console vm7 >out && grep typed out && vse logs 7 | grep typed &&
	test_expect_code 1 vse console vm7 </dev/null >/dev/full 2>err && grep "write output: No space" err
'

test_expect_success 'events, from the start and as they happen' '
	vse events >out && grep " cluster  *all 16 VMs ready" out && grep " vm4 .*stopped" out &&
	vse events --json | python3 -c "import json, sys; [json.loads(l)[\"kind\"] for l in sys.stdin]" &&
	{ $fg vse events -f >follow & } && pid=$! && vse pause 9 && vse resume 9 &&
	wait_for 5 grep " vm9 .*paused" follow && kill -INT $pid && test_expect_code 130 wait $pid
'

test_expect_success 'two clusters side by side' '
	vse up -q $fake -n 2 g.yaml >out && vse ps >out && grep "^CLUSTER" out && test $(grep -c "^g .*ready" out) = 2 &&
	test_expect_code 1 vse exec true 2>err && grep "2 clusters run (f, g): say which with -c NAME" err &&
	vse exec -c g hostname >out && test $(wc -l <out) = 2 &&
	vse up -q $fake --name h -n 1 g.yaml && vse down h &&
	test_expect_code 1 vse up -q $fake g.yaml 2>err && grep "cluster .g. runs already" err &&
	vse down g && vse exec echo still | grep "vm\[0-15\]: still"
'

test_expect_success 'an exec that is interrupted ends its programs, one that is killed too' '
	{ $fg vse exec sleep 30 & } && pid=$! && sleep 0.3 && kill -INT $pid && test_expect_code 130 wait $pid &&
	vse exec echo alive | grep alive &&
	{ vse exec sleep 30 & } && pid=$! && sleep 0.3 && kill -TERM $pid && test_expect_code 143 wait $pid
'

test_expect_success 'down: nothing is left' '
	vse down && no_clusters && find "$XDG_RUNTIME_DIR" -mindepth 1 >left && test_must_be_empty left
'

test_expect_success 'run: exit code, output, and it is gone' '
	test_expect_code 0 vse run -q $fake -n 3 f.yaml -- hostname >out && test $(wc -l <out) = 3 &&
	test_expect_code 7 vse run -q $fake f.yaml exit 7 &&
	test_expect_code 130 vse run -q $fake f.yaml kill 2 &&
	test_expect_code 127 vse run -q $fake -n 2 -r 1 f.yaml nothing &&
	no_clusters
'

test_expect_success 'what the command line alone tells is wrong is told before anything starts' '
	for args in "-r 9 -n 4" "-r x" "-e X" "-t" "-t -n 2" "--timeout 2d" "--timeout 25h" "--memory 100T" "--scratch 65T"; do
		test_expect_code 2 vse run $fake --hypervisor-arg boot=60s $args f.yaml true 2>err </dev/null &&
		! grep "starting VMs" err && test $(wc -l <err) = 1 || return 1
	done &&
	test_expect_code 2 vse up --memory 100T f.yaml 2>err && grep "^vse up: --memory 100T: too large, at most 64T" err &&
	test_expect_code 2 vse up --hung-after 5ms f.yaml 2>err && grep "^vse up: --hung-after 5ms: from 0.1s to 24h" err &&
	test_expect_code 2 vse up --timeout 2d f.yaml 2>err && grep "^vse up: --timeout 2d: too long, at most 24h" err &&
	nothing_left
'

test_expect_success 'any number of interrupted downs, then a hard one' '
	test_when_finished "vse down --all" &&
	vse up -q $fake --hypervisor-arg ignore-shutdown f.yaml &&
	for i in 1 2 3 4 5 6 7 8 9 10; do
		{ $fg vse down -g f 2>err & } && pid=$! && sleep 0.2 && kill -INT $pid && ! wait $pid || return 1
	done &&
	vse ps | grep "^f\\|vm0" && vse down f && wait_for 5 nothing_left
'

test_expect_success 'the first of two hypervisors that is usable' '
	test_when_finished "vse down --all" &&
	vse up -q --hypervisor palacios,fake -n 2 f.yaml && vse ps >out && test "$(grep -c "ready.* fake" out)" = 2
'

hang='--hypervisor-arg hang=' rank='--hypervisor-arg hang-rank='
test_expect_success 'a VM that hangs in its boot is started anew, and that is told' '
	test_when_finished "vse down --all" &&
	timeout 120 vse up $fake -n 4 ${hang}1 ${rank}2 --hung-after 300ms --timeout 1h f.yaml 2>err &&
	grep "note: vm2: no sign of life for .*, [23] others of this node are ready: started anew (1 of 2)" err &&
	state_is ready,ready,ready,ready && vse events >out && grep "vm2 .*no sign of life" out &&
	test "$(grep -c "no sign of life" out)" = 1 && vse exec -r 2 true
'

test_expect_success 'twice and not more' '
	test_expect_code 1 timeout 120 vse up $fake -n 2 ${hang}9 ${rank}1 --hung-after 200ms --timeout 2s f.yaml 2>err &&
	test "$(grep -c "no sign of life" err)" = 2 && grep "vm1: not ready within 2 s" err && wait_for 5 nothing_left
'

test_expect_success 'one alone has most of its time' '
	test_when_finished "vse down --all" &&
	timeout 120 vse up $fake ${hang}1 --hung-after 100ms --timeout 4s f.yaml 2>err &&
	grep "vm0: no sign of life for [3-9].*, no other of this node is ready: started anew" err
'

test_expect_success 'one that is slow and uses CPU time is left alone' '
	test_expect_code 1 vse up $fake -n 2 --hypervisor-arg never-ready --hung-after 100ms --timeout 4s f.yaml 2>err &&
	grep "not ready within 4 s" err && ! grep "no sign of life" err
'

test_expect_success 'a restart that hangs is started anew, too' '
	test_when_finished "vse down --all" &&
	vse up -q $fake -n 2 --hung-after 200ms ${hang}1 ${rank}1 --timeout 1h f.yaml && vse events >out &&
	rm -f "$XDG_RUNTIME_DIR"/vse/f/vm1/hangs && timeout 120 vse restart 1 && state_is ready,ready &&
	test "$(vse events | grep -c "vm1 .*started anew (1 of 2)")" = 2
'

test_expect_success 'one whose kernel found no timer boots again, nine times at most' '
	test_when_finished "vse down --all" &&
	vse up -q $fake -n 2 ${hang}3 ${rank}1 --hypervisor-arg no-timer --timeout 1h f.yaml && state_is ready,ready &&
	test "$(vse events | grep -c "vm1 .*booting")" = 4 && vse down f &&
	test_expect_code 1 timeout 60 vse up -q $fake -n 2 ${hang}99 ${rank}1 --hypervisor-arg no-timer --timeout 1h f.yaml 2>err &&
	grep "vm1: the guest rebooted again and again" err && wait_for 5 nothing_left
'

test_expect_success 'words of a guest: no escape sequence, no lost event' '
	test_when_finished "vse down --all" &&
	test_expect_code 1 vse up -q $fake --hypervisor-arg "console=$(printf "last \\033[2J\\302\\233 words")" --hypervisor-arg never-hello \
		--timeout 1s --keep-failed f.yaml 2>err && ! grep "$(printf "\\033")" err &&
	vse events >out && grep "vm0 .*failed: " out && ! grep "$(printf "\\033")" out && vse events --json | tail -n 1 | json "d[\"text\"]" &&
	vse ps >out && ! grep "$(printf "\\033")" out && grep "vm0 .*failed" out
'

test_expect_success 'an interrupt at each phase ends the cluster: 130' '
	for delay in 0.05 0.2 0.4; do
		{ $fg vse up -q $fake --hypervisor-arg boot=300ms --hypervisor-arg ready=300ms -n 4 f.yaml 2>err & } && pid=$! &&
		sleep $delay && kill -INT $pid && test_expect_code 130 wait $pid &&
		wait_for 5 nothing_left || return 1
	done &&
	{ vse run -q $fake -n 2 f.yaml sleep 30 & } && pid=$! && sleep 0.5 && kill -TERM $pid &&
	! wait $pid && wait_for 5 nothing_left
'

test_expect_success 'a cluster that does not come up is gone, or is kept when that is asked' '
	test_when_finished "vse down --all" &&
	test_expect_code 1 vse up -q $fake --hypervisor-arg fail-setup -n 3 f.yaml 2>err && test $(wc -l <err) = 1 &&
	wait_for 5 nothing_left &&
	test_expect_code 1 vse up -q $fake --hypervisor-arg fail-setup --keep-failed f.yaml 2>err && grep "was kept" err &&
	vse logs vm0 | grep "fake guest boots" && vse ps | grep "vm0 *failed" && vse down f
'

test_expect_success 'a guest that prints a gigabyte: log and memory stay bounded, exec answers' '
	test_when_finished "vse down --all" &&
	vse up -q $fake --hypervisor-arg console-bytes=1G f.yaml && vse exec echo hi | grep hi && sleep 1 &&
	vse exec echo hi | grep hi && agent_bounded 16384 &&
	test $(du -sk "$XDG_RUNTIME_DIR/vse/f/vm0" | cut -f 1) -lt 2200 && vse logs vm0 | tail -n 1 | grep "^c*$" && vse down
'

test_expect_success 'a reader of a console that never reads does not stop the VM' '
	test_when_finished "vse down --all" &&
	vse up -q $fake --hypervisor-arg console-bytes=50M f.yaml &&
	{ sleep 3 | vse logs -f vm0 | sleep 3 & } && sleep 0.5 && vse exec echo hi | grep hi &&
	agent_bounded 16384 && vse down
'

test_expect_success '1000 VMs: up, exec, ps, down, memory' '
	test_when_finished "vse down --all" &&
	vse up -q $fake -n 1000 --parallel 1000 f.yaml && vse exec echo hi >out && echo "vm[0-999]: hi" >want && test_cmp want out &&
	test $(vse ps | wc -l) = 1001 && agent_bounded 30000 && vse down
'

test_nothing_left
test_done
