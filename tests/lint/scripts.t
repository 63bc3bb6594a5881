#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Shell scripts parse, are executable, and shellcheck has nothing to say.
. "$(dirname "$0")/lib.sh"
cd "$top" || exit 1

scripts | while read -r file; do [ -x "$file" ] || echo "$file: not executable"; done |
	ok_when_empty "scripts are executable"
if ! command -v shellcheck >/dev/null; then
	echo "# shellcheck is not here"
	finish
fi
# Tests written for sharness hold their code in strings and get variables from it: parse them only.
# SC1090/SC1091: files that are sourced by computed names. SC2329/SC2317: functions called by traps.
scripts | grep -vE '^tests/system/.*\.t$' |
	xargs -r shellcheck -S warning -e SC1090,SC1091,SC2034,SC2154,SC2317 -f gcc | ok_when_empty "shellcheck"
files | grep -E '^tests/.*/[a-z-]*\.sh$' | xargs -r shellcheck -S warning -e SC1090,SC1091,SC2034,SC2154 -f gcc |
	ok_when_empty "shellcheck of sourced files"
scripts | while read -r file; do
	case $(head -n 1 "$file") in *bash) bash -n "$file" 2>&1 ;; *) sh -n "$file" 2>&1 ;; esac
done | ok_when_empty "scripts parse"

cd "$planted" || exit 1
printf '#!/bin/sh\ncd /x\nrm $1/*\nfoo=(1)\n' >a.sh
shellcheck -S warning -f gcc a.sh | ok_when_found "finds a mistake" 'a.sh:2'
finish
