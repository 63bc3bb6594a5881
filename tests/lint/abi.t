#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What libvse exports is what tests/lint/libvse.symbols says: what a released version has stays. Who adds a function
# puts it into include/vse.h, src/client/libvse.map, man/libvse.3.scd and that list.
. "$(dirname "$0")/lib.sh"
build=${VSE_BUILD:-$top/build}/include
if ! [ -e "$build/libvse.so" ]; then
	echo "1..0 # SKIP $build/libvse.so is not built"
	exit 0
fi
cd "$top" || exit 1
golden=tests/lint/libvse.symbols

exported() { nm -D --defined-only "$1" | awk '$2 != "A" { print $3 }' | sort; }
static_symbols() { nm -g --defined-only "$1" | awk 'NF == 3 { print $3 }' | sort; }
names() { sed 's/@.*//' "$1" | sort; }
declared() { # functions of a header: comments and what only looks like a call are left out
	awk '{ gsub(/\/\*([^*]|\*[^\/])*\*\//, "") } /\/\*/ { c = 1 } !c { print } /\*\// { c = 0 }' "$1" |
		grep -v '^typedef' | grep -oE '\bvse_[a-z_]+\(' | tr -d '(' | sort -u
}
differences() { diff "$1" "$2" | grep '^[<>]'; }

sort "$golden" >"$planted/want"
exported "$build/libvse.so" >"$planted/have"
differences "$planted/want" "$planted/have" | ok_when_empty "the shared library exports the symbols of the list, with their versions"
names "$golden" >"$planted/names"
static_symbols "$build/libvse.a" >"$planted/static"
differences "$planted/names" "$planted/static" | ok_when_empty "the static library has no other global symbol"
declared include/vse.h >"$planted/declared"
differences "$planted/names" "$planted/declared" | ok_when_empty "the header declares each"
while read -r name; do grep -q "\b$name\b" man/libvse.3.scd || echo "$name: not in man/libvse.3.scd"; done <"$planted/names" |
	ok_when_empty "the manual names each"
sed -n 's/^\t{\.key = "\([a-z-]*\)".*/\1/p' src/client/options.c >"$planted/keys"
while read -r key; do grep -q "\*$key\*" man/libvse.3.scd || echo "$key: not in man/libvse.3.scd"; done <"$planted/keys" |
	ok_when_empty "the manual names each key of an option"
ok_when_found "of which there are" '^hosts$' <"$planted/keys"
readelf -d "$build/libvse.so" | grep SONAME | grep -vF '[libvse.so.1]' | ok_when_empty "its soname is libvse.so.1"

sed 's/vse_wait@@VSE_1.0/vse_wait@@VSE_1.1/; /vse_down/d' "$golden" | sort >"$planted/other"
differences "$planted/other" "$planted/have" >"$planted/found"
ok_when_found "finds a new symbol" '^> vse_down@@VSE_1.0' <"$planted/found"
ok_when_found "finds another version" '^> vse_wait@@VSE_1.0' <"$planted/found"
finish
