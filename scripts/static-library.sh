#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# static-library.sh MAP OUT ARCHIVE...   one archive of all, in which only the symbols of a version script are global:
# what a program links beside it may have the same names as our inner parts.
set -eu
map=$1 out=$2
shift 2
object=${out%.a}.whole.o
sed -n 's/^[[:space:]]*\([a-z_0-9]*\);$/\1/p' "$map" >"$out.symbols"
ld -r --whole-archive "$@" -o "$object"
objcopy --keep-global-symbols="$out.symbols" "$object"
rm -f "$out"
ar crs "$out" "$object"
rm -f "$object" "$out.symbols"
