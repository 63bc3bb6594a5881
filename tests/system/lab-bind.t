#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""CPUs of their own for VMs on several nodes: chosen anew where a VM moves to, kept when an agent dies and another adopts."""
import json
import os
import sys

sys.dont_write_bytecode = True
import harness  # noqa: E402
import labworld  # noqa: E402
from labworld import status, wait_for  # noqa: E402


def vms(lab):
    s = status(lab)
    return s["vms"] if s else []


def kept(lab, node, cpus):
    """All threads of the node's VMMs are on one of these CPUs each, every VMM on another."""
    seen = []
    for p in lab.processes(node, "vmm"):
        sets = {tuple(sorted(os.sched_getaffinity(int(t)))) for t in os.listdir("/proc/%d/task" % p.pid)}
        if len(sets) != 1:
            return False
        seen += [c for s in sets for c in s]
    return sorted(seen) == sorted(cpus)


def checks(tap, lab, file, own):
    why = harness.why_no_numa()
    if why:
        tap.skip("memory of the CPUs' NUMA node", why)
    local = () if why else ("--mem-bind", "local")
    r = lab.vse("up", "-q", "--hosts", "n1,n2", "-n", "2", "--memory", "96M", "--timeout", "5m", "--cpu-bind", "threads",
                *local, file, timeout=300)
    tap.ok(r.code == 0, "up: two VMs on two nodes", r)
    if r.code:
        return
    first = [v["bound_to"] for v in vms(lab)]
    tap.ok(kept(lab, "n1", own[:1]) and kept(lab, "n2", own[:1]), "each has the first CPU of its node", first)
    lab.kill("n2", "agent")
    r = wait_for(60, lambda: "adopted" in lab.vse("events").text and vms(lab) and all(v["state"] == "ready" for v in vms(lab)))
    tap.ok(r and [v.get("bound_to") for v in vms(lab)] == first, "an agent that follows knows which", vms(lab))
    r = lab.vse("migrate", "--json", "0", "--to", "n2", timeout=300)
    tap.ok(r.code == 0 and len(json.loads(r.out)) == 1, "one moves to the other's node", r)
    tap.ok([v["bound_to"] for v in vms(lab)] == [str(own[1]), str(own[0])] and kept(lab, "n2", own), "and gets the other CPU",
           vms(lab))
    r = lab.vse("down", timeout=60)
    left = lab.clean_within(10, ignore=["*/vse-cache-*", *labworld.KEPT])
    tap.ok(r.code == 0 and left == [], "down: nothing is left", r, left)


def main():
    labworld.skip_unless(ssh=True)
    tap = harness.Tap()
    own = sorted(os.sched_getaffinity(0))[:2]
    if len(own) < 2:
        print("1..0 # SKIP one CPU: there is nothing to choose")
        return 0
    os.sched_setaffinity(0, own)  # as an allocation: the lab's nodes have these two
    with labworld.real_lab(nodes=3, ssh=True) as (lab, why):
        if not lab:
            print("1..0 # SKIP " + why)
            return 0
        checks(tap, lab, "bb.yaml", own)
    return tap.done()


if __name__ == "__main__":
    sys.exit(main())
