#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
test_description='what one user runs is closed to another'
. "$(dirname "$0")/lib.sh"

if [ "$(id -u)" != 0 ]; then
	skip_all='needs root, to be two other users'
	test_done
fi
# Two users with nothing in common but the machine. Numbers are enough: nothing here asks for their names.
first=61937 second=61938
as() { # UID COMMAND...
	user=$1
	shift
	setpriv --reuid "$user" --regid "$user" --clear-groups -- env HOME="$SHARNESS_TEST_DIRECTORY/u$user" \
		XDG_RUNTIME_DIR="$SHARNESS_TEST_DIRECTORY/u$user/run" "$@"
}
# As if a hostile program knew where the other's clusters are.
into_first() { # COMMAND...
	user=$second
	setpriv --reuid $second --regid $second --clear-groups -- env HOME="$SHARNESS_TEST_DIRECTORY/u$second" \
		XDG_RUNTIME_DIR="$SHARNESS_TEST_DIRECTORY/u$first/run" "$@"
}
chmod 755 "$SHARNESS_TEST_DIRECTORY"
for user in $first $second; do
	mkdir -m 755 "$SHARNESS_TEST_DIRECTORY/u$user" && mkdir -m 700 "$SHARNESS_TEST_DIRECTORY/u$user/run" &&
		chown -R "$user:$user" "$SHARNESS_TEST_DIRECTORY/u$user" || exit 1
done
run=$SHARNESS_TEST_DIRECTORY/u$first/run/vse
# The programs, where these users can reach them.
bin=$SHARNESS_TEST_DIRECTORY/bin
mkdir -m 755 "$bin" && cp "$VSE_BUILD/vse" "$VSE_BUILD/vse-agent" "$bin/" || exit 1
printf 'vse: 1\nname: f\nbase: debian:bookworm\n' >"$SHARNESS_TEST_DIRECTORY/f.yaml"
chmod 644 "$SHARNESS_TEST_DIRECTORY/f.yaml"
up="$bin/vse up -q --hypervisor fake -n 2 $SHARNESS_TEST_DIRECTORY/f.yaml"

test_expect_success 'the first user has a cluster' '
	as $first $up && as $first $bin/vse exec echo mine | grep "vm\[0-1\]: mine"
'

test_expect_success 'the second does not see it' '
	as $second $bin/vse ps >out && ! grep ready out && as $second $bin/vse ps --json | grep "\"clusters\": \[\]" &&
	for command in "exec -c f true" "exec true" "cp -c f $SHARNESS_TEST_DIRECTORY/f.yaml vm0:/" "console -c f vm0" \
		"logs -c f vm0" "events f" "kill -c f 0" "stop -c f 0" "pause -c f 0" "restart -c f 0" "down f" "down"; do
		test_expect_code 1 as $second $bin/vse $command 2>err </dev/null && grep "no cluster" err || return 1
	done
'

test_expect_success 'nor does it get in by naming the place' '
	for command in "exec -c f true" "down f" "console -c f vm0" "logs -c f vm0" "kill -c f 0" "ps f"; do
		! into_first $bin/vse $command >out 2>&1 </dev/null && ! grep -E "ready|fake guest" out || return 1
	done &&
	into_first $bin/vse ps >out 2>&1; ! grep ready out && ! into_first $bin/vse down --all 2>err; as $first $bin/vse exec true
'

test_expect_success 'run folder, socket and console log are closed' '
	for path in "$run" "$run/f" "$run/f/sock" "$run/f/agent.log" "$run/f/vm0/console.log"; do
		test -e "$path" && ! into_first test -r "$path" && ! into_first test -w "$path" || return 1
	done &&
	test $(stat -c %a "$run") = 700 && test $(stat -c %a "$run/f") = 700 && test $(stat -c %a "$run/f/agent.log") = 600
'

test_expect_success 'even with the folders open the agent refuses a stranger' '
	chmod 711 "$SHARNESS_TEST_DIRECTORY/u$first/run" "$run" "$run/f" && chmod 666 "$run/f/sock" &&
	into_first python3 - "$run/f/sock" <<-\EOF &&
	import socket, struct, sys
	s = socket.socket(socket.AF_UNIX)
	s.settimeout(5)
	s.connect(sys.argv[1])
	text = b"{\"verb\": \"hello\", \"version\": 1}"
	try:
	    s.sendall(struct.pack(">IBBBBII", len(text), 1, 0, 0, 0, 1, 0) + text)
	    got = s.recv(100)
	except (BrokenPipeError, ConnectionResetError):
	    got = b""
	assert got == b"", got
	EOF
	chmod 700 "$SHARNESS_TEST_DIRECTORY/u$first/run" "$run" "$run/f" && grep "uid $second was refused" "$run/f/agent.log" &&
	as $first $bin/vse exec echo mine | grep mine
'

test_expect_success 'the second cannot signal the agent' '
	pid=$(as $first $bin/vse ps --json | sed -n "/\"agent\"/,/}/s/.*\"pid\": \([0-9]*\).*/\1/p") && test -n "$pid" &&
	! as $second kill $pid && as $first $bin/vse exec true
'

# /tmp is tried in a mount namespace of its own, where a stranger has been first. What is needed there is kept
# outside of it.
case $SHARNESS_TEST_DIRECTORY in
/tmp/*) keep_bin=$(mktemp -d /var/tmp/t.XXXXXX) && chmod 755 "$keep_bin" && cp "$bin"/* "$keep_bin/" ;;
*) keep_bin=$bin ;;
esac
cp "$SHARNESS_TEST_DIRECTORY/f.yaml" "$keep_bin/"
in_tmp() { # SCRIPT
	cat >tmp.sh <<-EOF
	mount -t tmpfs -o mode=1777 none /tmp || exit 99
	cd /
	me() { setpriv --reuid $first --regid $first --clear-groups -- env -u XDG_RUNTIME_DIR HOME=/ "\$@"; }
	other() { setpriv --reuid $second --regid $second --clear-groups -- "\$@"; }
	up="$keep_bin/vse up -q --hypervisor fake $keep_bin/f.yaml"
	$1
	EOF
	unshare -m sh ./tmp.sh
}
refused='me $up 2>/tmp/err; code=$?; cat /tmp/err; [ $code = 1 ] && [ $(wc -l </tmp/err) = 1 ] && grep "run directory /tmp/vse-'$first': belongs to somebody else; set XDG_RUNTIME_DIR" /tmp/err'

test_expect_success 'a folder that a stranger has made in /tmp is refused' '
	in_tmp "other mkdir -m 777 /tmp/vse-$first; $refused"
'
test_expect_success 'a link that a stranger has put there is refused, and not followed' '
	in_tmp "mkdir -m 700 /tmp/mine; chown $first /tmp/mine; other ln -s /tmp/mine /tmp/vse-$first; $refused && [ -z \"\$(ls /tmp/mine)\" ]"
'
test_expect_success 'a file in its place is refused' '
	in_tmp "other touch /tmp/vse-$first; $refused"
'
test_expect_success 'a folder of our own that others may write to is refused' '
	in_tmp "me mkdir /tmp/vse-$first; chmod 777 /tmp/vse-$first; $refused"
'
test_expect_success 'where nobody was there first, it works in /tmp' '
	in_tmp "me \$up && me $keep_bin/vse exec echo hi | grep hi && me $keep_bin/vse down && [ ! -e /tmp/vse-$first ]"
'
[ "$keep_bin" = "$bin" ] || rm -rf "$keep_bin"

test_expect_success 'the first user ends the cluster' '
	as $first $bin/vse down && [ ! -e "$run" ]
'
test_nothing_left
test_done
