#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The manual says what the program does: a page for every command, every option of a command in its page and no
# other, the sections that people look for, and no reference to a page that is not there.
. "$(dirname "$0")/lib.sh"
vse=${VSE_BUILD:-$top/build}/vse
if ! [ -x "$vse" ]; then
	echo "1..0 # SKIP $vse is not built"
	exit 0
fi
cd "$top" || exit 1

commands() { "$vse" --help | awk '/^Commands:/ { on = 1; next } !NF { on = 0 } on { print $1 }'; }
# As "-n,--count N", "--json", ... : letter, name and argument, from the help and from a page.
help_options() {
	"$vse" "$1" --help | awk '/^Options:/ { on = 1; next } !NF { on = 0 } on' |
		sed -nE 's/^ *(-[a-zA-Z],)? *--([a-z-]+)(( [A-Z=]+)?)  .*/\1--\2\3/p' | sort
}
page_options() {
	awk '/^# / { on = $0 == "# OPTIONS" } on' "$1" | grep -E '^\*-' |
		sed -E 's/[*_]//g; s/, --/,--/' | sort
}

without_page() { commands | while read -r c; do [ -f "man/vse-$c.1.scd" ] || echo "vse $c: man/vse-$c.1.scd is missing"; done; }
without_command() {
	for page in man/vse-*.1.scd; do
		c=${page#man/vse-}
		commands | grep -qx "${c%.1.scd}" || echo "$page: no such command"
	done
}
wrong_options() { # folder of the pages
	for c in $(commands); do
		page=$1/vse-$c.1.scd
		[ -f "$page" ] || continue
		help_options "$c" >"$planted/help"
		page_options "$page" >"$planted/page"
		[ -s "$planted/help" ] || echo "vse $c --help: no option was found"
		comm -23 "$planted/help" "$planted/page" | sed "s|^|$page: lacks |"
		comm -13 "$planted/help" "$planted/page" | sed "s|^|$page: the program has no |"
	done
}
without_section() { # folder of the pages
	for page in "$1"/*.1.scd; do
		for section in NAME SYNOPSIS DESCRIPTION OPTIONS 'EXIT STATUS' 'SEE ALSO'; do
			grep -qx "# $section" "$page" || echo "$page: no section $section"
		done
		name=$(basename "$page" .1.scd)
		head -n 1 "$page" | grep -qx "$name(1)" || echo "$page: its first line is not $name(1)"
	done
}
dead_references() { # folder of the pages
	grep -noE '\*vse[a-z.-]*\*\([0-9]\)' "$1"/*.scd /dev/null | while IFS=: read -r page line what; do
		file=$(echo "$what" | tr -d '*)' | tr '(' '.')
		[ -f "$1/$file.scd" ] || echo "$page:$line: there is no $file"
	done
}
unreadable() { # folder of the pages
	for page in "$1"/*.scd; do scdoc <"$page" 2>&1 >/dev/null | sed "s|^|$page: |"; done
}

without_page | ok_when_empty "every command has a page"
without_command | ok_when_empty "every page has a command"
wrong_options man | ok_when_empty "pages name the options of their commands"
without_section man | ok_when_empty "pages have the usual sections"
dead_references man | ok_when_empty "references lead to pages"
commands | while read -r c; do grep -qE "^\|[[ ] +\*$c\*\$" man/vse.1.scd || echo "vse.1 does not list $c"; done |
	ok_when_empty "vse(1) lists every command"
if command -v scdoc >/dev/null; then
	unreadable man | ok_when_empty "scdoc reads every page"
else
	echo "# scdoc is not here: pages unread"
fi

mkdir "$planted/man"
sed -e '/^\*--dry-run/d' -e 's/^\*-q, --quiet\*/*-s, --quiet*/' -e '/^# EXIT STATUS/d' -e 's/vse-ps\*(1)/vse-pz*(1)/' \
	man/vse-up.1.scd >"$planted/man/vse-up.1.scd"
wrong_options "$planted/man" >"$planted/found"
ok_when_found "finds an option that the page lacks" 'vse-up.1.scd: lacks --dry-run' <"$planted/found"
ok_when_found "finds another letter" 'the program has no -s,--quiet' <"$planted/found"
without_section "$planted/man" | ok_when_found "finds a missing section" 'no section EXIT STATUS'
dead_references "$planted/man" | ok_when_found "finds a dead reference" 'there is no vse-pz.1'
finish
