#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Chaos over several nodes: power cuts, cut links, SIGKILL of agents, reapers and front ends, jobs that are ended,
at a random moment of up, exec, cp, staging and down, over ssh and on Slurm.

After each: VMs of nodes that live have run on, also where the agent was killed, and answer within a bound; the dead
nodes are named, and only they; no command reports a success that it did not have, and none hangs; no VM is on two
nodes; and in the end no process, mount, socket or file of ours is on any node that is on.
  VSE_CHAOS_ROUNDS=N     rounds (12; 100 in a nightly run)
  VSE_CHAOS_SEED=S       the same rounds again; VSE_CHAOS_ONLY=I[,J...]: only these of them
  VSE_CHAOS_ON=ssh|slurm|real   only on these
Each round draws from its own generator, so that one of them can be repeated alone.
"""
import json
import os
import random
import re
import shutil
import signal
import sys
import time
from collections import Counter

sys.dont_write_bytecode = True
import harness  # noqa: E402
import labworld  # noqa: E402

FANOUT, EXEC_S = 2, 3
CACHE = "*/vse-cache-*"   # files of images, kept on purpose
FAKE = ["--hypervisor", "fake", "--hypervisor-arg", "boot=40ms"]

NODE_FAULTS = ["off", "off and boot", "cut", "cut short", "cut and heal", "kill inner", "kill leaf", "kill reaper",
               "kill agent and reaper", "kill two", "kill keeper", "kill all of a node", "off two"]
ROOT_FAULTS = ["kill root", "kill root reaper", "cut root", "kill root and reaper", "kill root and inner"]
FAULTS = {
    "up": NODE_FAULTS + ["kill root", "kill root and reaper", "front end", "front end", "cut root"],
    "exec": NODE_FAULTS + ROOT_FAULTS + ["front end"],
    "cp": NODE_FAULTS + ROOT_FAULTS + ["front end"],
    "rest": NODE_FAULTS + ROOT_FAULTS,
    "down": ["off", "cut", "kill inner", "kill leaf", "kill reaper", "kill root", "kill root and reaper", "front end",
             "front end", "cut and heal"],
}
JOB_FAULTS = ["scancel", "scancel", "walltime"]


class Failed(Exception):
    pass


def expect(good, what, *details):
    if not good:
        raise Failed("\n".join([what] + [str(d) for d in details]))


def ranks_in(text):
    """All VMs that a message names: vm3, vm[0-2,7]."""
    found = set()
    for part in re.findall(r"\bvm\[([0-9,-]+)\]|\bvm(\d+)", text):
        for item in (part[0] or part[1]).split(","):
            first, _, last = item.partition("-")
            found.update(range(int(first), int(last or first) + 1))
    return found


class Site:
    """A lab, and how clusters are started in it."""

    def __init__(self, kind, nodes):
        self.kind, self.nodes = kind, nodes
        self.names = ["n%d" % i for i in range(1, nodes + 1)]
        # Guests that are emulated leave the agents little of the processor, and so do tests that run beside this one.
        self.lost_s, self.give_up_s = (4, 16) if kind == "real" else (1, 6) if harness.NIGHTLY else (3, 10)
        self.answer_s = self.lost_s + 7  # everything that lives answers, on a busy machine
        self.empty_s = self.give_up_s + 8  # whoever was cut off has ended
        if kind == "slurm":
            self.why = None
            self.lab = labworld.Lab(nodes=nodes, slurm=True, home="shared", vse="all")
            self.where = ["--launcher", "slurm", "-N", str(nodes)]
        else:
            self.world, file, self.why = harness.real_world() if kind == "real" else (None, None, None)
            more = {}
            if self.world:
                more = {"store": harness.shared_data() / "vse", "binds": [("n0", self.world.dir / "root", "/opt/root")]}
            self.lab = labworld.Lab(nodes=nodes, ssh=True, **more)
            self.where = ["--hosts", "n[1-%d]" % nodes]
        self.size = nodes if kind == "real" else 2 * nodes
        self.took = {"up": 0.6 if kind == "slurm" else 4.0, "cp": 0.5, "down": 0.3}
        self.touched = set()  # nodes that were off or cut: the kernel's sockets towards them end when it likes
        self.payload = self.lab.write("payload", os.urandom(1 << 20))
        self.lab.write("f.yaml", "vse: 1\nname: f\nbase: debian:bookworm\n")
        if kind == "real" and not self.why:
            self.real(file)

    def real(self, file):
        """The root that the image was built of lies at the same place on n0: then the image there is known to be it."""
        self.lab.write("bb.yaml", file.read_text())
        r = self.lab.call("sh", "-c", "mkdir -p %s && ln -s /opt/root %s" % (self.world.dir, self.world.dir), user=None)
        expect(r.code == 0, "the root cannot be shown to n0", r)
        self.took["up"] = 20.0
        self.lab.rate("40mbit")

    def close(self):
        self.lab.close()
        if getattr(self, "world", None):
            self.world.close()

    def below(self, node):
        """The node and all below it in the arithmetic of the tree."""
        i = int(node[1:])
        found, look = set(), [i]
        while look:
            at = look.pop()
            if at <= self.nodes:
                found.add("n%d" % at)
                look += [at * FANOUT + c for c in range(1, FANOUT + 1)]
        return found

    def inner(self):
        return [n for n in self.names if len(self.below(n)) > 1]

    def leaves(self):
        return [n for n in self.names if len(self.below(n)) == 1]

    def agents(self, node):
        return self.lab.processes(node, "agent")

    def place(self, cluster):
        """rank -> the nodes that are on, whose agent lives, and that have a folder of this VM."""
        found = {}
        for node in [n for n in self.lab.nodes() if n != "n0"]:
            if not self.agents(node):
                continue
            top = self.lab.lab.root(node) / "tmp" / ("vse-%d" % self.lab.uids["labuser"]) / (cluster + "@" + node)
            try:
                here = [int(e[2:]) for e in os.listdir(top) if e.startswith("vm")]
            except OSError:
                continue
            for rank in here:
                found.setdefault(rank, []).append(node)
        return found

    def ignored(self):
        found = [CACHE, *labworld.KEPT]
        for node in self.touched:
            i = int(node[1:])
            address = "%02X004D0A" % (i + 10 if i else 1)
            found += ["socket *: tcp* to *%s:*" % address, "socket %s: tcp*" % node]
        if self.touched:  # the system's own, which waits for a client that lost power
            found.append("process * uid * sshd*: sshd: *")
        return found

    def left(self, seconds, also=()):
        return self.lab.clean_within(seconds, ignore=self.ignored() + list(also))

    def hanging(self):
        """What the processes that are left wait for."""
        found = []
        for p in self.lab.processes():
            try:
                folder = "/proc/%d/fd" % p.pid
                files = [os.readlink(os.path.join(folder, f)) for f in os.listdir(folder)]
                with open("/proc/%d/syscall" % p.pid) as f:
                    found.append("%s: system call %s, files %s" % (p, f.read().split()[0], " ".join(files)))
            except OSError:
                pass
        return "\n".join(found)

    def repair(self):
        on = set(self.lab.nodes())
        for node in ["n0"] + self.names:
            if node not in on:
                self.lab.boot(node)
            self.lab.heal(node)
        if self.kind == "slurm":
            self.repair_slurm()

    def repair_slurm(self):
        lab = self.lab
        until = time.monotonic() + 60
        while time.monotonic() < until:
            states = lab.call("sinfo", "-h", "-N", "-o", "%T").text.split()
            if states and set(states) == {"idle"}:
                return
            if any("down" in s or "drain" in s for s in states):
                lab.call("scontrol", "update", "nodename=n[1-%d]" % self.nodes, "state=resume", user=None)
            time.sleep(0.5)
        raise Failed("Slurm's nodes do not come back: %s" % states)


class Round:
    def __init__(self, site, number, rng):
        self.site, self.lab, self.rng, self.number = site, site.lab, rng, number
        self.cluster = "c%d" % number
        self.recover = rng.random() < 0.4
        self.go_on = rng.random() < 0.5
        self.dead, self.flaky = set(), set()  # nodes whose agent is gone for good; that were cut, for a time
        self.killed = set()  # whose agent is followed by another, which adopts their VMs
        self.root_gone = self.root_hit = self.whole = False  # whole: the job was ended
        self.fault = ""
        self.boots = []
        self.heal_at = {}
        self.before = None
        self.slow = 0

    # ---- what is asked ----

    def up_argv(self):
        argv = ["up", "-q", "-n", str(self.site.size), "--name", self.cluster, "--fanout", str(FANOUT), "--lost-after",
                "%ds" % self.site.lost_s, "--give-up-after", "%ds" % self.site.give_up_s, "--node-timeout",
                "15s"] + self.site.where
        if self.site.kind == "real":
            return argv + ["--accel", "tcg", "--oversubscribe", "bb.yaml"]
        argv += FAKE + (["--recover"] if self.recover else []) + (["--missing", "go-on"] if self.go_on else [])
        return argv + ["f.yaml"]

    def up(self):
        r = self.lab.vse(*self.up_argv(), timeout=120)
        expect(r.code == 0, "up fails with nobody hurt", r)
        self.site.took["up"] = r.seconds

    def status(self):
        r = self.lab.vse("ps", "--json", timeout=15)
        expect(r.code is not None, "ps hangs", r)
        if r.code:
            return None
        found = [c for c in json.loads(r.out)["clusters"] if c["name"] == self.cluster]
        return found[0] if found else None

    def start(self, phase):
        argv = {"up": self.up_argv(), "exec": ["exec", "-c", self.cluster, "--", "sleep", "%ds" % EXEC_S],
                "cp": ["cp", "-q", "-c", self.cluster, self.site.payload, "all:/tmp/"],
                "down": ["down", self.cluster]}[phase]
        return self.lab.start("vse", *argv, stdout=-1, stderr=-1)

    # ---- faults ----

    def off(self, node):
        self.lab.off(node)
        self.dead.add(node)
        self.boots.append(node)
        self.site.touched.add(node)

    def cut(self, node, seconds):
        """None: until the end of the round."""
        self.lab.cut(node)
        self.flaky.add(node)
        self.site.touched.add(node)
        if seconds is not None:
            self.heal_at[node] = time.monotonic() + seconds

    def heal_due(self):
        for node, when in list(self.heal_at.items()):
            if time.monotonic() >= when:
                self.lab.heal(node)
                del self.heal_at[node]

    def kill(self, node, role="agent"):
        hit = self.lab.kill(node, role)
        if role == "agent" and hit:
            self.killed.add(node)
        if role == "keeper" and hit:
            self.dead.add(node)
            if self.site.kind == "slurm":
                self.boots.append(node)  # slurmstepd ends the others with the task that they belong to
        return hit

    def kill_root(self, reaper):
        self.root_hit = True
        if self.site.kind == "slurm" and reaper:
            self.whole = True  # the allocation is the two's, and ends with them
        if reaper:
            self.root_gone = True
            self.lab.kill("n0", "reaper")
        self.lab.kill("n0", "agent")
        if reaper:
            self.lab.kill("n0", "reaper")  # a new one

    def hurt(self, fault, front):
        rng, site = self.rng, self.site
        victim = rng.choice(site.names)
        two = rng.sample(site.names, 2)
        cut_s = {"cut": None, "cut short": rng.uniform(0.1, 0.5),
                 "cut and heal": rng.uniform(1.5, 1.6 * site.give_up_s),
                 "cut root": rng.uniform(0.5, site.give_up_s - 3)}
        said = victim
        if fault in ("off", "off and boot"):
            self.off(victim)
            if fault == "off and boot":
                self.lab.boot(victim)
                if site.kind == "slurm":  # which then ends the step on all nodes, by SIGKILL
                    self.whole = True
                    self.boots = list(site.names)
        elif fault == "off two":
            for node in two:
                self.off(node)
        elif fault in ("cut", "cut short", "cut and heal"):
            self.cut(victim, cut_s[fault])
            said = "%s for %s" % (victim, "ever" if cut_s[fault] is None else "%.1f s" % cut_s[fault])
        elif fault == "cut root":
            self.lab.cut("n0")
            self.root_hit = True
            site.touched.add("n0")
            self.heal_at["n0"] = time.monotonic() + cut_s[fault]
            said = "for %.1f s" % cut_s[fault]
        elif fault in ("kill inner", "kill leaf"):
            said = rng.choice(site.inner() if fault == "kill inner" else site.leaves())
            self.kill(said)
        elif fault == "kill two":
            said = " ".join(two)
            for node in two:
                self.kill(node)
        elif fault == "kill reaper":
            self.kill(victim, "reaper")
        elif fault == "kill agent and reaper":
            self.kill(victim, "reaper")
            self.kill(victim)
        elif fault == "kill keeper":
            self.kill(victim, "keeper")
        elif fault == "kill all of a node":
            for role in ("keeper", "reaper", "agent", "reaper"):
                self.kill(victim, role)
            self.boots.append(victim)  # nobody is left there to clean up
        elif fault in ("kill root", "kill root and reaper"):
            self.kill_root(fault == "kill root and reaper")
            said = ""
        elif fault == "kill root reaper":
            self.lab.kill("n0", "reaper")
            said = ""
        elif fault == "kill root and inner":
            said = rng.choice(site.inner())
            self.kill(said)
            self.kill_root(False)
        elif fault == "front end":
            try:
                os.kill(self.lab.inner(front), signal.SIGKILL)
                said = ""
            except (OSError, IndexError):
                said = "that had ended"
        elif fault in ("scancel", "walltime"):
            said = self.end_job(fault)
        self.fault = "%s %s" % (fault, said)

    def end_job(self, how):
        jobs = self.lab.call("squeue", "-h", "-o", "%i").text.split()
        if not jobs:
            return "no job"
        self.whole = True
        if how == "scancel":
            self.lab.call("scancel", *jobs)
        else:
            r = self.lab.call("scontrol", "update", "jobid=" + jobs[0], "EndTime=now+1second", user=None)
            expect(r.code == 0, "the job's end cannot be set", r)
        return " ".join(jobs)

    # ---- what must hold ----

    def no_twins(self):
        twins = {r: nodes for r, nodes in self.site.place(self.cluster).items() if len(nodes) > 1}
        expect(not twins, "VMs are on two nodes at once", twins)

    def wait(self, front, seconds, what):
        """The command ends within that time; what is due meanwhile is done."""
        until = time.monotonic() + seconds
        while front.poll() is None:
            self.heal_due()
            if time.monotonic() > until:
                front.kill()
                raise Failed("%s has not ended after %.0f s" % (what, seconds))
            time.sleep(0.02)
        out, err = front.communicate()
        return front.returncode, out.decode("utf-8", "replace"), err.decode("utf-8", "replace")

    def why_not_settled(self, s):
        if not s:
            return "the cluster is not there"
        if s["phase"] != "up":
            return "the cluster is %s" % s["phase"]
        names = set(self.site.names)
        states = {n["name"]: n["state"] for n in s["nodes"]}
        for node in names - self.dead - self.flaky:
            # While agents start, those below one that was hurt may not have been started at all.
            if states.get(node) != "up" and not (self.before is None and self.go_on and node in self.below_hurt()):
                return "node %s lives and is %s" % (node, states.get(node))
        for node in self.dead:
            if self.before is None and "boot" in self.fault:
                continue  # it may have been on again before its agent was to be started
            if states.get(node) != "lost":
                return "node %s is dead and is %s" % (node, states.get(node))
        for node in self.flaky:
            if self.before is None and self.go_on and states.get(node) == "lost":
                continue  # it was given up while it was cut
            cut = node not in self.heal_at and self.fault.startswith("cut n") and self.fault.endswith("ever")
            if states.get(node) != ("lost" if cut else "up"):
                return "node %s was cut and is %s" % (node, states.get(node))
        for vm in s["vms"]:
            if vm["node"] not in self.dead | self.flaky and vm["state"] != "ready":
                return "vm%d on %s, which lives, is %s: %s" % (vm["rank"], vm["node"], vm["state"], vm["reason"])
        return None

    def below_hurt(self):
        return set().union(*[self.site.below(n) for n in self.dead | self.flaky | self.killed]) | (
            set(self.site.names) if self.root_hit else set())

    def ran_on(self, s):
        """No VM of a node that lives has begun anew."""
        if not self.before:
            return
        when, old = self.before
        was = {vm["rank"]: vm for vm in old["vms"]}
        for vm in s["vms"]:
            node = was[vm["rank"]]["node"]
            if node in self.dead | self.flaky:
                continue
            expect(vm["node"] == node, "vm%d has moved from %s, which lives, to %s" % (vm["rank"], node, vm["node"]))
            least = was[vm["rank"]]["uptime_ms"] + (time.monotonic() - when) * 1000 - 3000
            expect(vm["uptime_ms"] >= max(least, was[vm["rank"]]["uptime_ms"]),
                   "vm%d on %s, which lives, has begun anew" % (vm["rank"], node), was[vm["rank"]], vm)

    def settle(self):
        """Until the cluster is as it should be; the status then."""
        begun = time.monotonic()
        due = max([begun] + list(self.heal_at.values())) + self.site.answer_s
        while True:
            self.heal_due()
            self.no_twins()
            s = self.status()
            why = self.why_not_settled(s)
            if not why:
                break
            expect(time.monotonic() < due, "after %.0f s: %s" % (time.monotonic() - begun, why), brief(s))
            time.sleep(0.2)
        self.slow = max(self.slow, time.monotonic() - begun)
        self.ran_on(s)
        return s

    def answers(self, s):
        ready = [vm["rank"] for vm in s["vms"] if vm["state"] == "ready" and
                 vm["node"] not in self.dead | self.flaky]
        if not ready:
            return
        names = ",".join(map(str, ready))
        r = self.lab.vse("exec", "-c", self.cluster, "-r", names, "--", "hostname", timeout=30)
        heard = ranks_in(r.text)
        if len(ready) > 1:
            expect(r.code == 0 and heard >= set(ready), "VMs of nodes that live do not answer", r)
        else:
            expect(r.code == 0, "the VM of the node that lives does not answer", r)
        gone = [vm["rank"] for vm in s["vms"] if vm["state"] == "lost"]
        if gone:
            r = self.lab.vse("exec", "-c", self.cluster, "--", "true", timeout=30)
            expect(r.code != 0 and ranks_in(r.said) >= set(gone), "exec does not name the lost VMs", r, gone)
            expect(not ranks_in(r.said) & set(ready), "exec names VMs that live", r)

    def recovered(self):
        """Every VM is ready again, on a node that lives."""
        if not self.recover or self.site.kind == "real":
            return
        until = time.monotonic() + self.site.give_up_s + 3 * self.site.lost_s + self.site.answer_s
        while True:
            self.no_twins()
            s = self.status()
            bad = [vm for vm in s["vms"] if vm["state"] != "ready" or vm["node"] in self.dead] if s else ["no cluster"]
            if not bad:
                break
            expect(time.monotonic() < until, "VMs of lost nodes are not started anew", bad, brief(s))
            time.sleep(0.3)
        self.ran_on(s)
        self.answers(s)

    def ended(self, phase, code, out, said, delay):
        """The command's own word."""
        if self.fault.startswith("front end"):
            return
        if code:
            expect(said.strip(), "%s fails without a reason" % phase)
        named = ranks_in(said)
        if phase == "exec" and not self.root_hit and not self.whole:
            hit = {vm["rank"] for vm in self.before[1]["vms"] if vm["node"] in self.dead | self.killed}
            if hit and delay < EXEC_S - 1:
                expect(code != 0 and named >= hit, "exec does not name the VMs whose agent died", sorted(hit), code, said)
            allowed = {vm["rank"] for vm in self.before[1]["vms"] if vm["node"] in self.below_hurt()}
            expect(named <= allowed, "exec names VMs that no dead node had to do with", sorted(allowed), said)
            expect(code == 0 or named, "exec fails and names none", said)
            expect("interrupted" not in said, "nobody interrupted it", said)

    def down(self):
        """Once and for all."""
        until = time.monotonic() + self.site.answer_s
        while True:
            r = self.lab.vse("down", self.cluster, timeout=30)
            expect(r.code is not None, "down hangs", r)
            if r.code == 0 or "no cluster" in r.said:
                break
            expect(time.monotonic() < until, "down fails", r)
            time.sleep(0.3)
        expect(self.status() is None, "the cluster is there after down")

    def empty(self):
        disks = ["file %s: *" % n for n in self.boots]
        left = self.site.left(self.site.empty_s, disks)
        expect(not left, "left", "\n".join(left[:20]), self.site.hanging())

    def swept(self):
        """What is on the disks of nodes that lost power is swept by the next agent there."""
        self.site.repair()
        if self.boots and self.site.left(0):
            self.cluster += "b"
            self.up()
            self.down()
        left = self.site.left(5)
        expect(not left, "left once all nodes are on again", "\n".join(left[:20]), self.site.hanging())

    # ---- the round ----

    def play(self):
        rng, site = self.rng, self.site
        phase = "up" if site.kind == "real" else rng.choice(list(FAULTS))
        faults = FAULTS[phase] + (JOB_FAULTS if site.kind == "slurm" and phase in ("exec", "rest") else [])
        fault = rng.choice(faults)
        self.name = "%s, %s%s" % (phase, fault, ", recover" if self.recover else "")
        if phase != "up":
            self.up()
            self.settle()
            self.before = (time.monotonic(), self.status())
        front, delay = None, 0
        if phase != "rest":
            front = self.start(phase)
            delay = rng.uniform(0, EXEC_S if phase == "exec" else site.took[phase])
            time.sleep(delay)
        self.hurt(fault, front)
        self.name += ": %s after %.2f s" % (self.fault, delay)
        code = None
        if front:
            longest = {"up": 15 + 3, "exec": EXEC_S, "cp": 1, "down": 12}[phase] + self.site.answer_s
            longest += max([0] + [t - time.monotonic() for t in self.heal_at.values()])
            if site.kind == "real":
                longest += 120
            code, out, said = self.wait(front, longest, phase)
            self.ended(phase, code, out, said, delay)
        self.judge(phase, code, said if front else "")
        self.empty()
        self.swept()

    def judge(self, phase, code, said):
        if self.whole:
            self.job_over()
        elif self.root_gone:
            self.lab.vse("ps")  # sweeps what the root has left
        elif phase == "up":
            self.after_up(code, said)
        elif phase == "down":
            if code == 0:
                expect(self.status() is None, "down was done, and the cluster is there")
        else:
            s = self.settle()
            self.answers(s)
            if not self.fault.endswith("ever"):
                self.recovered()
        while self.heal_at:
            self.heal_due()
            time.sleep(0.05)
        self.down()

    def after_up(self, code, said):
        if self.fault.startswith("front end") or self.root_hit:
            until = time.monotonic() + self.site.answer_s
            s = self.status()
            while s and s["phase"] != "up" and time.monotonic() < until:
                time.sleep(0.2)
                s = self.status()
            if not s:
                return
        elif code != 0:
            expect("vse up: " in said, "up gives no reason", said)
            expect(self.status() is None, "up fails and leaves a cluster", said)
            return
        self.answers(self.settle())

    def job_over(self):
        """The job is ended: so are all VMs; who looks is told."""
        until = time.monotonic() + (60 if self.fault.startswith("walltime") else 15) + self.site.answer_s
        if self.fault.startswith("off"):
            return
        while any(self.site.agents(n) for n in self.site.names):
            expect(time.monotonic() < until, "agents outlive their job",
                   "\n".join(str(p) for n in self.site.names for p in self.site.agents(n)))
            time.sleep(0.3)
        until = time.monotonic() + self.site.answer_s
        while True:
            s = self.status()
            ready = [vm["rank"] for vm in s["vms"] if vm["state"] == "ready"] if s else []
            if not ready:
                return
            expect(time.monotonic() < until, "VMs are shown as ready after the job's end", brief(s))
            time.sleep(0.3)


