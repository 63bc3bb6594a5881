#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Nodes are added to a cluster that runs, and taken out of it; what becomes of the VMs is what was asked for."""
import json
import sys
import time

sys.dont_write_bytecode = True
import harness  # noqa: E402
import labworld  # noqa: E402

# The agent's copy on the nodes (docs/launchers.md), the user's image store: there to stay.
KEPT = ["*/vse-cache-*", *labworld.KEPT]


def status(lab):
    r = lab.vse("ps", "--json")
    found = json.loads(r.out)["clusters"] if r.code == 0 else []
    return found[0] if found else None


def nodes(lab):
    """{name: (state, VMs)}"""
    r = lab.vse("nodes", "--json")
    return {n["name"]: (n["state"], n["vms"]) for n in json.loads(r.out)["nodes"]} if r.code == 0 else {}


def answers(lab, vms):
    r = lab.vse("exec", "--", "echo", "here", timeout=60)
    return r.code == 0 and r.text == "vm[0-%d]: here\n" % (vms - 1), r


def until(what, seconds=60):
    end = time.monotonic() + seconds
    while not what() and time.monotonic() < end:
        time.sleep(0.1)
    return what()


def left_on(lab, node):
    """Whatever of ours is there now, but the cache."""
    end = time.monotonic() + 10
    while True:
        left = [line for line in lab.leftovers(ignore=KEPT) if "%s:" % node in line.split(" /")[0]]
        if not left or time.monotonic() > end:
            return left
        time.sleep(0.1)


def dry_run(tap, lab, file):
    """--dry-run looks at the nodes, says who would get what and why, and leaves everything as it was."""
    def plan(*args, code=0):
        r = lab.vse("up", "--dry-run", *args, file, timeout=60)
        lines = dict(line[5:].split(": ", 1) for line in r.text.split("\n") if line.startswith("node "))
        return r.code == code and lines, r

    lines, r = plan("--hypervisor", "fake", "-n", "3", "--hosts", "n[1-2]")
    tap.ok(lines and lines["n1"].startswith("vm[0-1]; an even share") and lines["n2"].startswith("vm2; an even share"),
           "dry run: who gets what, and why", r)
    lines, r = plan("--memory", "64M", "-n", "1", "--hosts", "n[1-3]", "--place", "pack", "--spare", "1")
    tap.ok(lines and lines["n1"].startswith("vm0; ") and "room for " in lines["n1"] and "a VM takes" in lines["n1"] and
           lines["n2"].startswith("no VMs; the others have room for all") and lines["n3"].startswith("no VMs; spare"),
           "nodes that are not used, with the reason", r)
    lines, r = plan("--hypervisor", "fake", "-n", "5", "--hosts", "n[1-2]", "--max-per-node", "2", code=1)
    tap.ok(lines and "--max-per-node 2" in lines["n1"] and "4 of 5 VMs fit" in r.said, "VMs that do not fit", r)
    lines, r = plan("--hypervisor", "fake", "-n", "2", "--hosts", "n1,n99", "--missing", "go-on")
    tap.ok(lines and lines["n1"].startswith("vm[0-1]") and lines["n99"].startswith("no VMs; down: "), "a node that is down", r)
    lines, r = plan("--hypervisor", "fake", "-n", "2", "--hosts", "n1,n99", code=1)
    tap.ok(lines and "1 of 2 nodes did not come up" in r.said, "which ends up", r)
    left = lab.clean_within(10, ignore=KEPT)
    tap.ok(not left and not status(lab), "nothing is started, nothing is left", "\n".join(left))


def refusals(tap, lab):
    def no(name, said, *args, code=1):
        r = lab.vse("nodes", *args, timeout=60)
        tap.ok(r.code == code and said in r.said, name, r)

    no("a node that is one already", "n1 is a node of the cluster already", "add", "--hosts", "n[1-2]")
    no("a host that is not there: none is added", "n99", "add", "--hosts", "n3,n99")
    tap.ok(sorted(nodes(lab)) == ["n1", "n2"], "the cluster is as before", nodes(lab))
    no("a node that is none", "no node 'n7'", "remove", "n7", code=2)
    no("a node with VMs, without a word about them", "--recover", "remove", "n2")
    no("every node", "no node would be left", "remove", "--stop", "n1", "n2")
    no("no room for its VMs", "no other node has room", "remove", "--recover", "n2")
    no("no such action", "unknown action", "grow", code=2)


def grow(tap, lab):
    r = lab.vse("nodes", "add", "--hosts", "n[3-4]", timeout=60)
    tap.ok(r.code == 0, "two nodes are added", r)
    tap.ok(nodes(lab) == {"n1": ("up", 2), "n2": ("up", 2), "n3": ("up", 0), "n4": ("up", 0)}, "they are up", nodes(lab))
    good, r = answers(lab, 4)
    tap.ok(good, "the VMs answer as before", r)
    r = lab.vse("nodes", "remove", "--recover", "n2", timeout=60)
    tap.ok(r.code == 0, "a node is removed, its VMs begin anew", r)
    tap.ok(left_on(lab, "n2") == [], "nothing is left on it", left_on(lab, "n2"))
    good = until(lambda: [v["state"] for v in status(lab)["vms"]] == ["ready"] * 4)
    tap.ok(good and nodes(lab) == {"n1": ("up", 2), "n3": ("up", 1), "n4": ("up", 1)}, "on the new ones", nodes(lab))
    good, r = answers(lab, 4)
    tap.ok(good, "all VMs answer", r)
    r = lab.vse("events")
    tap.ok("n3 was added" in r.text and "n2 was removed" in r.text, "the events tell of it", r)


