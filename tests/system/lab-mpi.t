#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""MPI across VMs of several nodes that have sshd and nothing else: agents and image travel, MPI's processes talk through
the tunnel. An ordinary user, no KVM. VSE_NIGHTLY: 16 VMs on 8 nodes."""
import json
import re
import shutil
import sys
import time

sys.dont_write_bytecode = True
import harness  # noqa: E402
import labworld  # noqa: E402

VMS, NODES = (16, 8) if harness.NIGHTLY else (4, 4)
EXAMPLE = harness.TOP / "examples/mpi.yaml"
CACHE = "*/vse-cache-*"  # files of images, kept on purpose (docs/staging.md)


def skip(why):
    print("1..0 # SKIP " + why)
    return 0


def build():
    """The example's image, in the store that the tests share; None, or why not."""
    if not shutil.which("qemu-system-x86_64"):
        return "qemu is not here"
    store = harness.shared_data()
    store.mkdir(parents=True, exist_ok=True)
    with harness.World() as world:
        built = world.vse("build", EXAMPLE, timeout=1800, env=dict(world.env, XDG_DATA_HOME=str(store)))
    return None if built.code == 0 else "the image cannot be built: " + (built.said.strip().splitlines() or ["?"])[-1]


def hello(tap, lab):
    begun = time.monotonic()
    r = lab.vse("exec", "-r", "0", "--", "mpirun", "--hostfile", "/etc/vse/hostfile", "hello", timeout=900)
    tap.note("mpirun took %.1f s" % (time.monotonic() - begun))
    want = {"hello from rank %d of %d on vm%d" % (i, VMS, i) for i in range(VMS)}
    tap.ok(r.code == 0 and set(r.text.splitlines()) == want, "MPI: a hello of every rank, each on its own VM", r)


def cached(lab, node):
    """Bytes of images that a node has got."""
    r = lab.call("sh", "-c", "cat /var/tmp/vse-cache-*/*/files/* | wc -c", node=node)
    return int(r.text) if re.fullmatch(r"\d+\n", r.text) else 0


def run(tap, lab):
    file = lab.write("mpi.yaml", EXAMPLE.read_text())
    hosts = ["--hosts", "n[1-%d]" % NODES]
    begun = time.monotonic()
    # The guests have less than the example asks for: there are many of them on one machine here.
    r = lab.vse("up", "-q", "--accel", "tcg", "-m", "256M", "-n", VMS, "--oversubscribe", "--timeout", "10m", *hosts, file,
                timeout=900)
    tap.note("%d VMs on %d nodes after %.1f s" % (VMS, NODES, time.monotonic() - begun))
    if not tap.ok(r.code == 0, "up: the image arrives on %d nodes, %d VMs boot" % (NODES, VMS), r):
        return
    s = json.loads(lab.vse("ps", "--json").out)["clusters"][0]
    tap.ok(sorted(v["node"] for v in s["vms"]) == sorted("n%d" % (1 + i * NODES // VMS) for i in range(VMS)) and
           all(v["state"] == "ready" for v in s["vms"]), "the VMs are spread over the nodes", s)
    sizes = [cached(lab, "n%d" % (i + 1)) for i in range(NODES)]
    tap.ok(min(sizes) > 1 << 20 and len(set(sizes)) == 1, "the image is on every node", sizes)
    hello(tap, lab)
    r = lab.vse("down", timeout=60)
    tap.ok(r.code == 0, "down", r)


def main():
    labworld.skip_unless(ssh=True)
    why = build()
    if why:
        return skip(why)
    tap = harness.Tap()
    with labworld.Lab(nodes=NODES, ssh=True, store=harness.shared_data() / "vse") as lab:
        lab.write("mpi.yaml", "")
        lab.mark()
        run(tap, lab)
        left = lab.clean_within(10, ignore=[CACHE, *labworld.KEPT])
        tap.ok(not left, "nothing is left on any node", "\n".join(left[:20]))
    return tap.done()


if __name__ == "__main__":
    sys.exit(main())
