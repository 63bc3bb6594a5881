#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# build.sh [--tap] [meson option...]   builds into $VSE_BUILD (default: build/ of this tree). Quiet unless it
# fails; with --tap it reports as a test.
set -eu
tap=''
if [ "${1:-}" = --tap ]; then
	tap=1
	shift
	echo 1..1
fi
top=$(cd "$(dirname "$0")/.." && pwd -P)
build=${VSE_BUILD:-$top/build}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
failed() {
	if [ -n "$tap" ]; then
		echo "not ok 1 - builds"
		sed 's/^/# /' "$log"
		exit 1
	fi
	cat "$log" >&2
	echo "build: failed in $build" >&2
	exit 1
}
if [ -f "$build/build.ninja" ]; then
	# Made by another clone that stood here, or cut short: start over.
	meson introspect --projectinfo "$build" >/dev/null 2>&1 || rm -rf "$build"
fi
[ -f "$build/build.ninja" ] || meson setup "$@" "$build" "$top" >"$log" 2>&1 || failed
ninja -C "$build" >"$log" 2>&1 || failed
[ -z "$tap" ] || echo "ok 1 - builds"
