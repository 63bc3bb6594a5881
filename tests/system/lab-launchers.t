#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Launchers by themselves (tests/contract/launch-drive.c) on several nodes: ssh, where the agent travels and a node is
dead; real Slurm: a heterogeneous job, a part of a job, allocations of our own that wait, are given up, or lose us."""
import sys
import time

sys.dont_write_bytecode = True
import harness  # noqa: E402
import labworld  # noqa: E402

PROGRAMS = ("launch-drive", "launch-agent")
FOLDER = "/tmp/drive"


def within(seconds, condition):
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True


class Drive:
    """launch-drive on n0, its lines in a file; the end of its input ends it."""

    def __init__(self, lab, *args, before=()):
        self.lab, self.log = lab, lab.home() / "log"
        lab.call("mkdir", "-p", FOLDER)
        self.log.write_text("")
        self.process = lab.start(*before, "launch-drive", *args, "/opt/vse/bin/launch-agent", stdin=-1,
                                 stdout=self.log.open("w"), stderr=-2, env={"VSE_LAUNCH_DIR": FOLDER})

    def lines(self, begin):
        return [line for line in self.log.read_text().splitlines() if line.startswith(begin)]

    def waits(self, begin, count=1, seconds=60):
        within(seconds, lambda: len(self.lines(begin)) >= count)
        return self.lines(begin)

    def end(self):
        self.process.stdin.close()
        return self.process.wait(60)

    def __str__(self):
        return self.log.read_text()


def hello_nodes(drive, how):
    return sorted(w[1] for w in (line.split() for line in drive.lines("hello")) if w[2] == how)


def agents(lab):
    return [p for p in lab.processes() if p.program in ("launch-agent", "vse-agent")]  # where it was; as it travels


def jobs(lab):
    return lab.call("squeue", "-h", "-o", "%i %T").text


def over_ssh(tap, lab):
    d = Drive(lab, "--hosts", "n[1-4]", "--stage")
    tap.ok(len(d.waits("hello", 4)) == 4, "ssh: the agent travels to four nodes and runs there", d)
    tap.ok(len({p.node for p in agents(lab)} & {"n1", "n2", "n3", "n4"}) == 4, "one on each", agents(lab))
    files = [f for f in lab.leftovers() if "file" in f and "/vse-" in f]
    kept = [f for f in files if "/vse-cache-" in f]
    tap.ok(files == kept, "no copy is left in a folder", files)
    tap.ok(sum("/vse-agent-" in f for f in kept) == 4, "but the one for the next launch, in each node's cache", kept)
    tap.ok(d.end() == 0 and within(30, lambda: not agents(lab)), "all end with the launching", agents(lab))

    lab.off("n3")
    d = Drive(lab, "--hosts", "n[1-4]", "--stage", "--deadline", "20000")
    tap.ok(len(d.waits("hello", 3)) == 3, "ssh: a node is dead, three start", d)
    failed = d.waits("failed", 1)
    tap.ok(len(failed) == 1 and "n3" in failed[0], "and it is named, with the reason", failed)
    d.end()
    lab.boot("n3")


def over_slurm(tap, lab):
    job = ("salloc", "-N1", ":", "-N2")
    d = Drive(lab, before=job)
    d.waits("hello", 3)
    tap.ok(hello_nodes(d, "-") == [] and len(d.lines("hello")) == 3, "slurm: a heterogeneous job, all components", d)
    tap.ok(len({line.split()[1] for line in d.lines("hello")}) == 3, "each agent on another node", d)
    d.end()
    d = Drive(lab, "--pick", "0,2", before=("salloc", "-N3"))
    d.waits("hello", 2)
    tap.ok(len(hello_nodes(d, "stdin")) == 2, "slurm: a part of a job", d)
    d.end()

    d = Drive(lab, "--launcher", "slurm", "--nodes", "3")
    tap.ok(len(d.waits("hello", 3)) == 3, "slurm: an allocation of our own", d)
    for p in lab.processes("n0"):
        if p.program == "launch-drive":
            p.kill()
    tap.ok(within(30, lambda: not jobs(lab) and not agents(lab)), "its owner is killed: it is given back", jobs(lab))
    d.end()


def waiting(tap, lab):
    lab.call("sbatch", "--exclusive", "-N4", "--wrap", "sleep 600")
    tap.ok(within(30, lambda: "RUNNING" in jobs(lab)), "slurm: all nodes are taken", jobs(lab))
    d = Drive(lab, "--launcher", "slurm", "--nodes", "4", "--wait", "5000")
    tap.ok(d.waits("progress waiting for job"), "the job that waits is shown with its reason", d)
    tap.ok(d.waits("no nodes:") and "gave up job" in d.lines("no nodes:")[0], "and given up in time", d)
    d.end()
    tap.ok(within(30, lambda: "PENDING" not in jobs(lab)), "which takes the request back", jobs(lab))
    d = Drive(lab, "--launcher", "slurm", "--nodes", "4", "--arg", "--partition=nope")
    tap.ok(d.waits("no nodes:") and "nvalid partition" in d.lines("no nodes:")[0], "Slurm's own words tell a mistake", d)
    d.end()
    lab.call("scancel", "-u", "labuser")


def main():
    labworld.skip_unless(ssh=True, slurm=True)
    tap = harness.Tap()
    built = [("all", harness.BUILD / "tests/contract" / p, "/opt/vse/bin/" + p) for p in PROGRAMS]
    with labworld.Lab(nodes=4, ssh=True, slurm=True, tmp="shared", home="shared", vse=None, binds=built) as lab:
        over_ssh(tap, lab)
        tap.ok(within(60, lambda: "idle" == lab.call("sinfo", "-h", "-o", "%T").text.strip()), "all nodes are idle",
               lab.call("sinfo").text)
        over_slurm(tap, lab)
        waiting(tap, lab)
        lab.call("rm", "-rf", FOLDER)
    return tap.done()


sys.exit(main())
