#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
# check: alone
"""MPI across the VMs of several nodes, as an ordinary user and without KVM, by every way onto nodes: ssh with nothing
installed on them (agents and image travel); real Slurm, inside salloc, inside sbatch and submitted by vse; STAND-INS of
TM and of aprun. Each rank says on which VM it is and checks what all others sent to it; each way leaves nothing.

That is 16 VMs on 8 nodes each time. VSE_MPI_WAYS="ssh tm": these alone."""
import json
import os
import re
import shutil
import sys
import time

sys.dont_write_bytecode = True
import harness  # noqa: E402
import labworld  # noqa: E402

VMS, NODES = 16, 8
COMPUTE = ["n%d" % i for i in range(1, NODES + 1)]
FILES = [harness.TOP / "examples" / name for name in ("mpi.yaml", "mpi-check.c")]
LIBRARY = harness.BUILD / "tests/contract/libtm-stand-in.so"
# Emulated, each component that Open MPI loads costs: no AVX, one way to write files, TCP alone, one set of collectives.
MPIRUN = ("mpirun --hostfile /etc/vse/hostfile --mca op ^avx --mca io romio321 --mca pml ob1 --mca btl tcp,self "
          "--mca coll basic,libnbc,tuned,self")
# Less memory than the examples ask for, and patience: all of this runs on the processors of one machine.
UP = "vse up -q --accel tcg -m 256M --timeout 15m --node-timeout 3m --lost-after 60s --give-up-after 3m"
KEPT = ["*/vse-cache-*", "*/out-sbatch", "process*%s/mom*" % labworld.FAKES, "socket*:%04X*" % labworld.MOM_PORT,
        *labworld.KEPT]
LIFE = """set -e
at() { echo "$1: $SECONDS s"; }
%s -n %d %s /home/labuser/mpi.yaml
at up
echo '<<'
vse ps --json
echo '>>'
vse exec -r 0 -- %s mpi-check
at MPI
vse exec -r 1 -- sh -c 'ssh -G vm0 | grep ^kex; sshd -T | grep ^maxst'
vse exec -- cut -d' ' -f2 /etc/ssh/ssh_host_ed25519_key.pub
vse down
at down"""
WAIT_S = 1100


def life(options=""):
    """The script of a user: the whole life of a cluster."""
    return LIFE % (UP, VMS, options, MPIRUN)


def build(tap):
    """The example's image, in the store that the tests share; None, or why not."""
    if not shutil.which("qemu-system-x86_64"):
        return "qemu is not here"
    store = harness.shared_data()
    store.mkdir(parents=True, exist_ok=True)
    with harness.World() as world:
        r = world.vse("build", FILES[0], timeout=900, env=dict(world.env, XDG_DATA_HOME=str(store)))
    tap.note("the image is there after %.0f s" % r.seconds)
    return None if r.code == 0 else "the image cannot be built: " + (r.said.strip().splitlines() or ["?"])[-1]


def place_of_vms(text):
    found = re.search(r"<<\n(.*)>>\n", text, re.S)
    return [v["node"] for c in json.loads(found[1])["clusters"] for v in c["vms"]] if found else []


