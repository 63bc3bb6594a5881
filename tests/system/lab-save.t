#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A cluster of many nodes is saved, everything is killed, and it goes on on other nodes."""
import os
import signal
import sys
import time

sys.dont_write_bytecode = True
import counting  # noqa: E402
import halfsave  # noqa: E402
import harness  # noqa: E402
import labworld  # noqa: E402

CACHE = "*/vse-cache-*"  # files of images, kept on purpose (docs/staging.md)
FOLDER = "/home/labuser/saved"
# Where agent, reaper and keeper were all killed, the run directory waits for the next agent of that user there.
KEPT = ["file *: /home/labuser/saved*", "file *: /tmp/vse-*", CACHE, *labworld.KEPT]


def files(lab):
    return sorted(os.listdir(lab.home() / "saved"))


def kill_all(tap, lab):
    # A keeper that saw its agent die starts the next one: it may come after the look around.
    for _ in range(20):
        for p in lab.processes():
            p.kill()
        time.sleep(0.1)
    lab.vse("ps")  # sweeps what they could not
    tap.ok(not lab.processes(), "everything is killed on all nodes", [str(p) for p in lab.processes()])


def on(lab):
    r = lab.vse("ps")
    return sorted({line.split()[2] for line in r.text.splitlines()[1:]})


def fake(tap, lab):
    r = lab.vse("up", "-q", "--hypervisor", "fake", "-n", "6", "--fanout", "2", "--hosts", "n[1-3]", "f.yaml", timeout=120)
    tap.ok(r.code == 0, "up: 6 VMs on 3 nodes", r)
    r = lab.vse("save", "-q", "--to", FOLDER, timeout=120)
    want = sorted(["cluster.json"] + ["vm%d.%s" % (n, x) for n in range(6) for x in ("json", "state")])
    tap.ok(r.code == 0 and files(lab) == want, "save: each node writes its VMs into one folder", r)
    r = lab.vse("save", "-q", "--to", "/tmp/own", timeout=120)
    tap.ok(r.code == 1 and "on every node" in r.said and "n" in r.said, "a folder that only one node has is refused, and which", r)
    r = lab.vse("exec", "hostname")
    tap.ok(r.code == 0, "the VMs go on", r)
    halfsave.interrupted(tap, lab, "vse", FOLDER + "0", lab.home(), signal.SIGKILL, 6)
    lab.vse("pause", "0,5")
    halfsave.beheaded(tap, lab, FOLDER + "0", lab.home(), "n1", ["paused"] + ["ready"] * 4 + ["paused"])
    kill_all(tap, lab)
    r = lab.vse("restore", "-q", "--hosts", "n4,n2", FOLDER, timeout=120)
    tap.ok(r.code == 0 and on(lab) == ["n2", "n4"], "restore on two other nodes", r, on(lab))
    r = lab.vse("exec", "hostname")
    tap.ok(r.code == 0 and "vm5" in r.text, "all VMs work", r)
    r = lab.vse("save", "-q", "--down", "--to", FOLDER + "2", timeout=120)
    tap.ok(r.code == 0, "saved again from there, and down", r)
    r = lab.vse("restore", "-q", FOLDER + "2", timeout=120)
    tap.ok(r.code == 0, "and restored without a launcher, here", r)
    r = lab.vse("down")
    left = lab.clean_within(10, ignore=KEPT)
    tap.ok(r.code == 0 and not left, "down, and nothing is left on any node", r, "\n".join(left[:20]))


def real(tap, lab):
    r = lab.vse("up", "-q", "-n", "4", "--accel", "tcg", "--oversubscribe", "--scratch", "32M", "--lost-after", "10s",
                "--hosts", "n[1-2]", "bb.yaml", timeout=300)
    if not tap.ok(r.code == 0, "up: 4 VMs of QEMU on 2 nodes", r):
        return
    r = counting.begin(lab)
    tap.ok(r.code == 0, "a counter that writes each number to the disk runs in all", r)
    halfsave.beheaded(tap, lab, FOLDER + "0", lab.home(), "n1", ["ready"] * 4)
    r = lab.vse("save", "-q", "--to", FOLDER, timeout=300)
    tap.ok(r.code == 0, "save, while they count, also of VMs that were adopted", r)
    kill_all(tap, lab)
    r = lab.vse("restore", "-q", "--oversubscribe", "--lost-after", "10s", "--hosts", "n3", FOLDER, timeout=300)
    tap.ok(r.code == 0 and on(lab) == ["n3"], "restore on a third node", r, on(lab))
    counting.check(tap, lab, 4)
    r = lab.vse("down")
    left = lab.clean_within(10, ignore=KEPT)
    tap.ok(r.code == 0 and not left, "down, and nothing is left on any node", r, "\n".join(left[:20]))


def with_qemu(tap):
    with labworld.real_lab(nodes=3, ssh=True, home="shared") as (lab, why):
        if lab:
            real(tap, lab)
        else:
            tap.skip("with VMs of QEMU", why)


def main():
    labworld.skip_unless(ssh=True)
    tap = harness.Tap()
    with labworld.Lab(nodes=4, ssh=True, home="shared") as lab:
        lab.write("f.yaml", "vse: 1\nname: f\nbase: debian:bookworm\n")
        lab.mark()
        fake(tap, lab)
    with_qemu(tap)
    return tap.done()


if __name__ == "__main__":
    sys.exit(main())
