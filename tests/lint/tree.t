#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What every file of the tree keeps to: licence, no machine's own paths, no package mirror's name, spelling.
. "$(dirname "$0")/lib.sh"
cd "$top" || exit 1

unlicensed() {
	while read -r file; do
		head -n 3 "$file" | grep -q 'SPDX-License-Identifier: Apache-2.0' || echo "$file: no SPDX line"
	done
}
code() {
	files | grep -E '\.([ch]|sh|t|py|awk)$|^(check|demo)$'
}
# The patterns are cut in two so that this file does not match itself.
paths='(^|[^a-zA-Z0-9_.])/wo''rk/|/tmp/b''-[a-z]|/home/[a-z]+/(src|git|work)'
hosts='deb\.deb''ian\.org|security\.deb''ian\.org|snapshot\.deb''ian\.org|archive\.ub''untu\.com|registry\.npm''js|pyp''i\.org|proxy\.go''lang'
named() {
	xargs -r grep -nIE "$1" /dev/null
}

code | unlicensed | ok_when_empty "every source names its licence"
files | named "$paths" | ok_when_empty "no path of somebody's machine"
files | named "$hosts" | ok_when_empty "no package mirror by name"
files | grep -E '[^a-zA-Z0-9._/+@-]' | ok_when_empty "file names are plain"
files | xargs -r grep -nIE '[ 	]+$' /dev/null | grep -vE '^(LICENSE|.*\.md|tests/fuzz/corpus/)' | ok_when_empty "no white space at line ends"
if command -v codespell >/dev/null; then
	files | grep -vE '^(LICENSE|tests/fuzz/|tests/lint/words)' | xargs -r codespell -I "$lint/words" 2>&1 | ok_when_empty "spelling"
else
	echo "# codespell is not here: spelling unchecked"
fi

cd "$planted" || exit 1
echo 'int x;' >a.c
echo a.c | unlicensed | ok_when_found "finds a file without licence" 'a.c: no SPDX'
echo "see /wo""rk/x" >b
echo b | named "$paths" | ok_when_found "finds a machine's path" '^b:1'
echo "deb.deb""ian.org" >c
echo c | named "$hosts" | ok_when_found "finds a mirror" '^c:1'
finish
