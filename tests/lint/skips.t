#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A test that is skipped is told, and in continuous integration only those of a list may be.
. "$(dirname "$0")/lib.sh"
skips() { "$top/scripts/skips.sh" "$@"; }

plant tap/system/whole '1..0 # SKIP no tool'
plant tap/system/one 'ok 1 - a # of words
ok 2 - b # skip needs root'
plant tap/unit/none 'ok 1 - skips a line
1..1'
plant allowed '# ^system/whole
^system/one: needs root'
skips "$planted/tap" | ok_when_found "a whole test" '^skipped: system/whole: no tool$'
skips "$planted/tap" | ok_when_found "one of a test" '^skipped: system/one: needs root$'
skips "$planted/tap" | grep -v '^skipped: system/' | ok_when_empty "nothing else"
{ skips "$planted/tap" "$planted/allowed" 2>&1 >/dev/null && echo passed; } | grep -v '^may not.*system/whole: no tool$' |
	ok_when_empty "one outside the list fails"
skips "$planted/tap" "$planted/allowed" 2>&1 >/dev/null | ok_when_found "and is named" 'system/whole'
rm "$planted/tap/system/whole"
{ skips "$planted/tap" "$planted/allowed" >/dev/null || echo failed; } 2>&1 | ok_when_empty "those of the list are fine"
finish
