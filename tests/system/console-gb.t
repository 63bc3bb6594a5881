#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A real guest that prints a gigabyte to its console: neither the agent nor the log grows, and the VM still answers.

Emulated, the serial port takes an hour for it (a few microseconds a byte), so it is for nightly runs.
VSE_CONSOLE_MB sets another amount, in 10^6 bytes."""
import json
import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
from harness import NIGHTLY, VSE, Tap, real_world  # noqa: E402

MIB = 1 << 20
LOG_MAX = 2 * MIB  # the log and the one before it
AGENT_MAX = 32 * MIB
BOUND_S = 6900


def main():
    if not NIGHTLY:
        print("1..0 # SKIP for nightly runs: VSE_NIGHTLY is not set")
        return 0
    tap = Tap()
    world, file, why = real_world()
    if not world:
        print("1..0 # SKIP " + why)
        return 0
    with world:
        checks(tap, world, file, int(os.environ.get("VSE_CONSOLE_MB") or 1000))
    return tap.done()


def sizes(w):
    agent = json.loads(w.vse("ps", "--json").out)["clusters"][0]["agent"]["memory"]
    return agent, sum(f.stat().st_size for f in (w.run / "vse/bb/vm0").glob("console.log*"))


def checks(tap, w, file, mb):
    r = w.vse("up", "-q", "--accel", "tcg", file, timeout=180)
    tap.ok(r.code == 0, "up: one VM", r)
    memory, log = at_first, _ = sizes(w)
    begun = time.monotonic()
    # What was written is counted by dd itself; the last line comes out last.
    front = w.start(VSE, "exec", "-r", "0", "sh", "-c",
                    "dd if=/dev/zero bs=1000000 count=%d | tr '\\0' x | fold -w 99 >/dev/console && echo the-end >/dev/console" % mb,
                    stdout=-1, stderr=-1)
    answers = 0
    while front.poll() is None and time.monotonic() - begun < BOUND_S:
        now = sizes(w)
        memory, log = max(memory, now[0]), max(log, now[1])
        r = w.vse("exec", "-r", "0", "echo", "alive", timeout=60)
        answers += r.text == "alive\n"
        if r.text != "alive\n":
            tap.ok(False, "exec answers while the console is flooded", r)
            break
        time.sleep(5)
    if front.poll() is None:
        front.kill()
    said = (front.communicate()[1] or b"").decode()
    took = time.monotonic() - begun
    tap.ok(front.returncode == 0 and "%d+0 records out" % mb in said,
           "%d MB were printed" % mb, front.returncode, said)
    tap.ok(answers > 0, "exec answered meanwhile", answers)
    now = sizes(w)
    memory, log = max(memory, now[0]), max(log, now[1])
    tap.ok(memory <= AGENT_MAX, "the agent's memory stays bounded", memory)
    tap.ok(0 < log <= LOG_MAX, "so does the log", log)
    tail = b"".join(p.read_bytes() for p in sorted((w.run / "vse/bb/vm0").glob("console.log*"), reverse=True))[-200:]
    tap.ok(b"the-end" in tail, "which has the end of it", tail)
    tap.note("%d MB in %.0f s (%.2f MB/s), %d answers meanwhile; agent %.1f MiB at first, at most %.1f; log at most %.2f MiB" % (
        mb, took, mb / took, answers, at_first / MIB, memory / MIB, log / MIB))
    r = w.vse("exec", "-r", "0", "echo", "alive")
    tap.ok(r.text == "alive\n", "the VM still answers", r)
    r = w.vse("down")
    left = w.clean_within()
    tap.ok(r.code == 0 and not left, "down: nothing is left", r, *left)


if __name__ == "__main__":
    sys.exit(main())