def check(tap, lab, how, r, text=None):
    """r: the end of life(); text: what it printed, where not into r."""
    text = r.text if text is None else text
    want = {"rank %d of %d on vm%d: all numbers are right" % (i, VMS, i) for i in range(VMS)}
    ranks = [line for line in text.splitlines() if line.startswith("rank ")]
    tap.note("%s: %s" % (how, ", ".join(re.findall(r"^\w+: \d+ s$", text, re.M))))
    tap.ok(r.code == 0 and len(ranks) == VMS and set(ranks) == want,
           "%s: MPI across %d VMs, what each got from all is right" % (how, VMS), r, text)
    vms = place_of_vms(text)
    tap.ok(sorted(vms) == sorted(VMS // NODES * COMPUTE),
           "%s: as many VMs on each of %d nodes" % (how, NODES), vms)
    keys = re.findall(r"^vm\d+: (AAAA\S+)$", text, re.M)
    tap.ok(len(keys) == len(set(keys)) == VMS, how + ": each has an ssh host key of its own", keys)
    left = lab.clean_within(30, ignore=KEPT)
    tap.ok(not left, how + ": nothing is left on any node", "\n".join(left[:20]))


def cached(lab):
    """Bytes of images that each node has got."""
    sizes = [lab.call("sh", "-c", "cat /var/tmp/vse-cache-*/*/files/* 2>/dev/null | wc -c", node=n).text for n in COMPUTE]
    return [int(s) if s.strip().isdigit() else None for s in sizes]


def by_ssh(tap, lab):
    found = [n for n in COMPUTE if lab.call("sh", "-c", "command -v vse vse-agent", node=n).code == 0]
    tap.ok(not found and not any(cached(lab)), "ssh: the nodes have neither vse nor an image", found, cached(lab))
    r = lab.call("bash", "-c", life("--hosts n[1-%d]" % NODES), timeout=WAIT_S)
    check(tap, lab, "ssh", r)
    tap.ok("kexalgorithms curve25519-sha256" in r.text and "maxstartups 1000" in r.text,
           "ssh: inside the cluster it is set up for many starts at once", r.text)
    sizes = cached(lab)
    tap.ok(min(sizes) > 1 << 20 and len(set(sizes)) == 1, "ssh: the image went to every node", sizes)


def submitted(tap, lab):
    r = lab.call("bash", "-c", life("--clone --launcher slurm -N %d" % NODES), timeout=WAIT_S)
    check(tap, lab, "Slurm, submitted by vse", r)


def in_salloc(tap, lab):
    r = lab.call("salloc", "-N%d" % NODES, "--exclusive", "bash", "-c", life("--clone"), timeout=WAIT_S)
    check(tap, lab, "Slurm, inside salloc", r)


def in_sbatch(tap, lab):
    script = lab.write("job.sh", "#!/bin/bash\n%s\n" % life("--clone"))
    r = lab.call("sbatch", "--parsable", "-N%d" % NODES, "--exclusive", "-o", "/home/labuser/out-sbatch", script)
    job, until = r.text.strip(), time.monotonic() + WAIT_S
    while lab.call("squeue", "-h", "-j", job).text.strip() and time.monotonic() < until:
        time.sleep(0.5)
    r = lab.call("sh", "-c", "scontrol show job '%s' | grep JobState=COMPLETED" % job)
    out = lab.home() / "out-sbatch"
    check(tap, lab, "Slurm, inside sbatch", r, out.read_text() if out.exists() else "")


def stand_in(**more):
    return {"STAND_IN_ON_NODE": labworld.FAKES + "/on-node", "STAND_IN_MOM_PORT": str(labworld.MOM_PORT),
            "PATH": "/opt/vse/bin:%s:/usr/bin:/bin" % labworld.FAKES, **more}


def by_tm(tap, lab):
    """As a job of Torque has it: on the first node, started by the daemon there."""
    slots = "".join("%s\n%s\n" % (n, n) for n in COMPUTE)
    (lab.lab.root("n1") / "var/tmp/nodefile").write_text(slots)
    env = stand_in(PBS_ENVIRONMENT="PBS_BATCH", PBS_JOBID="17.n0", PBS_JOBCOOKIE="0F1E2D3C", PBS_TASKNUM="1",
                   PBS_NODENUM="0", PBS_NODEFILE="/var/tmp/nodefile", PBS_MOMPORT="15003", PBS_VERSION="TORQUE-6.1.3",
                   PBS_NUM_NODES=str(NODES), PBS_NUM_PPN="2", TM_LIBRARY="/opt/tm/lib.so")
    r = lab.call(labworld.FAKES + "/on-node", "go-on", "n1", "bash", "-c", life("--clone"), node="n1", env=env, timeout=WAIT_S)
    check(tap, lab, "TM (stand-in)", r)


def by_aprun(tap, lab):
    """As a job of ALPS has it: on a service node, inside a reservation."""
    lab.write("reservation", "2200 138309 %d\n" % NODES)
    env = stand_in(PBS_JOBID="138309.sdb", BASIL_RESERVATION_ID="2200", STAND_IN_RESERVATION="/home/labuser/reservation",
                   STAND_IN_NODES=" ".join(COMPUTE))
    check(tap, lab, "aprun (stand-in)", lab.call("bash", "-c", life("--clone"), env=env, timeout=WAIT_S))


BARE = {"ssh": by_ssh}
INSTALLED = {"vse": submitted, "salloc": in_salloc, "sbatch": in_sbatch, "tm": by_tm, "alps": by_aprun}


def ways(tap, which, **options):
    """The ways that go in one lab."""
    with labworld.Lab(nodes=NODES, store=harness.shared_data() / "vse", **options) as lab:
        for path in FILES:
            lab.write(path.name, path.read_bytes())
        for name in ("job.sh", "reservation"):
            lab.write(name, "")
        if "binds" in options:
            lab.start_moms(COMPUTE)
        lab.mark()
        for name, way in which.items():
            begun, cpu = time.monotonic(), lab.cpu()[0]
            way(tap, lab)
            tap.note("%s: %.0f s, %.0f s of CPU" % (name, time.monotonic() - begun, lab.cpu()[0] - cpu))


def main():
    labworld.skip_unless(ssh=True, slurm=True)
    wanted = os.environ.get("VSE_MPI_WAYS", "").split() or [*BARE, *INSTALLED]
    tap = harness.Tap()
    why = build(tap)
    if why:
        tap.skip("MPI", why)
        return tap.done()
    bare, installed = ({name: way for name, way in some.items() if name in wanted} for some in (BARE, INSTALLED))
    if bare:
        ways(tap, bare, ssh=True)
    if installed:
        binds = [("all", harness.TOP / "tests/fakes", labworld.FAKES), ("all", LIBRARY, "/opt/tm/lib.so")]
        ways(tap, installed, slurm=True, vse="all", home="shared", store_on="all", binds=binds)
    return tap.done()


if __name__ == "__main__":
    sys.exit(main())
