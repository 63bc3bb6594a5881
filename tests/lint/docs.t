#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Links between the documents of the tree lead somewhere.
. "$(dirname "$0")/lib.sh"
cd "$top" || exit 1

documents() { files | grep -E '\.md$'; }
dead_links() {
	while read -r file; do
		grep -noE '\]\([^)# ]+' "$file" | grep -vE '\]\([a-z]+:' | while IFS=: read -r line link; do
			target=$(dirname "$file")/${link#??}
			[ -e "$target" ] || echo "$file:$line: ${link#??}: not there"
		done
	done
}
documents | dead_links | ok_when_empty "links lead to files"
documents | ok_when_found "finds the documents" '^README.md$'

cd "$planted" || exit 1
printf 'See [this](x/gone.md) and [that](b.md).\n' >a.md
: >b.md
echo a.md | dead_links | ok_when_found "finds a dead link" 'a.md:1: x/gone.md'
finish
