# shellcheck shell=sh
# SPDX-License-Identifier: Apache-2.0
# For the lint tests: TAP, the list of the tree's files, and planted mistakes that each rule must find.
# Source it as: . "$(dirname "$0")/lib.sh"
set -u
lint=$(cd "$(dirname "$0")" && pwd -P)
top=$(cd "$lint/../.." && pwd -P)
planted=$(mktemp -d "${VSE_TEST_TMP:-${TMPDIR:-/tmp}}/lint.XXXXXX") || exit 1
trap 'rm -rf "$planted"' EXIT
state=$planted/.state
mkdir "$state" || exit 1

# The rules come through pipes, so in subshells: what they found is counted in files.
verdict() { # 0 or 1, name, what was found
	echo x >>"$state/count"
	count=$(wc -l <"$state/count")
	if [ "$1" = 0 ]; then
		echo "ok $count - $2"
	else
		echo "not ok $count - $2"
		echo "$3" | sed 's/^/# /'
		: >"$state/failed"
	fi
}

# ok_when_empty NAME: passes when standard input is empty, which holds what a rule found.
ok_when_empty() {
	found=$(cat)
	[ -z "$found" ]
	verdict $? "$1" "$found"
}

# A rule that finds nothing anywhere proves nothing: it must find PATTERN in what was planted.
ok_when_found() { # NAME PATTERN
	found=$(cat)
	echo "$found" | grep -q "$2"
	verdict $? "$1" "looked for '$2' in: $found"
}

plant() { # file, contents
	mkdir -p "$planted/$(dirname "$1")"
	printf '%s\n' "$2" >"$planted/$1"
}

# The tree's own files: what git knows or would add; without git, all but build folders.
files() {
	(cd "$top" && { git ls-files -co --exclude-standard 2>/dev/null || find . -type f ! -path './build*' ! -path './.git/*' | sed 's|^\./||'; }) |
		while read -r file; do [ ! -f "$top/$file" ] || echo "$file"; done
}

sources() { files | grep -E '^(src|include|tests|bench)/.*\.[ch]$'; }
scripts() {
	files | grep -v '^tests/fuzz/corpus/' |
		(cd "$top" && LC_ALL=C xargs -r awk 'FNR == 1 && /^#!.*(sh|bash)$/ { print FILENAME } { nextfile }')
}

finish() {
	echo "1..$(wc -l <"$state/count")"
	[ ! -e "$state/failed" ]
	exit
}
