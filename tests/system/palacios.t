#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A cluster under Palacios, from `vse up` to `vse down`: on the EMULATION of its module (tests/palacios/emulation), in which
front end, agent and keepers run as they are."""
import json
import os
import subprocess
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
from harness import TOP, Tap, real_world  # noqa: E402

UP = ("up", "-q", "-n", "2", "--hypervisor", "palacios", "--timeout", "6m")


def inside():
    tap = Tap()
    world, file, why = real_world()
    if not world:
        print("1..0 # SKIP " + why)
        return 0
    with world:
        checks(tap, world, file)
    return tap.done()


def checks(tap, w, file):
    def vse(name, *args, code=0, said="", **kw):
        r = w.vse(*args, **kw)
        return tap.ok(r.code == code and said in r.said + r.text, name, r)

    def states():
        clusters = json.loads(w.vse("ps", "--json").out)["clusters"]
        return [(v["state"], v["pid"], v.get("reason", "")) for v in clusters[0]["vms"]] if clusters else []

    def wait(name, test):
        until = time.monotonic() + 60
        while not test() and time.monotonic() < until:
            time.sleep(0.2)
        tap.ok(test(), name, states())

    vse("refused: a word that it does not know", *UP, "--hypervisor-arg", "-nosuch", file, code=1, said="-nosuch: unknown", timeout=120)
    w.vse("down")
    if not vse("up: 2 VMs", *UP, file, timeout=400):
        return
    vse("exec", "exec", "uname", "-s", said="Linux", timeout=60)
    blob = os.urandom(50000)
    r = w.vse("exec", "-r", "1", "cat", stdin=blob, timeout=120)
    tap.ok(r.code == 0 and r.out == blob, "50 kB there and back over a serial port are the same", r.code, len(r.out))
    vse("pause", "pause", "0-1", timeout=60)
    tap.ok([s[0] for s in states()] == ["paused", "paused"], "both are paused", states())
    vse("resume", "resume", "0-1", timeout=60)
    vse("exec goes on", "exec", "-r", "0", "hostname", said="vm0", timeout=60)
    pids = [s[1] for s in states()]
    os.kill(pids[1], 9)
    wait("a keeper that is killed takes its VM along, and only that", lambda: [s[0] for s in states()] == ["ready", "failed"])
    tap.ok("SIGKILL" in states()[1][2], "and the reason says so", states())
    vse("down", "down", timeout=60)
    with open(os.environ["VSE_PALACIOS_ROOT"] + "/proc/v3vee/v3-guests") as f:
        tap.ok(f.read() == "", "Palacios has no VM any more")


def main():
    if sys.argv[1:] == ["inside"]:
        return inside()
    tap = Tap()
    r = subprocess.run([TOP / "tests/palacios/emulation", sys.executable, os.path.realpath(__file__), "inside"],
                       stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lines = r.stdout.splitlines()
    if any(line.startswith("1..0") for line in lines):
        print(next(line for line in lines if line.startswith("1..0")))
        return 0
    for line in lines:
        if line.startswith(("ok ", "not ok ")):
            tap.ok(line.startswith("ok "), line.split(" - ", 1)[1])
        else:
            tap.note(line)
    tap.ok(r.returncode in (0, 1), "the emulated node has survived, and nothing is left on it: status %d" % r.returncode)
    return tap.done()


if __name__ == "__main__":
    sys.exit(main())