def root_again(tap, lab):
    """A root agent that is started again knows which nodes there are."""
    old = [p.pid for p in lab.kill("n0", "agent")]
    tap.ok(until(lambda: any(p.pid not in old for p in lab.processes("n0", "agent"))), "the root agent is started again")
    tap.ok(until(lambda: {s for s, _ in nodes(lab).values()} == {"up"} and len(nodes(lab)) == 3), "with the same nodes",
           nodes(lab))
    good = until(lambda: answers(lab, 4)[0])
    tap.ok(good, "and VMs")
    r = lab.vse("nodes", "add", "--hosts", "n2", timeout=60)
    tap.ok(r.code == 0 and nodes(lab).get("n2") == ("up", 0), "a node that was removed is added again", r, nodes(lab))


def shrink(tap, lab):
    lab.off("n3")
    tap.ok(until(lambda: nodes(lab)["n3"][0] == "lost"), "a node loses its power", nodes(lab))
    r = lab.vse("nodes", "remove", "--stop", "n3", timeout=60)
    tap.ok(r.code == 0 and "n3" not in nodes(lab), "it is removed, with the VM it had", r)
    r = lab.vse("exec", "--", "echo", "here", timeout=60)
    tap.ok(r.code == 1 and "vm2: " in r.said and r.text == "vm[0-1,3]: here\n", "which is named", r)
    r = lab.vse("nodes", "remove", "--stop", "n4", timeout=60)
    tap.ok(r.code == 0 and [v["state"] for v in status(lab)["vms"]] == ["ready", "ready", "lost", "lost"],
           "another with its VM", r, status(lab))
    r = lab.vse("nodes", "remove", "n2", timeout=60)
    tap.ok(r.code == 0 and list(nodes(lab)) == ["n1"], "one without VMs needs no word", r, nodes(lab))


def real(tap, lab):
    """A VM of QEMU begins anew on a node that was added: image and network are there."""
    cache = "cat /var/tmp/vse-cache-*/*/files/* 2>/dev/null | wc -c"
    r = lab.vse("up", "-q", "-n", "2", "--accel", "tcg", "--oversubscribe", "--timeout", "5m", "--lost-after", "30s",
                "--give-up-after", "90s", "--hosts", "n[1-2]", "bb.yaml", timeout=400)
    if not tap.ok(r.code == 0, "2 VMs of QEMU on 2 nodes", r):
        return
    r = lab.vse("nodes", "add", "--hosts", "n3", timeout=120)
    tap.ok(r.code == 0 and nodes(lab).get("n3") == ("up", 0), "a third node is added", r, nodes(lab))
    r = lab.vse("nodes", "remove", "--recover", "n2", timeout=120)
    there = until(lambda: [v["state"] for v in status(lab)["vms"]] == ["ready"] * 2, 300)
    tap.ok(r.code == 0 and there and nodes(lab).get("n3") == ("up", 1), "the VM of another begins anew there", r, status(lab))
    sizes = [int(lab.call("sh", "-c", cache, node=n).text) for n in ("n1", "n3")]
    tap.ok(sizes[0] == sizes[1] > 1 << 20, "it has got the image", sizes)
    for here, other in ("0", "vm1"), ("1", "vm0"):
        r = lab.vse("exec", "-r", here, "ping", "-c", "1", "-W", "20", other, timeout=60)
        tap.ok(r.code == 0, "vm%s reaches %s" % (here, other), r)
    r = lab.vse("down", timeout=60)
    left = lab.clean_within(10, ignore=KEPT)
    tap.ok(r.code == 0 and not left, "down, and nothing is left", r, "\n".join(left[:20]))


def main():
    labworld.skip_unless(ssh=True)
    tap = harness.Tap()
    with labworld.Lab(nodes=4, ssh=True) as lab:
        file = lab.write("f.yaml", "vse: 1\nname: f\nbase: debian:bookworm\n")
        lab.mark()
        dry_run(tap, lab, file)
        r = lab.vse("up", "-q", "--hypervisor", "fake", "-n", "4", "--hosts", "n[1-2]", "--fanout", "2", "--max-per-node",
                    "2", "--lost-after", "2s", "--give-up-after", "6s", file, timeout=120)
        if tap.ok(r.code == 0, "4 VMs on 2 nodes", r):
            refusals(tap, lab)
            grow(tap, lab)
            root_again(tap, lab)
            shrink(tap, lab)
        r = lab.vse("down", timeout=60)
        tap.ok(r.code == 0, "down", r)
        # Nobody could clean the disk of the node that lost its power; n0 hears that it is gone when it is on again.
        lab.boot("n3")
        left = lab.clean_within(10, ignore=KEPT + ["file n3:*"])
        tap.ok(not left, "nothing is left on any node", "\n".join(left[:20]))
    with labworld.real_lab(nodes=3, ssh=True) as (lab, why):
        if lab:
            real(tap, lab)
        else:
            tap.skip("with VMs of QEMU", why)
    with harness.World() as world:
        world.vse("up", "-q", "--hypervisor", "fake", "-n", "1", world.fake_vse())
        r = world.vse("nodes", "add", "--hosts", "n1")
        tap.ok(r.code == 1 and "this node alone" in r.said, "a cluster of one machine stays on it", r)
        world.vse("down")
    return tap.done()


if __name__ == "__main__":
    sys.exit(main())
