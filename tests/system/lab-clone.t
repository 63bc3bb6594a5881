#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A template that one node keeps reaches others, which boot none; one that is damaged, cut off or gone is made anew there."""
import sys

sys.dont_write_bytecode = True
import harness  # noqa: E402
import labworld  # noqa: E402

CACHE = "*/vse-cache-*"  # kept on purpose (docs/staging.md, docs/cloning.md)
FOLDER = "/var/tmp/vse-cache-*/*/templates"
UP = ["up", "-q", "--clone", "--oversubscribe"]
# What must differ between any two VMs, over all nodes.
OWN = {"name": "hostname", "machine id": "cat /etc/machine-id", "boot id": "cat /proc/sys/kernel/random/boot_id",
       "MAC": "cat /sys/class/net/eth0/address", "stream of /dev/urandom": "head -c 4096 /dev/urandom | sha256sum"}


def sh(lab, node, script):
    return lab.call("sh", "-c", script, node=node)


def kept(lab, node):
    """Names of the templates that this node keeps."""
    return sh(lab, node, "cd %s 2>/dev/null && ls *.note 2>/dev/null" % FOLDER).text.split()


def await_kept(lab, node):
    """It is written behind the clones."""
    return labworld.wait_for(60, lambda: kept(lab, node))


def forget(lab, *nodes):
    for node in nodes:
        sh(lab, node, "rm -f %s/*" % FOLDER)


def up(tap, lab, what, hosts, n, said, file, *more):
    r = lab.vse(*UP, "-n", n, "--hosts", hosts, *more, file, timeout=300)
    # What a node tells of itself comes a little later.
    told = labworld.wait_for(10, lambda: all(word in lab.vse("events").text for word in said))
    return tap.ok(r.code == 0 and told, what, r, lab.vse("events"))


def apart(tap, lab, n):
    for what, command in OWN.items():
        said = [lab.vse("exec", "-r", rank, "sh", "-c", command, timeout=120).text.strip() for rank in range(n)]
        tap.ok(len(set(said)) == n and all(said), "no two VMs share the %s" % what, *said)


def round_trip(tap, lab, file, *more):
    """n1 makes one; n2 and n3 have it from there."""
    up(tap, lab, "n1 makes a template", "n1", 2, ["n1: VMs start from a template made now"], file, *more)
    tap.ok(await_kept(lab, "n1"), "and keeps it")
    lab.vse("down", timeout=60)
    up(tap, lab, "n2 and n3 have it from n1, and boot none", "n[1-3]", 6,
       ["n1: VMs start from a template of the cache", "n2: VMs start from a template of node n1",
        "n3: VMs start from a template of node n1"], file, *more)
    events = lab.vse("events").text
    tap.ok("made now" not in events, "none of them", events)
    tap.ok(kept(lab, "n2") == kept(lab, "n1") == kept(lab, "n3"), "and keep it, too", kept(lab, "n1"), kept(lab, "n2"), kept(lab, "n3"))


def slow(tap, lab, file, *more):
    forget(lab, "n2", "n3")
    lab.rate("400kbit", "n1")
    up(tap, lab, "nobody waits for a line that is too slow: n2 makes its own", "n2,n1", 2, ["n2: VMs start from a template made now"], file,
       "--place", "pack", *more)
    lab.rate("off", "n1")
    lab.vse("down", timeout=60)


def damaged(tap, lab, file, *more):
    sh(lab, "n1", "for f in %s/*.memory; do n=$(stat -c %%s $f); printf X | dd of=$f bs=1 seek=$((n / 2)) conv=notrunc; done 2>/dev/null" % FOLDER)
    forget(lab, "n2", "n3")
    up(tap, lab, "one that is damaged is refused: n2 makes its own", "n2,n1", 2, ["n2: VMs start from a template made now; that of node n1 was of no use"], file, "--place", "pack", *more)
    tap.ok(await_kept(lab, "n2"), "its own is kept")
    lab.vse("down", timeout=60)


def cut_off(tap, lab, file, *more):
    forget(lab, "n2", "n3")
    sh(lab, "n1", "for f in %s/*.memory; do truncate -s 20 $f; done" % FOLDER)
    up(tap, lab, "one that is cut off is refused too", "n2,n1", 2, ["n2: VMs start from a template made now; that of node n1 was of no use"], file, "--place", "pack", *more)
    lab.vse("down", timeout=60)


def fake(tap):
    with labworld.Lab(nodes=3, ssh=True, home="shared") as lab:
        file = lab.write("f.yaml", "vse: 1\nname: f\nbase: debian:bookworm\n")
        lab.mark()
        round_trip(tap, lab, file, "--hypervisor", "fake")
        r = lab.vse("exec", "hostname")
        tap.ok(r.code == 0 and all("vm%d" % n in r.text for n in range(6)), "the VMs are themselves", r)
        lab.vse("down", timeout=60)
        forget(lab, "n2", "n3")
        lab.cut("n1")
        up(tap, lab, "nobody waits for a node that is not of the cluster", "n[2-3]", 4, ["n2: VMs start from a template made now", "n3: VMs start from a template made now"],
           file, "--hypervisor", "fake")
        lab.vse("down", timeout=60)
        lab.heal("n1")
        cut_off(tap, lab, file, "--hypervisor", "fake")
        left = lab.clean_within(10, ignore=[CACHE, *labworld.KEPT])
        tap.ok(not left, "nothing is left on any node", "\n".join(left[:20]))


def real(tap):
    with labworld.real_lab(nodes=3, ssh=True, home="shared") as (lab, why):
        if not lab:
            tap.skip("with VMs of QEMU", why)
            return
        how = ["--accel", "tcg"]
        round_trip(tap, lab, "bb.yaml", *how)
        apart(tap, lab, 6)
        lab.vse("down", timeout=60)
        slow(tap, lab, "bb.yaml", *how)
        damaged(tap, lab, "bb.yaml", *how)
        cut_off(tap, lab, "bb.yaml", *how)


def main():
    labworld.skip_unless(ssh=True)
    tap = harness.Tap()
    fake(tap)
    real(tap)
    return tap.done()


if __name__ == "__main__":
    sys.exit(main())
