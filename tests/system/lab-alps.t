#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A cluster in a reservation of Cray ALPS: the job's script runs on a service node, aprun starts the agents on the
compute nodes. aprun, apstat and the daemons behind them are STAND-INS (tests/fakes) from public text: nothing that
passes here was tested on ALPS."""
import json
import os
import signal
import sys

sys.dont_write_bytecode = True
import harness  # noqa: E402
import labworld  # noqa: E402

COMPUTE = ["n1", "n2", "n3", "n4"]
KEPT = ["*/vse-cache-*", "process*%s/mom*" % labworld.FAKES, "socket*:%04X*" % labworld.MOM_PORT]
UP = ["up", "--hypervisor", "fake", "-n", "8", "/home/labuser/f.yaml"]


class Job:
    """What the script of a job finds: the reservation by a variable, or by the number of its batch job alone."""

    def __init__(self, lab, by_variable):
        self.lab = lab
        self.env = {"PBS_JOBID": "138309.sdb", "STAND_IN_RESERVATION": "/home/labuser/reservation",
                    "STAND_IN_NODES": " ".join(COMPUTE), "STAND_IN_MOM_PORT": str(labworld.MOM_PORT),
                    "PATH": "/opt/vse/bin:%s:/usr/bin:/bin" % labworld.FAKES}
        if by_variable:
            self.env["BASIL_RESERVATION_ID"] = "2200"

    def vse(self, *args, **kw):
        return self.lab.vse(*args, env=self.env, **kw)


def nothing_left(tap, lab, what):
    left = lab.clean_within(12, ignore=KEPT)
    tap.ok(not left, "nothing is left on any node " + what, "\n".join(left[:20]))


def whole_life(tap, lab, job, how):
    r = job.vse(*UP)
    if not tap.ok(r.code == 0, "up in a reservation that is found by " + how, r):
        return
    n = json.loads(job.vse("nodes", "--json").out)
    tap.ok(n["launcher"] == "alps" and n["job"] == "2200", "the launcher and the reservation are told", n)
    tap.ok(sorted((x["name"], x["state"], x["vms"]) for x in n["nodes"]) == [(h, "up", 2) for h in COMPUTE],
           "two VMs on each node; the agents told their names", n)
    r = job.vse("exec", "--", "echo", "hello")
    tap.ok(r.code == 0 and r.text == "vm[0-7]: hello\n", "exec on all", r)
    r = job.vse("down")
    tap.ok(r.code == 0, "down", r)
    nothing_left(tap, lab, "after down")


def refusals(tap, lab, job):
    r = job.vse(*UP, "-N", "9")
    tap.ok(r.code == 1 and "9 nodes are wanted, there are 4" in r.said, "more nodes than are reserved", r)
    r = lab.vse(*UP, "--launcher", "alps")
    tap.ok(r.code == 1 and "in no reservation" in r.said, "no reservation", r)
    r = job.vse(*UP)
    again = job.vse(*UP, "--name", "g")
    tap.ok(r.code == 0 and again.code == 1 and "claim exceeds" in again.said,
           "a second cluster in the same reservation: aprun's words", again)
    job.vse("down")


def ends(tap, lab, job, what, act):
    """ALPS ends all of an application when one part of it dies, or aprun does."""
    r = job.vse(*UP)
    agents = [p for p in lab.processes(role="agent") if p.node != "n0"]
    aprun = [p for p in lab.processes("n0") if any(a.endswith("/aprun") for a in p.argv)]
    if not tap.ok(r.code == 0 and len(agents) == 4 and len(aprun) == 1, "a cluster runs", r, agents, aprun):
        return
    act(aprun[0], agents)
    nothing_left(tap, lab, "after " + what)


def main():
    labworld.skip_unless()
    tap = harness.Tap()
    binds = [("all", harness.TOP / "tests/fakes", labworld.FAKES)]
    with labworld.Lab(nodes=4, vse="all", home="shared", binds=binds) as lab:
        lab.write("f.yaml", "vse: 1\nname: f\nbase: debian:bookworm\n")
        lab.write("reservation", "2200 138309 4\n")
        lab.start_moms(COMPUTE)
        lab.mark()
        job = Job(lab, True)
        whole_life(tap, lab, job, "a variable")
        whole_life(tap, lab, Job(lab, False), "apstat")
        refusals(tap, lab, job)
        ends(tap, lab, job, "the end of the job (SIGTERM to aprun)", lambda aprun, _: os.kill(aprun.pid, signal.SIGTERM))
        ends(tap, lab, job, "SIGKILL of aprun", lambda aprun, _: aprun.kill())
        # What aprun started is the keeper: an agent that dies is followed by another, and nobody else hears of it.
        ends(tap, lab, job, "SIGKILL of one keeper", lambda _, agents: lab.kill(agents[2].node, "keeper"))
        ends(tap, lab, job, "SIGKILL of the root agent", lambda _, __: lab.kill("n0", "agent"))
    return tap.done()


if __name__ == "__main__":
    sys.exit(main())
