#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# format.sh [file...]   formats C in place (default: all of the tree's)
set -eu
cd "$(dirname "$0")/.."
# shellcheck disable=SC2046 # a list of plain names
[ $# -gt 0 ] || set -- $(git ls-files -co --exclude-standard '*.c' '*.h')
exec clang-format -i "$@"
