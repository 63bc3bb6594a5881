#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# C is formatted as .clang-format says; `scripts/format.sh` does it.
. "$(dirname "$0")/lib.sh"
cd "$top" || exit 1
version=$(clang-format --version 2>/dev/null | sed 's/.*version \([0-9]*\).*/\1/')
if [ "$version" != 14 ]; then
	echo "1..0 # SKIP clang-format 14 is not here"
	exit 0
fi
sources | xargs -r clang-format --dry-run 2>&1 | grep 'warning:' | cut -d: -f1 | sort | uniq -c |
	ok_when_empty "C is formatted"
printf 'int f(void) {return 1;}\n' >"$planted/a.c"
cp .clang-format "$planted/"
cd "$planted" && clang-format --dry-run a.c 2>&1 | ok_when_found "finds unformatted C" 'a.c:1'
finish
