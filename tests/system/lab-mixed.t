#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""One cluster over nodes that have different hypervisors: each takes what works there and is allowed, and those where
nothing fits are named."""
import json
import os
import shutil
import sys

sys.dont_write_bytecode = True
import harness  # noqa: E402
import labworld  # noqa: E402

CACHE = "*/vse-cache-*"  # files of images, kept on purpose (docs/staging.md)
ROOTS = "*/vse-roots-*"  # and what containers unpack of them
QEMU = "qemu-system-x86_64"
BWRAP = "bwrap"
HOSTS = ("--hosts", "n[1-3]")


def without(lab, node, program):
    """The program is not there on this node."""
    for folder in ("/usr/local/bin", "/usr/bin", "/usr/libexec"):
        path = os.path.join(folder, program)
        if os.path.exists(path):
            r = lab.call("mount", "--bind", "/dev/null", os.path.realpath(path), node=node, user=None)
            if r.code != 0:
                raise SystemExit("Bail out! %s on %s: %s" % (path, node, r.said))


def subordinate_ids(lab):
    """All nodes of a lab share /etc."""
    for name in ("subuid", "subgid"):
        lab.call("sh", "-c", "echo labuser:7200000:65536 >>/etc/" + name, node="n1", user=None)


def vms(lab):
    r = lab.vse("ps", "--json")
    clusters = json.loads(r.text)["clusters"]
    return {v["name"]: (v["node"], v["hypervisor"], v["accel"]) for v in clusters[0]["vms"]} if clusters else {}


def refused(tap, lab):
    """n1 has all, n2 no QEMU, n3 neither QEMU nor bubblewrap."""
    r = lab.vse("up", "-q", "-n", "3", *HOSTS, "vm.yaml", timeout=120)
    tap.ok(r.code == 1 and "2 of 3 nodes cannot run these VMs" in r.said, "protection: vm: two nodes are refused", r)
    tap.ok("n2: qemu: " in r.said and "n3: qemu: " in r.said and "n1" not in r.said.split("cannot")[1],
           "they are named, each with its reason, and no other", r)
    tap.ok("container" not in r.said, "a container is no answer to it", r)
    r = lab.vse("up", "-q", "-n", "2", "--hypervisor", "container", *HOSTS, "vm.yaml", timeout=120)
    tap.ok(r.code == 1 and "protection: vm" in r.said, "not even one that is asked for by name", r)
    r = lab.vse("up", "-q", "-n", "3", *HOSTS, "any.yaml", timeout=120)
    tap.ok(r.code == 1 and "1 of 3 nodes cannot run these VMs: n3: qemu: " in r.said and "container: program bwrap" in r.said,
           "protection: container: the node that has neither is refused, with both reasons", r)
    r = lab.vse("ps")
    tap.ok("vm0" not in r.text, "nothing was started", r)


def planned(tap, lab):
    r = lab.vse("up", "--dry-run", "-n", "4", "--missing", "go-on", "--oversubscribe", *HOSTS, "any.yaml", timeout=120)
    lines = {line.split()[1].rstrip(":"): line for line in r.text.splitlines() if line.startswith("node ")}
    tap.ok(r.code == 0 and set(lines) == {"n1", "n2", "n3"}, "--dry-run has all nodes", r)
    tap.ok("under qemu" in lines.get("n1", ""), "n1 would use QEMU", r)
    tap.ok("under container: qemu: " in lines.get("n2", ""), "n2 containers, since it has no QEMU", r)
    tap.ok("no VMs; refused: " in lines.get("n3", "") and "container: " in lines.get("n3", ""), "n3 is refused, and why", r)
    r = lab.vse("up", "--dry-run", "-n", "2", "--missing", "go-on", "--accel", "kvm", *HOSTS, "any.yaml", timeout=120)
    lines = {line.split()[1].rstrip(":"): line for line in r.text.splitlines() if line.startswith("node ")}
    tap.ok(r.code == 0 and "under container: qemu: " in lines.get("n1", "") and "under container" in lines.get("n2", ""),
           "--accel kvm: containers where QEMU would emulate; the word is not theirs", r)
    r = lab.vse("up", "--dry-run", "-n", "2", "--missing", "go-on", "--machine", "pvh", *HOSTS, "any.yaml", timeout=120)
    tap.ok(r.code == 0, "a machine type of Xen keeps no node from another hypervisor", r)


def runs(tap, lab):
    r = lab.vse("up", "-q", "-n", "4", "--missing", "go-on", "--oversubscribe", "--timeout", "8m", *HOSTS, "any.yaml", timeout=600)
    if not tap.ok(r.code == 0, "up: 4 VMs over a node with QEMU and one with containers only", r):
        return
    have = vms(lab)
    want = {"vm0": ("n1", "qemu"), "vm1": ("n1", "qemu"), "vm2": ("n2", "container"), "vm3": ("n2", "container")}
    tap.ok({k: v[:2] for k, v in have.items()} == want, "ps --json says what each runs under", have)
    r = lab.vse("ps")
    lines = [line.split() for line in r.text.splitlines()]
    tap.ok(lines[0][3] == "HYPERVISOR" and lines[1][3].startswith("qemu/") and lines[4][3] == "container", "and so does ps", r)
    r = lab.vse("exec", "hostname")
    tap.ok(r.code == 0 and all("vm%d" % i in r.text for i in range(4)), "exec in all of them", r)
    r = lab.vse("exec", "-r", "0", "ping", "-c", "1", "-W", "20", "vm3", timeout=60)
    tap.ok(r.code == 0, "a VM reaches a container on the cluster's network", r)
    r = lab.vse("exec", "-r", "3", "ping", "-c", "1", "-W", "20", "vm0", timeout=60)
    tap.ok(r.code == 0, "and a container a VM", r)
    r = lab.vse("exec", "-r", "0,2", "cat", "/proc/sys/kernel/random/boot_id")
    said = [line.split()[-1] for line in r.text.splitlines() if line.strip()]
    tap.ok(r.code == 0 and len(set(said)) == 2, "each on its own kernel or its node's", r)
    r = lab.vse("pause", "0-3", timeout=60)
    tap.ok(r.code == 0, "pause reaches both kinds", r)
    r = lab.vse("resume", "0-3", timeout=60)
    tap.ok(r.code == 0, "and resume", r)
    r = lab.vse("save", "-q", "--to", "/home/labuser/saved", timeout=120)
    tap.ok(r.code == 1 and "not supported" in r.said, "save: refused, since containers cannot be saved", r)
    r = lab.vse("events", timeout=60)
    tap.ok("n2: container: qemu: " in r.text and "n3: refused: " in r.text, "the events have each node's choice", r)
    r = lab.vse("down", timeout=60)
    left = lab.clean_within(15, ignore=[CACHE, ROOTS, "file *: /home/labuser/saved*", *labworld.KEPT])
    tap.ok(r.code == 0 and not left, "down, and nothing is left on any node", r, "\n".join(left[:20]))


def main():
    labworld.skip_unless(ssh=True)
    tap = harness.Tap()
    for program in (QEMU, BWRAP, "unsquashfs", "newuidmap"):
        if not shutil.which(program):
            print("1..0 # SKIP no " + program)
            return 0
    with labworld.real_lab(nodes=3, ssh=True, home="shared") as (lab, why):
        if not lab:
            print("1..0 # SKIP " + why)
            return 0
        text = (lab.home() / "bb.yaml").read_text()
        lab.write("vm.yaml", text + "protection: vm\n")
        lab.write("any.yaml", text + "protection: container\n")
        subordinate_ids(lab)
        for node, program in (("n2", QEMU), ("n3", QEMU), ("n3", BWRAP)):
            without(lab, node, program)
        lab.mark()
        refused(tap, lab)
        planned(tap, lab)
        runs(tap, lab)
    return tap.done()


if __name__ == "__main__":
    sys.exit(main())
