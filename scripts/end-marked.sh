#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# end-marked.sh [--list] NAME VALUE   names the processes that carry NAME=VALUE in their environment, except
# this one and its ancestors, and ends them (without --list). Exit 1 when there were any.
set -u
list=''
if [ "$1" = --list ]; then
	list=1
	shift
fi
mark="$1=$2"
unset "$1" # what is started here is not looked for

ancestors=" $$ "
pid=$$
while [ "$pid" -gt 1 ]; do
	pid=$(sed -n 's/^PPid:[[:space:]]*//p' "/proc/$pid/status" 2>/dev/null)
	[ -n "$pid" ] || break
	ancestors="$ancestors$pid "
done

found=0
for file in $(grep -lazxF -e "$mark" /proc/[0-9]*/environ 2>/dev/null); do
	pid=${file#/proc/}
	pid=${pid%/environ}
	case $ancestors in *" $pid "*) continue ;; esac
	command=$(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null)
	[ -n "$command" ] || continue # gone, or a zombie that its parent has yet to see
	echo "still running: $pid: $command"
	[ -n "$list" ] || kill -9 "$pid" 2>/dev/null
	found=1
done
exit $found
