#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# build.sh [meson option...]   builds into $VSE_BUILD (default: build/ of this tree). Quiet unless it fails.
set -eu
top=$(cd "$(dirname "$0")/.." && pwd -P)
build=${VSE_BUILD:-$top/build}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
failed() {
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