def brief(s):
    if not s:
        return "no cluster"
    return "phase %s\nnodes %s\nvms %s" % (
        s["phase"], " ".join("%s:%s" % (n["name"], n["state"]) for n in s["nodes"]),
        " ".join("%d@%s:%s:%d" % (v["rank"], v["node"], v["state"], v["uptime_ms"]) for v in s["vms"]))


class Logs:
    """What the agents wrote, for a round that failed."""

    def __init__(self, site):
        self.site = site

    def tail(self, cluster, lines=25):
        found = []
        for name, disk in self.site.lab.lab.disks().items():
            for log in sorted((disk / "tmp").glob("vse-*/%s*/agent.log" % cluster)):
                text = log.read_text(errors="replace").splitlines()[-lines:]
                found.append("%s %s\n%s" % (name, log.parent.name, "\n".join("  " + t for t in text)))
        return "\n".join(found)


def wipe(site):
    """After a round that failed: the next one starts on clean nodes."""
    try:
        site.repair()
    except Exception:
        pass
    lab = site.lab
    for _ in range(10):
        found = lab.processes()
        for p in found:
            p.kill()
        if not found:
            break
        time.sleep(0.2)
    if site.kind == "slurm":
        jobs = lab.call("squeue", "-h", "-o", "%i").text.split()
        if jobs:
            lab.call("scancel", *jobs, user=None)
        site.repair_slurm()
    for disk in lab.lab.disks().values():
        for folder in list(disk.glob("tmp/vse-*")) + list(disk.glob("home/labuser/.vse-*")):
            shutil.rmtree(folder, ignore_errors=True)


