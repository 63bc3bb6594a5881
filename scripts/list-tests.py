#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""list-tests.py BUILD: meson's TAP tests as lines "suite<TAB>name<TAB>shell command"."""
import json
import shlex
import subprocess
import sys

tests = json.loads(subprocess.check_output(["meson", "introspect", "--tests", sys.argv[1]]))
for test in tests:
    if test["protocol"] != "tap":
        sys.exit("list-tests: %s does not speak TAP" % test["name"])
    suite = test["suite"][0].split(":")[-1] if test["suite"] else "unit"
    # As meson runs it: in the top of the build folder unless it says otherwise.
    env = ["env", "-C", test["workdir"] or sys.argv[1]] + ["%s=%s" % pair for pair in test["env"].items()]
    command = " ".join(shlex.quote(word) for word in env + test["cmd"])
    print(suite, test["name"].replace(" ", "-"), command, sep="\t")
