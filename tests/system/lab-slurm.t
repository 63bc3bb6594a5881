#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A cluster on the nodes of real Slurm: in an allocation that vse gets by itself, inside salloc, inside sbatch; and the
ends that Slurm makes: scancel, the end of the time."""
import json
import os
import signal
import subprocess
import sys
import time

sys.dont_write_bytecode = True
import harness  # noqa: E402
import labworld  # noqa: E402

NODES = 7
ALL = ["n%d" % i for i in range(NODES + 1)]
LIMITED = ["n5", "n6", "n7"]  # the nodes of the job whose time ends, while the other tests go on
OWN = ["--launcher", "slurm", "-N", "4", "--launcher-arg", "--exclude=n[5-7]"]
FAKE = ["--hypervisor", "fake"]
KEPT = ["*/vse-cache-*", "*/out-*", *labworld.KEPT]  # files of images, kept on purpose; what jobs printed
FILE = "/home/labuser/f.yaml"


def within(seconds, condition):
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True


def jobs(lab, *more):
    return lab.call("squeue", "-h", "-o", "%i %T", *more).text.split("\n")[:-1]


def read(lab, name):
    path = lab.home() / name
    return path.read_text() if path.exists() else ""


def nodes(lab, *args, node="n0"):
    r = lab.vse("nodes", "--json", *args, node=node)
    return json.loads(r.out) if r.code == 0 else {"nodes": [], "said": r.said}


def nothing_left(tap, lab, what, on=None, seconds=15):
    """`on`: look at these nodes alone, and not at the home that all share."""
    left = []

    def clean():
        del left[:]
        left.extend(line for line in lab.leftovers(ignore=KEPT)
                    if not on or any(word.rstrip(":") in on for word in line.split()[1:3]))
        return not left

    tap.ok(within(seconds, clean), "nothing is left on any node " + what, "\n".join(left[:20]))


def root_lost(tap, lab):
    """Allocations that vse made live as long as there is a root agent, or its reaper to start the next one."""
    rest = [n for n in ALL if n not in LIMITED]
    r = lab.vse("up", *FAKE, "-n", "6", *OWN[:3], "3", *OWN[4:], FILE)
    added = lab.vse("nodes", "add", "-N", "1", *OWN[4:])
    mine = jobs(lab, "-w", "n[1-4]")
    if not tap.ok(r.code == 0 and added.code == 0 and len(mine) == 2, "up in an allocation, a node added in another", r, added, mine):
        return
    job = nodes(lab).get("job")
    for what in ("root agent", "root agent that followed it"):
        killed = [p.pid for p in lab.kill("n0", "agent")]
        tap.ok(len(killed) == 1 and within(20, lambda: [p for p in lab.processes("n0", "agent") if p.pid not in killed]),
               "the %s is killed: another follows" % what, killed)
        tap.ok(within(20, lambda: lab.vse("exec", "--", "echo", "hello").text == "vm[0-5]: hello\n"), "all VMs answer",
               lab.vse("exec", "--", "echo", "hello"))
        n = nodes(lab)
        tap.ok(jobs(lab, "-w", "n[1-4]") == mine and n.get("job") == job and [x["state"] for x in n["nodes"]] == ["up"] * 4,
               "both allocations live on, and all nodes", jobs(lab), n)
    r = lab.vse("down")
    tap.ok(r.code == 0 and within(10, lambda: not jobs(lab, "-w", "n[1-4]")), "down gives both back", r, jobs(lab))
    nothing_left(tap, lab, "after down by a root that followed another", rest)

    r = lab.vse("up", *FAKE, "-n", "8", *OWN, FILE)
    found = lab.processes("n0", "agent")
    for p in found:
        os.kill(p.pid, signal.SIGSTOP)  # else it starts another reaper
    killed = lab.kill("n0", "reaper") + lab.kill("n0", "agent")
    tap.ok(r.code == 0 and len(killed) == 2, "root agent and reaper of the next are killed: nobody follows", r, killed)
    tap.ok(within(15, lambda: not jobs(lab, "-w", "n[1-4]")), "the allocation is given back all the same", jobs(lab))
    lab.vse("ps")  # sweeps the run directory
    nothing_left(tap, lab, "after SIGKILL of both", rest)


def submitted(tap, lab):
    rest = [n for n in ALL if n not in LIMITED]
    r = lab.vse("up", *FAKE, "-n", "8", *OWN, FILE)
    if not tap.ok(r.code == 0, "up: vse gets an allocation of four nodes by itself", r):
        return
    mine = [j.split()[0] for j in jobs(lab, "-w", "n1")]
    n = nodes(lab)
    tap.ok(n.get("launcher") == "slurm" and [n.get("job")] == mine, "nodes tells the launcher and the job", n, mine)
    tap.ok([(x["name"], x["state"], x["vms"]) for x in n["nodes"]] == [("n%d" % i, "up", 2) for i in range(1, 5)],
           "two VMs on each of its nodes", n)
    r = lab.vse("exec", "--", "echo", "hello")
    tap.ok(r.code == 0 and r.text == "vm[0-7]: hello\n", "exec on all", r)
    r = lab.vse("down")
    tap.ok(r.code == 0, "down", r)
    tap.ok(within(5, lambda: not jobs(lab, "-w", "n[1-4]")), "the allocation was given back", jobs(lab))
    nothing_left(tap, lab, "after down", rest)

    r = lab.vse("up", *FAKE, "-n", "6", *OWN[:3], "3", *OWN[4:], FILE)
    tap.ok(r.code == 0, "up on three nodes", r)
    lab.call("mount", "--bind", "/bin/false", "/opt/vse/bin/vse-agent", node="n4", user=None)
    r = lab.vse("nodes", "add", "-N", "1", *OWN[4:])
    tap.ok(r.code == 1 and "none was added: n4: " in r.said, "nodes add: one more node, whose agent does not come up", r)
    tap.ok(within(10, lambda: not jobs(lab, "-w", "n4")), "its allocation is given back while the cluster runs", jobs(lab))
    lab.call("umount", "/opt/vse/bin/vse-agent", node="n4", user=None)
    nothing_left(tap, lab, "of it", ["n4"])
    r = lab.vse("nodes", "add", "-N", "1", *OWN[4:])
    tap.ok(r.code == 0 and [x["state"] for x in nodes(lab)["nodes"]] == ["up"] * 4, "when it can, it is added", r, nodes(lab))
    lab.call("scancel", *[j.split()[0] for j in jobs(lab, "-w", "n[1-4]")])
    tap.ok(r.code == 0 and within(15, lambda: not lab.processes("n0", "agent")),
           "scancel from outside ends the cluster, its root agent too", r)
    nothing_left(tap, lab, "after scancel of the allocations of our own", rest)


def refused(tap, lab):
    r = lab.vse("up", *FAKE, *OWN, "--launcher-arg", "--partition=nosuch", FILE)
    tap.ok(r.code == 1 and "salloc: error: " in r.said and "nvalid partition" in r.said, "what Slurm refuses: salloc's words", r)
    r = lab.vse("up", *FAKE, "--launcher", "slurm", FILE)
    tap.ok(r.code != 0 and "number of nodes" in r.said, "no number of nodes", r)
    r = lab.vse("up", *FAKE, "--launcher", "slurm", "-N", "99", "--wait", "3s", FILE)
    tap.ok(r.code == 1 and "no nodes within 3" in r.said and "gave up job" in r.said and "(Partition" in r.said,
           "more nodes than there are: the reason, and no longer than --wait", r)
    tap.ok(within(5, lambda: not jobs(lab, "-t", "PD")), "the request was taken back", jobs(lab))


def in_salloc(tap, lab):
    script = "vse up %s -n 8 %s && vse nodes --json && vse exec -- echo hello && vse down" % (" ".join(FAKE), FILE)
    r = lab.call("salloc", "-N4", "--exclude=n[5-7]", "--exclusive", "bash", "-c", script)
    tap.ok(r.code == 0 and "vm[0-7]: hello\n" in r.text and '"launcher": "slurm"' in r.text,
           "inside salloc: up, nodes, exec, down", r)
    r = lab.call("salloc", "-N4", "--exclude=n[5-7]", "--exclusive", "bash", "-c",
                 "vse up %s -n 8 --start ssh %s && vse down" % (" ".join(FAKE), FILE))
    tap.ok(r.code == 0, "inside salloc, agents started by ssh", r)
    r = lab.call("salloc", "-N4", "--exclude=n[5-7]", "--exclusive", "bash", "-c",
                 "vse up %s -n 8 %s" % (" ".join(FAKE), FILE))
    tap.ok(r.code == 0 and within(15, lambda: not lab.processes("n0", "agent")),
           "the end of the job ends the cluster that was left in it", r)
    nothing_left(tap, lab, "after the end of the job", [n for n in ALL if n not in LIMITED])


def batch(lab, out, options, script):
    lab.write("job.sh", "#!/bin/bash\n%s\n" % script)
    return lab.call("sbatch", "--parsable", "-o", "/home/labuser/out-" + out, *options, "/home/labuser/job.sh")


def in_sbatch(tap, lab):
    there = ["-N4", "--exclude=n[5-7]", "--exclusive"]
    up = "vse up %s -n 8 %s && vse exec -- echo hello" % (" ".join(FAKE), FILE)
    r = batch(lab, "a", there + ["-W"], up + " && vse down && echo done")
    tap.ok(r.code == 0 and "vm[0-7]: hello\ndone\n" in read(lab, "out-a"), "inside sbatch: up, exec, down", r,
           read(lab, "out-a"))
    batch(lab, "b", there, up + " && exec sleep 60")
    tap.ok(within(20, lambda: "hello" in read(lab, "out-b")), "a cluster in a batch job", read(lab, "out-b"))
    job = nodes(lab, node="n1").get("job")
    lab.call("scancel", job or "0")
    tap.ok(job and within(20, lambda: not jobs(lab, "-w", "n[1-4]")), "scancel", job, jobs(lab))
    nothing_left(tap, lab, "after scancel of the batch job", [n for n in ALL if n not in LIMITED])
    r = batch(lab, "c", there + ["-W"], up)
    tap.ok(r.code == 0, "a batch script that ends without down", r, read(lab, "out-c"))
    nothing_left(tap, lab, "after the end of the batch script", [n for n in ALL if n not in LIMITED])


def begin_limited(lab):
    """Slurm looks at the times of jobs every 30 s: this one's ends while the other tests go on."""
    batch(lab, "limited", ["-N3", "-w", "n[5-7]", "--exclusive", "--time=10"],
          "vse up %s --name limited -n 6 %s && exec sleep 600" % (" ".join(FAKE), FILE))
    within(20, lambda: "ready" in read(lab, "out-limited"))
    job = nodes(lab, node="n5").get("job", "0")
    return job, lab.call("scontrol", "update", "JobId=" + job, "EndTime=now+1", user=None)


def end_limited(tap, lab, job, r):
    tap.ok(r.code == 0 and job != "0", "a job with a cluster whose time ends", r, read(lab, "out-limited"))
    tap.ok(within(60, lambda: not jobs(lab, "-j", job, "-t", "R,CG")), "its time ends", jobs(lab))
    tap.ok("TIME LIMIT" in read(lab, "out-limited"), "by its limit", read(lab, "out-limited"))


def main():
    labworld.skip_unless(ssh=True, slurm=True)
    tap = harness.Tap()
    with labworld.Lab(nodes=NODES, ssh=True, slurm=True, vse="all", home="shared") as lab:
        lab.write("f.yaml", "vse: 1\nname: f\nbase: debian:bookworm\n")
        lab.write("job.sh", "")
        lab.mark()
        job, r = begin_limited(lab)
        submitted(tap, lab)
        root_lost(tap, lab)
        refused(tap, lab)
        in_salloc(tap, lab)
        in_sbatch(tap, lab)
        end_limited(tap, lab, job, r)
        nothing_left(tap, lab, "at the end")
    return tap.done()


if __name__ == "__main__":
    sys.exit(main())
