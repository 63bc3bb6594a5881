#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""VMs that write to their memory faster than it travels: by post-copy they move all the same, and nothing they wrote is lost. What
is hurt meanwhile may take the VM along, and that is told; never do two copies run.

Random rounds as in lab-migrate.t, with its variables; VSE_NIGHTLY=1: 20 with `fake` and 10 with `qemu`. As the nodes' root: a
kernel gives others no userfaultfd, as a rule."""
import json
import os
import re
import subprocess
import sys
import time

sys.dont_write_bytecode = True
import counting  # noqa: E402
import harness  # noqa: E402
import labworld  # noqa: E402
import rootlab  # noqa: E402
from labworld import status, wait_for  # noqa: E402
from migrating import BOUND_S, DIRTY, LOST_S, Fake, LateQemu, Rounds  # noqa: E402

KEPT = ["*/vse-cache-*", "*/home/labuser/.config/*"]  # files of images, kept on purpose; the launcher of rootlab.py
NODES = ["n1", "n2", "n3"]
TRY = "20s"  # a move that does not end is given up after this


def rounds(real):
    return int(os.environ.get("VSE_MIGRATE_ROUNDS") or ((10 if real else 20) if harness.NIGHTLY else 2 if real else 4))


def run_rounds(tap, lab, kind):
    r = Rounds(tap, lab, kind, NODES, "--post-copy")
    r.run(rounds(kind is LateQemu))
    tap.note("%d VMs ended with what was hurt" % r.ended)
    left = lab.vse("down", timeout=120)
    found = lab.clean_within(10, ignore=[*KEPT, *labworld.KEPT, *r.ignored()])
    tap.ok(left.code == 0 and not found, "down, and nothing is left on any node", left, "\n".join(found[:20]))


def fake(tap):
    with labworld.Lab(nodes=3, ssh=True) as lab:
        lab.write("f.yaml", "vse: 1\nname: f\nbase: debian:bookworm\n")
        lab.mark()
        r = lab.vse("up", "-q", "--hypervisor", "fake", "--hypervisor-arg", "state=24M", "-n", "4", "--fanout", "2",
                    "--recover", "--lost-after", "%ds" % LOST_S, "--give-up-after", "%ds" % (4 * LOST_S), "--hosts", "n[1-3]",
                    "f.yaml", timeout=120)
        if tap.ok(r.code == 0, "up: 4 VMs on 3 nodes", r):
            run_rounds(tap, lab, Fake)


def boot_id(lab):
    return lab.vse("exec", "-r", "0", "cat", "/proc/sys/kernel/random/boot_id", timeout=60).text


PING = """while [ ! -e /tmp/enough ]; do ping -c 1 -W 1 vm0 >/dev/null 2>&1 && cut -d' ' -f1 /proc/uptime; sleep 0.05; done"""


def emulates_well():
    """TCG of QEMU before 9.0 forgets what was written while a VM moves (docs/migration.md)."""
    said = subprocess.run(["qemu-system-x86_64", "--version"], stdout=subprocess.PIPE, check=True).stdout.decode()
    return int(re.search(r"version (\d+)", said)[1]) >= 9


def writer(tap, lab):
    """VM 0 counts, and writes 16 MiB of its memory again and again."""
    src, boot = status(lab)["vms"][0]["node"], boot_id(lab)
    to = next(n for n in NODES if n != src)
    r = counting.begin(lab)
    tap.ok(r.code == 0, "a counter that writes each number to the disk runs in both", r)
    r = lab.vse("exec", "-r", "0", "sh", "-c", DIRTY, timeout=60)
    tap.ok(r.code == 0, "and the first writes to its memory", r)
    lab.rate("100mbit")
    r = lab.vse("migrate", "--json", "0", "--to", to, "--timeout", TRY, timeout=300)
    if emulates_well():
        tap.ok(r.code == 1 and "in time" in r.said, "otherwise it does not come to an end in %s" % TRY, r)
    else:
        # Given one pass only, and the rest while it stands still: what is written all the time takes that long to send.
        moved = (json.loads(r.out) or [{}])[0] if r.code == 0 else {}
        tap.ok(moved.get("downtime_ms", 0) > 1000, "otherwise it stands still until 16 MiB have gone over 100 Mbit/s", r)
    tap.ok(wait_for(BOUND_S, lambda: status(lab)["vms"][0]["state"] == "ready"), "and is ready", status(lab))
    src = status(lab)["vms"][0]["node"]
    to = next(n for n in NODES if n != src)
    pings = lab.start("vse", "exec", "-r", "1", "sh", "-c", PING, stdout=-1, stderr=-1)
    r = lab.vse("migrate", "--json", "0", "--to", to, "--post-copy", timeout=300)
    lab.rate("off")
    moved = (json.loads(r.out) or [{}])[0] if r.code == 0 else {}
    tap.ok(moved.get("to") == to and moved.get("late_ms", 0) > 0, "by post-copy it is moved, and some of its memory came later", r)
    if moved:
        tap.note("stood still for %(downtime_ms)d ms, of %(total_ms)d ms; the last of %(bytes)d bytes of memory %(late_ms)d ms later" % moved)
    time.sleep(1)
    lab.vse("exec", "-r", "1", "touch", "/tmp/enough", timeout=60)
    out, _ = pings.communicate(timeout=120)
    times = [float(w) for w in out.split()]
    tap.ok(len(times) > 2, "it has answered the other VM", out)
    tap.note("%d answers, the longest time without one: %.2f s" % (len(times), max(b - a for a, b in zip(times, times[1:]))))
    tap.ok(boot and boot == boot_id(lab), "it was not booted anew")
    counting.check(tap, lab, 2)


def real(tap):
    with rootlab.open_lab(nodes=3) as (lab, why):
        if not lab:
            tap.skip("with VMs of QEMU", why)
            return
        rootlab.as_root(lab)
        r = lab.vse("up", "-q", "-n", "2", "--accel", "tcg", "--oversubscribe", "--scratch", "32M", "--recover",
                    "--lost-after", "%ds" % LateQemu.LOST_S, "--launcher", "mom", "--hosts", "n[1-3]", "/home/labuser/bb.yaml",
                    timeout=300)
        if tap.ok(r.code == 0, "up: 2 VMs of QEMU on 3 nodes", r, lab.vse("events")):
            writer(tap, lab)
            run_rounds(tap, lab, LateQemu)


def main():
    labworld.skip_unless(ssh=True)
    tap = harness.Tap()
    parts = sys.argv[1:] or ["fake", "qemu"]
    if "fake" in parts:
        fake(tap)
    if "qemu" in parts:
        real(tap)
    return tap.done()


if __name__ == "__main__":
    sys.exit(main())
