#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Files and functions stay short: hard limits fail, and what deserves a hard look is listed.
. "$(dirname "$0")/lib.sh"

cd "$top" || exit 1
rule() {
	xargs -r awk -v max_file="$1" -v max_function="$2" -f "$lint/functions.awk"
}
sources | rule 800 120 | ok_when_empty "no file over 800 lines, no function over 120"
sources | rule 500 60 | sed 's/^/# worth a hard look: /'

cd "$planted" || exit 1
{
	echo 'int long_one(void)'
	echo '{'
	yes 'x();' | head -n 121
	echo '}'
} >a.c
yes '' | head -n 801 >b.c
echo b.c | rule 800 120 | ok_when_found "finds a long file" 'b.c:1: file of 801 lines'
echo a.c | rule 800 120 | ok_when_found "finds a long function" 'a.c:2: long_one(): function of 121 lines'
finish
