#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# skips.sh FOLDER [ALLOWED]   lists what the tests skipped whose TAP lies below FOLDER, as "skipped: TEST: WHY".
# With ALLOWED, a file of regular expressions: exit 1 when one is not of them, and those are told apart.
set -u
skipped=$(cd "$1" && grep -rEi '^(1\.\.0|(not )?ok\b.*[^\\]) *# *skip' . | sed -E 's|^\./||; s/:[^#]*#+ *[Ss][Kk][Ii][Pp][^ ]* */: /' | sort -u)
[ -n "$skipped" ] || exit 0
echo "$skipped" | sed 's/^/skipped: /'
[ $# = 2 ] || exit 0
patterns=$(grep -v '^#' "$2")
bad=$(echo "$skipped" | grep -vE -e "$patterns")
[ -n "$bad" ] || exit 0
echo "$bad" | sed 's/^/may not be skipped here: /' >&2
exit 1
