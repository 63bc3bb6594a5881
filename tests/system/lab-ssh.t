#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A cluster over many nodes that have sshd and nothing else: nothing of vse is on them before, and nothing after."""
import json
import sys
import time

sys.dont_write_bytecode = True
import harness  # noqa: E402
import labworld  # noqa: E402

NODES = 8
CACHE = "*/vse-cache-*"  # files of images, kept on purpose (docs/staging.md)
HOSTS = ["--hosts", "n[1-%d]" % NODES]


def status(lab):
    r = lab.vse("ps", "--json")
    clusters = json.loads(r.out)["clusters"] if r.code == 0 else []
    return clusters[0] if clusters else None


def nothing_left(tap, lab, what):
    left = lab.clean_within(10, ignore=[CACHE])
    tap.ok(not left, "nothing is left on any node " + what, "\n".join(left[:20]))


def fake(tap, lab):
    file = lab.write("f.yaml", "vse: 1\nname: f\nbase: debian:bookworm\n")
    args = ["--hypervisor", "fake"]
    begun = time.monotonic()
    r = lab.vse("up", *args, "-n", "16", *HOSTS, file, timeout=120)
    tap.note("16 fake VMs on %d nodes after %.1f s" % (NODES, time.monotonic() - begun))
    if not tap.ok(r.code == 0, "up: 16 VMs on %d nodes over ssh" % NODES, r):
        return
    s = status(lab)
    tap.ok(s and [v["state"] for v in s["vms"]] == ["ready"] * 16, "all are ready", s)
    tap.ok([v["node"] for v in s["vms"]] == ["n%d" % (1 + r // 2) for r in range(16)], "two a node, in order", s)
    r = lab.vse("exec", "--", "echo", "hello")
    tap.ok(r.code == 0 and r.text == "vm[0-15]: hello\n", "exec on all, folded", r)
    r = lab.vse("exec", "-r", "3,9", "--", "exit", "7")
    tap.ok(r.code == 7, "exit codes come back", r)
    r = lab.vse("exec", "-r", "5", "--", "cat", stdin=b"x" * 300000)
    tap.ok(r.out == b"x" * 300000, "stdin and stdout of one VM", r.code, len(r.out))
    r = lab.vse("pause", "4-6")
    tap.ok(r.code == 0 and [v["state"] for v in status(lab)["vms"]][3:8] == ["ready"] + ["paused"] * 3 + ["ready"],
           "pause of VMs on two nodes", r)
    r = lab.vse("resume", "4-6")
    tap.ok(r.code == 0, "resume", r)
    r = lab.vse("restart", "15")
    tap.ok(r.code == 0, "restart", r)
    r = lab.vse("stop", "0")
    tap.ok(r.code == 0 and status(lab)["vms"][0]["state"] == "stopped", "stop", r)
    r = lab.vse("exec", "-r", "0", "true")
    tap.ok(r.code == 1 and "vm0" in r.said, "exec on a VM that is stopped", r)
    r = lab.vse("up", *args, "-n", "2", *HOSTS, file)
    tap.ok(r.code == 1 and "runs already" in r.said, "the same name again", r)
    r = lab.vse("up", *args, "-n", "2", "--name", "g", "--hosts", "n[2-3]", "--place", "n3:2", file, timeout=60)
    tap.ok(r.code == 0, "a second cluster beside it, by a map", r)
    r = lab.vse("down", "g")
    tap.ok(r.code == 0, "down of the second", r)
    r = lab.vse("events", "-c", "f")
    tap.ok("vm15" in r.text and "n8 is up" in r.text, "events of nodes and VMs", r)
    r = lab.vse("down")
    tap.ok(r.code == 0, "down", r)
    nothing_left(tap, lab, "after down")
    r = lab.vse("up", *args, "-n", "16", "--hypervisor-arg", "hang=1", "--hypervisor-arg", "hang-rank=9", "--hung-after", "300ms",
                "--timeout", "1h", *HOSTS, file, timeout=60)
    tap.ok(r.code == 0 and "vm9: no sign of life" in r.said, "the next of the same name at once; a VM that hangs is started anew", r)
    line = "1 other of this node is ready: started anew (1 of 2)"
    tap.ok(labworld.wait_for(30, lambda: line in lab.vse("events").text), "and events tell so", lab.vse("events"))
    lab.vse("down")


def refusals(tap, lab):
    file = lab.write("f.yaml", "vse: 1\nname: f\nbase: debian:bookworm\n")

    def no(name, said, *args, code=1):
        r = lab.vse("up", "--hypervisor", "fake", *args, file, timeout=60)
        tap.ok(r.code == code and said in r.said, name, r)

    no("a host that is not there", "1 of 3 nodes did not come up: n99", "--hosts", "n1,n99,n2")
    no("a bad list", "n[1-", "--hosts", "n[1-", code=2)
    no("no such launcher", "nosuch", "--launcher", "nosuch", code=2)
    no("a map with a node that is not there", "no node 'n7'", "--hosts", "n[1-2]", "--place", "n7:1")
    no("too many VMs for the bound", "2 of 9 VMs fit", "-n", "9", "--max-per-node", "1", "--hosts", "n[1-2]")
    r = lab.vse("up", "--hypervisor", "fake", "-n", "2", "--hosts", "n1,n99,n2", "--missing", "go-on", file, timeout=60)
    tap.ok(r.code == 0, "--missing go-on does without the one that is not there", r)
    s = status(lab)
    tap.ok(s and sorted(v["node"] for v in s["vms"]) == ["n1", "n2"], "the VMs are on the others", s)
    lab.vse("down")
    nothing_left(tap, lab, "after refusals")


def real(tap, lab, name):
    """Real VMs: the image travels, they reach one another."""
    file = lab.write("bb.yaml", (lab.lab_root / "bb.yaml").read_text())
    begun = time.monotonic()
    r = lab.vse("up", "-q", "-n", "16", *HOSTS, file, timeout=300)
    tap.note("16 VMs on %d nodes after %.1f s" % (NODES, time.monotonic() - begun))
    if not tap.ok(r.code == 0, "up: 16 VMs of QEMU over ssh, " + name, r):
        return
    r = lab.vse("exec", "-r", "0,15", "--", "ping", "-c", "3", "-W", "5", "vm8", timeout=60)
    tap.ok(r.code == 0 and r.text.count("3 packets received") >= 1, "VMs of different nodes reach one another", r)
    blob = bytes(range(256)) * 4096
    path = lab.write("blob", blob)
    r = lab.vse("cp", "-q", path, "all:/tmp/", timeout=60)
    tap.ok(r.code == 0, "cp into all", r)
    r = lab.vse("exec", "--", "md5sum", "/tmp/blob")
    tap.ok(r.text.startswith("vm[0-15]: "), "the same bytes in all", r)
    r = lab.vse("logs", "vm13")
    tap.ok(r.code == 0 and len(r.out) > 100, "the console of a VM elsewhere", r)
    r = lab.vse("down")
    tap.ok(r.code == 0, "down", r)
    nothing_left(tap, lab, "after down of real VMs")


def main():
    labworld.skip_unless(ssh=True)
    tap = harness.Tap()
    with labworld.Lab(nodes=NODES, ssh=True) as lab:
        lab.write("f.yaml", "vse: 1\nname: f\nbase: debian:bookworm\n")
        lab.mark()
        fake(tap, lab)
        refusals(tap, lab)
    return tap.done()


if __name__ == "__main__":
    sys.exit(main())
