#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# fuzz.sh [NAME SECONDS]   builds the fuzzers with clang into build-fuzz; with NAME (then only if that one is
# missing), runs it for so long and reports as a test. The corpus in the tree is only read: new inputs stay in
# build-fuzz/new/NAME, and what failed is build-fuzz/failed-NAME-*.
set -u
top=$(cd "$(dirname "$0")/.." && pwd -P)
build=$top/build-fuzz
[ $# = 2 ] && [ -x "$build/tests/fuzz/fuzz-$1" ] ||
	CC=clang VSE_BUILD=$build "$top/scripts/build.sh" -Dfuzzers=true -Db_sanitize=address,undefined -Db_lundef=false \
		-Dstatic_programs=false -Dc_args=-fsanitize=fuzzer-no-link || exit 1
[ $# = 2 ] || exit 0
name=$1
mkdir -p "$build/new/$name"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
set -- -max_total_time="$2" -timeout=25 -rss_limit_mb=2048 -artifact_prefix="$build/failed-$name-"
[ ! -f "$top/tests/fuzz/$name.dict" ] || set -- "$@" -dict="$top/tests/fuzz/$name.dict"
echo 1..1
if "$build/tests/fuzz/fuzz-$name" "$@" "$build/new/$name" "$top/tests/fuzz/corpus/$name" >"$log" 2>&1; then
	echo "ok 1 - $name: $(tail -n 1 "$log")"
else
	echo "not ok 1 - $name"
	tail -n 60 "$log" | sed 's/^/# /'
	exit 1
fi
