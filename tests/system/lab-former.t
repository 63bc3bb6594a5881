#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A cluster that is ended while a node of it is cut off leaves an agent there, until that gives up. It must not be in the
way of the next cluster of that name, nor may anybody else's agent be ended for it."""
import re
import sys

sys.dont_write_bytecode = True
import harness  # noqa: E402
import labworld  # noqa: E402

UP = ("up", "-q", "--hypervisor", "fake", "-n", "2", "--hosts", "n[1-2]", "--lost-after", "2s", "--give-up-after", "120s", "f.yaml")


def lost(lab, node):
    told = re.compile(r"^%s +lost " % node, re.MULTILINE)
    return labworld.wait_for(60, lambda: told.search(lab.vse("nodes").text))


def main():
    labworld.skip_unless(ssh=True)
    tap = harness.Tap()
    with labworld.Lab(nodes=4, ssh=True, vse="all", home="shared") as lab:
        lab.write("f.yaml", "vse: 1\nname: f\nbase: debian:bookworm\n")
        lab.mark()
        r = lab.vse(*UP, timeout=60)
        tap.ok(r.code == 0, "a cluster of two nodes", r)
        lab.cut("n1")
        tap.ok(lost(lab, "n1"), "n1 is lost", lab.vse("nodes"))
        former = [p.pid for p in lab.processes("n1", "keeper")]
        r = lab.vse("down", timeout=60)
        tap.ok(r.code == 0, "the cluster is ended without it", r)
        lab.heal("n1")
        tap.ok(former and [p.pid for p in lab.processes("n1", "keeper")] == former, "its agent there lives on")

        # From another node, where nobody knows of the former one: it may be alive for all that is known there.
        r = lab.vse(*UP, node="n3", timeout=60)
        tap.ok(r.code == 1 and "started elsewhere" in r.said, "a start from elsewhere leaves it alone, and says why it fails", r)
        tap.ok([p.pid for p in lab.processes("n1", "keeper")] == former, "it lives on")

        r = lab.vse(*UP, timeout=60)
        tap.ok(r.code == 0, "the next cluster of that name starts", r)
        now = [p.pid for p in lab.processes("n1", "keeper")]
        tap.ok(len(now) == 1 and now != former, "with one agent, which is another", former, now)
        r = lab.vse("exec", "hostname")
        tap.ok(r.code == 0 and r.text.split("\n")[:2] == ["vm0: vm0", "vm1: vm1"], "and both VMs answer", r)
        r = lab.vse(*UP, timeout=60)
        tap.ok(r.code == 1 and "runs already" in r.said, "while it lives there is no second one", r)
        tap.ok([p.pid for p in lab.processes("n1", "keeper")] == now, "which leaves it alone")
        lab.vse("down", timeout=60)
        left = lab.clean_within(20, ignore=["*/vse-cache-*", *labworld.KEPT])
        tap.ok(not left, "nothing is left on any node", "\n".join(left[:20]))
    return tap.done()


if __name__ == "__main__":
    sys.exit(main())
