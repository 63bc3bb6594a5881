#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# table.sh OUT MACRO word...  writes "MACRO(word)" lines: the table that a dispatcher includes.
out=$1 macro=$2
shift 2
for w in "$@"; do echo "$macro($w)"; done >"$out"
