#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
test_description='an installation works: programs, manual pages, completion'
. "$(dirname "$0")/lib.sh"
root=$PWD/root/usr/local
unset VSE_GUEST

test_expect_success 'meson installs' '
	DESTDIR=$PWD/root meson install --no-rebuild --quiet -C "$VSE_BUILD" &&
	test -x "$root/bin/vse" && test -x "$root/libexec/vse/vse-agent" && test -x "$root/libexec/vse/vse-guest"
'

test_expect_success 'what is installed is found by what is installed' '
	test "$("$root/bin/vse" --version)" = "$("$VSE_BUILD/vse" --version)" &&
	{ "$root/bin/vse" doctor >doctor || cat doctor; } &&
	! grep "vse-agent is not" doctor &&
	"$root/bin/vse" validate "$EXAMPLES/minimal.yaml"
'

test_expect_success 'the programs are static' '
	for program in bin/vse libexec/vse/vse-agent libexec/vse/vse-guest; do
		ldd "$root/$program" >ldd 2>&1
		grep -E "not a dynamic executable|statically linked" ldd || return 1
	done &&
	test "$(stat -c %s "$root/libexec/vse/vse-guest")" -le 307200
'

vse --help >help
sed -n '/^Commands:/,/^$/s/^  \([a-z]*\) .*/\1/p' help >commands

test_expect_success 'every command has its manual page' '
	test -s commands &&
	while read -r command; do
		[ -r "$root/share/man/man1/vse-$command.1" ] || echo "vse-$command.1"
	done <commands >missing &&
	test_must_be_empty missing
'

test_expect_success 'bash completes commands, options, values and files' '
	touch file.yaml &&
	cat >try <<-\TRY &&
	compopt() { :; }
	. "$1"
	try() { COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)); _vse; echo "${COMPREPLY[*]}"; }
	try vse dow
	try vse up --hyperv
	try vse up --accel k
	try vse up --accel=tc
	try vse help exe
	try vse run file.y
	try vse nosuch ""
	TRY
	bash try "$root/share/bash-completion/completions/vse" >got &&
	printf "%s\n" down "--hypervisor= --hypervisor-arg=" kvm tcg exec file.yaml "" >want &&
	test_cmp want got
'

test_expect_success 'zsh has its completion' '
	test -r "$root/share/zsh/site-functions/_vse" &&
	{ ! command -v zsh || zsh -n "$root/share/zsh/site-functions/_vse"; }
'

test_done
