#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
test_description='vse validate and vse show'
. "$(dirname "$0")/lib.sh"

test_expect_success 'good files are ok' '
	vse validate "$EXAMPLES/minimal.yaml" "$EXAMPLES/mpi.yaml" >out 2>err &&
	printf "%s: ok\n" "$EXAMPLES/minimal.yaml" "$EXAMPLES/mpi.yaml" >want &&
	test_cmp want out && test_cmp /dev/null err
'

test_expect_success 'every problem of a bad file is told, with exit code 2' '
	cp "$TOP/tests/spec/bad/many-at-once.yaml" bad.yaml &&
	sed -n "s/^#: /bad.yaml:/p" bad.yaml >want &&
	test_expect_code 2 vse validate bad.yaml >out 2>err &&
	test_cmp want err && test_cmp /dev/null out
'

test_expect_success 'a good file beside a bad one is still told' '
	test_expect_code 2 vse validate bad.yaml "$EXAMPLES/minimal.yaml" >out 2>err &&
	echo "$EXAMPLES/minimal.yaml: ok" >want && test_cmp want out
'

test_expect_success 'the same as JSON' '
	test_expect_code 2 vse validate --json bad.yaml "$EXAMPLES/minimal.yaml" >out 2>err &&
	test_cmp /dev/null err &&
	python3 -c "
import json
bad, good = json.load(open(\"out\"))
assert bad[\"file\"] == \"bad.yaml\" and not bad[\"ok\"]
assert bad[\"problems\"] == [\"bad.yaml:\" + l[3:].strip() for l in open(\"bad.yaml\") if l.startswith(\"#: \")]
assert good[\"ok\"] and good[\"problems\"] == []
"
'

test_expect_success 'an absent file and a missing argument end with 2' '
	test_expect_code 2 vse validate nowhere.yaml 2>err &&
	echo "nowhere.yaml: No such file or directory" >want && test_cmp want err &&
	test_expect_code 2 vse validate 2>err &&
	test_expect_code 2 vse show 2>err &&
	test_expect_code 2 vse show bad.yaml >out 2>err && test_cmp /dev/null out
'

test_expect_success 'show gives what the file says, and a file again' '
	vse show "$EXAMPLES/minimal.yaml" >shown.yaml &&
	printf "vse: 1\nname: minimal\nbase: debian:bookworm\nneeds:\n  memory: 256M\n" >want &&
	test_cmp want shown.yaml && vse validate shown.yaml &&
	vse show shown.yaml >again.yaml && test_cmp shown.yaml again.yaml
'

test_expect_success 'show --resolved gives all, and a file again' '
	vse show --resolved "$EXAMPLES/mpi.yaml" >full.yaml &&
	grep "^  subnet: 10.199.0.0/16$" full.yaml &&
	vse show --resolved full.yaml >again.yaml && test_cmp full.yaml again.yaml
'

test_expect_success 'show --json has sizes in bytes' '
	vse show --resolved --json "$EXAMPLES/minimal.yaml" | python3 -c "
import json, sys
v = json.load(sys.stdin)
assert v[\"needs\"] == {\"cpus\": 1, \"memory\": 268435456, \"scratch\": 0, \"devices\": []} and v[\"vse\"] == 1
"
'

test_expect_success 'show --schema names every field of a full file' '
	vse show --schema >schema &&
	sed -n "s/^\([a-z]*\):.*/\1/p" full.yaml | while read -r field; do
		grep -q "^$field (" schema || exit 1
	done &&
	test_expect_code 2 vse show --schema full.yaml
'

test_expect_success 'output that cannot be written is a failure' '
	test_expect_code 1 vse show --schema >/dev/full 2>err && grep "write output" err
'

test_done