def drop_caches(site):
    for disk in site.lab.lab.disks().values():
        for folder in disk.glob("vartmp/vse-cache-*"):
            shutil.rmtree(folder, ignore_errors=True)


class Sites:
    """Labs, made when they are first needed."""

    def __init__(self, tap):
        self.tap, self.made = tap, {}

    def kind(self, rng):
        """The draw is the same wherever this runs; what is not possible there is done over ssh."""
        kind = os.environ.get("VSE_CHAOS_ON") or rng.choice(["ssh"] * 13 + ["slurm"] * 5 + ["real"] * 2)
        why = labworld.client.why_not(slurm=True) if kind == "slurm" else None
        if kind == "real":
            why = self.get(kind).why
        if why:
            self.tap.note("over ssh, not %s: %s" % (kind, why))
        return "ssh" if why else kind

    def get(self, kind):
        if kind not in self.made:
            self.made[kind] = Site(kind, {"ssh": 6, "slurm": 4, "real": 4}[kind])
            self.made[kind].lab.mark()
        return self.made[kind]

    def close(self):
        for site in self.made.values():
            site.close()


def one(tap, sites, seed, i, counts):
    rng = random.Random("%s/%d" % (seed, i))
    site = sites.get(sites.kind(rng))
    r = Round(site, i, rng)
    begun = time.monotonic()
    r.name = "no fault yet"
    try:
        if site.kind == "real":
            drop_caches(site)
        r.play()
        tap.ok(True, "round %d: %s: %s (%.0f s, settled in %.1f s)" %
               (i, site.kind, r.name, time.monotonic() - begun, r.slow))
        counts[site.kind] += 1
    except (Failed, labworld.LabError) as e:
        try:
            logs = Logs(site).tail(r.cluster)
        except Exception as e2:
            logs = str(e2)
        tap.ok(False, "round %d: %s: %s" % (i, site.kind, r.name), e,
               "repeat: VSE_CHAOS_SEED=%s VSE_CHAOS_ONLY=%d" % (seed, i), logs)
        wipe(site)


def main():
    labworld.skip_unless(ssh=True)
    tap = harness.Tap()
    rounds = int(os.environ.get("VSE_CHAOS_ROUNDS") or (100 if harness.NIGHTLY else 12))
    # The short run is the same each time; the long one finds what is new.
    seed = os.environ.get("VSE_CHAOS_SEED") or (
        str(random.SystemRandom().randrange(10 ** 8)) if harness.NIGHTLY else "1")
    only = os.environ.get("VSE_CHAOS_ONLY")
    tap.note("seed %s: VSE_CHAOS_SEED=%s VSE_CHAOS_ROUNDS=%d repeats this" % (seed, seed, rounds))
    sites, counts = Sites(tap), Counter()
    try:
        for i in range(rounds) if only is None else map(int, only.split(",")):
            one(tap, sites, seed, i, counts)
    finally:
        sites.close()
    tap.note("seed %s: %d of %d rounds passed: %s" % (seed, tap.count - tap.failed, tap.count, dict(counts)))
    return tap.done()


if __name__ == "__main__":
    sys.exit(main())
