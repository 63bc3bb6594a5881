# SPDX-License-Identifier: Apache-2.0
"""Moves of VMs, in the middle of each of which something happens at a random moment. After it: one copy of the VM runs and no
other process or folder of it is anywhere; it is the same VM, unless what ran it was killed, or its node was lost; what it had
written is there; and the command's exit code says what came of it.

Each round draws from its own generator, so that one of them can be repeated alone (VSE_MIGRATE_ONLY)."""
import json
import math
import os
import random
import re
import signal
import subprocess
import time
from collections import Counter

import counting
import harness
from labworld import status, wait_for

BOUND_S = 60  # until all is as it should be again; on a quiet machine some seconds
DEATHS_S = 32  # within 30 s a node's third dead agent is its last
STILL_S = 0.3  # a VM that stands still goes on within this, as a rule; each instant of it is another case
LOST_S = 3  # --lost-after of the clusters of `fake`; --give-up-after is four times that
COMMAND_S = 150

ALWAYS = ["nothing", "cancel", "Ctrl-C", "front end", "source agent", "target agent", "root agent", "cut source", "cut target",
          "cut between"]
OF_FAKE = ["cut source long", "cut target long"]  # the node is lost; its VMs begin anew elsewhere (--recover)
NIGHTLY = ["cut between for ever"]  # until the command has ended
OF_QEMU = ["source VMM", "target VMM", "source VMM", "target VMM"]  # a process, which can be killed alone


class Broken(Exception):
    pass


class Alone(Exception):
    """Too few nodes are left for a move."""


def expect(good, what, *details):
    if not good:
        raise Broken("\n".join([what] + [str(d) for d in details]))


class Signs:
    """How far a move is, by what the nodes have on their disks."""

    def __init__(self, roots, rank, src, dst):
        self.rank, self.dst = rank, roots[dst]
        self.logs = [{log: log.stat().st_size for log in roots[node].glob("tmp/vse-*/*/agent.log")} for node in (src, dst)]

    def began(self):
        return any(self.dst.glob("tmp/vse-*/*/vm%d" % self.rank))

    def said(self, logs, text):
        for log, size in logs.items():
            with open(log, "rb") as f:
                f.seek(size)
                if b"vm%d: %s" % (self.rank, text) in f.read():
                    return True
        return False

    def stands(self):
        return self.said(self.logs[0], b"paused: it is being moved")

    def came(self):
        return self.said(self.logs[1], b"booting: came from")


class Fake:
    """What runs, told from the notes of the back end `fake`: "STARTED BOOTED PAUSED BOOT". PAUSED: 0 or 1, and 2 more where some of
    its memory is elsewhere."""

    MORE = OF_FAKE + NIGHTLY if harness.NIGHTLY else []

    def __init__(self, lab, nodes):
        self.roots = {n: lab.lab.root(n) for n in nodes}
        lab.rate("200mbit")  # else a move is over before anything can happen

    def notes(self, rank):
        found = {}
        for node, root in self.roots.items():
            for path in root.glob("tmp/vse-*/*/vm%d/fake" % rank):
                try:
                    words = path.read_text().split()
                except OSError:
                    continue
                if len(words) == 4:
                    found[node] = words
        return found

    def copies(self, rank):
        return sorted(self.notes(rank))

    def watch(self, rank):
        """Called often: two that run are one too many."""
        def running():
            return {n for n, w in self.notes(rank).items() if w[2] in ("0", "2")}
        two = running()
        if len(two) > 1:  # files are read one after the other
            two &= running()
        expect(len(two) < 2, "vm%d runs on %s at once" % (rank, " and ".join(sorted(two))))

    def identity(self, rank, node):
        return self.notes(rank).get(node, [""] * 4)[3]

    def before(self, rank):
        pass

    def after(self, rank, anew):
        pass


class Qemu:
    """VMs that count, on their disk and in their memory (counting.py)."""

    MORE = OF_QEMU + (NIGHTLY if harness.NIGHTLY else [])
    LOST_S = 10  # its --lost-after

    def __init__(self, lab, nodes):
        self.lab, self.nodes = lab, nodes
        self.roots = {n: lab.lab.root(n) for n in nodes}
        self.least = 0

    def vmms(self, rank, node=None):
        return [p for n in ([node] if node else self.nodes) for p in self.lab.processes(n, "vmm")
                if "guest=vm%d" % rank in p.argv]

    def copies(self, rank):
        return sorted(p.node for p in self.vmms(rank))

    def watch(self, rank):
        pass

    def identity(self, rank, node):
        r = self.lab.vse("exec", "-r", str(rank), "cat", "/proc/sys/kernel/random/boot_id", timeout=60)
        return r.text.strip()

    def before(self, rank):
        r = counting.begin(self.lab, rank)
        expect(r.code == 0, "the counter of vm%d cannot be begun" % rank, r)
        self.least = wait_for(30, lambda: counting.seen(self.lab, rank))
        expect(self.least, "vm%d does not count" % rank)

    def after(self, rank, anew):
        if anew:
            return
        good, text, r = counting.verify(self.lab, rank, self.least)
        expect(good, text, r)


DIRTY = """
[ -e /run/from ] || {
	dd if=/dev/urandom of=/run/from bs=1M count=16 2>/dev/null
	setsid sh -c 'while :; do dd if=/run/from of=/run/to bs=1M conv=notrunc; done' </dev/null >/dev/null 2>&1 &
}
"""


class LateQemu(Qemu):
    """VMs that write to their memory, too, and faster than it travels."""

    def __init__(self, lab, nodes):
        super().__init__(lab, nodes)
        lab.rate("200mbit")

    def before(self, rank):
        super().before(rank)
        r = self.lab.vse("exec", "-r", str(rank), "sh", "-c", DIRTY, timeout=60)
        expect(r.code == 0, "vm%d does not write" % rank, r)


TAKES_ALONG = ("agent", "VMM", "cut")  # what hurts a node of the move, or the link: by post-copy it may be the end of the VM


class Round:
    def __init__(self, rounds, i):
        self.all, self.lab, self.kind = rounds, rounds.lab, rounds.kind
        self.rng = random.Random("%s/%s/%d" % (rounds.seed, type(rounds.kind).__name__, i))
        self.i, self.said, self.lost = i, "", set()  # lost: of the nodes of the move, as the root says
        self.heal_at, self.heal = None, None
        self.hit = None  # a VMM that was killed: its node

    def happens(self, what, front):
        lab, rng, ends = self.lab, self.rng, {"source": self.src, "target": self.dst, "root": "n0"}
        words = what.split()
        if what == "Ctrl-C":
            os.kill(lab.inner(front), signal.SIGINT)
        elif what == "cancel":
            lab.vse("migrate", "--cancel", str(self.rank), timeout=60)
        elif what == "front end":
            os.kill(lab.inner(front), signal.SIGKILL)
        elif words[-1] == "agent":
            self.all.killed(ends[words[0]])
            lab.kill(ends[words[0]])
        elif words[-1] == "VMM":
            found = self.kind.vmms(self.rank, ends[words[0]])
            self.hit = words[0] if found else None
            for p in found:
                p.kill()
        elif words[:2] == ["cut", "between"]:
            self.between(True)
            self.cut(lambda: self.between(False), math.inf if words[-1] == "ever" else rng.uniform(0.1, 2 * LOST_S))
        elif words[0] == "cut":
            node, long = ends[words[1]], words[-1] == "long"
            lab.cut(node)
            self.all.touched.add(node)
            self.cut(lambda: lab.heal(node), rng.uniform(1.5, 2.5) * LOST_S if long else rng.uniform(0.05, 0.5) * LOST_S)

    def between(self, cut):
        """Of these two nodes alone; each reaches all others."""
        for a, b in ((self.src, self.dst), (self.dst, self.src)):
            r = self.lab.call("ip", "route", "add" if cut else "del", "blackhole", "10.77.0.%d/32" % (10 + int(b[1:])),
                              node=a, user=None)
            expect(r.code == 0, "no route can be changed", r)

    def cut(self, heal, seconds):
        self.heal, self.heal_at = heal, time.monotonic() + seconds

    def heal_now(self):
        heal, self.heal, self.heal_at = self.heal, None, None
        if heal:
            heal()

    def events(self):
        r = self.lab.vse("events", "--json", timeout=60)
        return r.text.splitlines() if r.code == 0 else []

    def find_lost(self):
        """A node that was cut off for long, or that a busy machine kept from answering, was lost when the root says so."""
        now = self.events()
        new = now[now.index(self.last_event) + 1:] if self.last_event in now else now
        texts = [json.loads(line)["text"] for line in new]
        self.lost = {n for n in (self.src, self.dst) if any(t.startswith(n + " is lost: ") for t in texts)}

    def play(self):
        rng, lab = self.rng, self.lab
        s = status(lab)
        self.rank, what = rng.randrange(len(s["vms"])), rng.choice(ALWAYS + self.kind.MORE)
        self.after, step = rng.choice(["began", "stands", "came"]), rng.randrange(1, len(self.all.nodes))
        self.delay = rng.uniform(0, 1.1) * self.all.took if self.after == "began" else rng.random() ** 2 * STILL_S
        self.src = s["vms"][self.rank]["node"]
        up = {n["name"] for n in s["nodes"] if n["state"] == "up"}
        nodes = self.all.nodes + self.all.nodes
        ring = nodes[nodes.index(self.src) + step:] + self.all.nodes
        self.dst = next((n for n in ring if n in up and n != self.src), None)
        if not self.dst:
            raise Alone
        victim = {"source agent": self.src, "target agent": self.dst, "root agent": "n0"}.get(what)
        if victim and not self.all.may_kill(victim):
            what = "cancel"
        self.what = what
        self.name = "vm%d %s->%s, %s %.2f s after it %s" % (self.rank, self.src, self.dst, what, self.delay, self.after)
        self.kind.before(self.rank)
        self.last_event = (self.events() or [""])[-1]
        self.was = self.kind.identity(self.rank, self.src)
        expect(self.was, "vm%d cannot be known again" % self.rank)
        self.signs = Signs(self.kind.roots, self.rank, self.src, self.dst)
        front = lab.start("vse", "migrate", "-q", str(self.rank), "--to", self.dst, *self.all.words, stdout=subprocess.DEVNULL,
                          stderr=subprocess.PIPE)
        try:
            self.meanwhile(front)
        finally:
            front.kill()
            self.said = front.communicate()[1].decode("utf-8", "replace")
            self.heal_now()
        self.code = front.returncode
        self.judge()

    def meanwhile(self, front):
        begun, since, done = time.monotonic(), None, False
        sign = getattr(self.signs, self.after)
        while front.poll() is None or not done or self.heal_at:
            if since is None and (sign() or front.poll() is not None):
                since = time.monotonic()
            now = time.monotonic()
            if not done and since and now - since >= self.delay:
                done = True
                try:
                    self.happens(self.what, front)
                except (OSError, IndexError):
                    pass  # it was over before
            if self.heal_at and (now >= self.heal_at or (self.heal_at == math.inf and front.poll() is not None)):
                self.heal_now()
            self.kind.watch(self.rank)
            expect(now - begun < COMMAND_S, "the command does not end")
            time.sleep(0.005)

    def gone(self, node):
        """For good: a node that is lost comes back while there is an agent on it, which there is not when the launcher has given
        up a node that did not answer for long."""
        return node["state"] == "lost" and not self.lab.processes(node["name"], "agent") and \
            not self.lab.processes(node["name"], "keeper")

    def settled(self):
        """The node of the VM, when all nodes are up or gone for good, all VMs ready and there is one copy of each; "" when this
        one has failed; else None."""
        self.kind.watch(self.rank)
        s = status(self.lab)
        if not s or any(n["state"] != "up" and not self.gone(n) for n in s["nodes"]):
            return None
        for vm in s["vms"]:
            if vm["rank"] == self.rank and vm["state"] == "failed" and not self.kind.copies(self.rank):
                continue
            if vm["state"] != "ready" or self.kind.copies(vm["rank"]) != [vm["node"]]:
                return None
        mine = s["vms"][self.rank]
        if mine["state"] == "failed":
            self.reason, self.failed_on = mine["reason"], mine["node"]
            return ""
        r = self.lab.vse("exec", "-r", str(self.rank), "hostname", timeout=60)
        return mine["node"] if r.code == 0 else None

    def judge(self):
        at = None

        def look():
            nonlocal at
            at = self.settled()
            return at is not None
        expect(wait_for(BOUND_S, look), "one copy of each, ready: that is not so", self.all.shown())
        self.find_lost()
        self.name += "".join(", %s is lost" % n for n in sorted(self.lost))
        self.name += ": exit %s, is on %s" % (self.code, at or "none, killed on " + self.failed_on if at == "" else at)
        self.outcome(at)
        if at == "":
            r = self.lab.vse("restart", str(self.rank), timeout=120)
            expect(r.code == 0, "what was killed cannot be started again", r)
            return
        now = self.kind.identity(self.rank, at)
        expect(now == self.was or self.lost, "it was booted anew", self.was, now)
        self.kind.after(self.rank, now != self.was)

    def outcome(self, at):
        if at == "" and "--post-copy" in self.all.words and self.what != "root agent" and \
                any(w in self.what for w in TAKES_ALONG):
            expect("post-copy" in self.reason or "rest of its memory" in self.reason or "SIGKILL" in self.reason,
                   "it has failed, and does not say why", self.reason)
            expect(self.code != 0 or "VMM" in self.what, "exit 0, and it is lost", self.reason)
            self.all.ended += 1
            return
        if at == "":  # only what ran it can take it along
            expect(self.hit and "SIGKILL" in self.reason, "it has failed, and nobody killed it", self.reason)
            where = self.dst if self.code == 0 else self.src
            expect(self.failed_on == where and (self.hit == "source") == (where == self.src),
                   "what was killed is not what ran it", self.hit, self.failed_on)
            return
        if self.lost:
            return  # it may have begun anew on a third node
        expect(at in (self.src, self.dst), "it is on a third node")
        expect(self.code != 0 or at == self.dst, "exit 0, and it was not moved")
        if self.what == "nothing" and "of an agent that has died" not in self.said:  # docs/migration.md, Limits
            expect(self.code == 0, "it is not moved, with nobody hurt", self.said)


class Rounds:
    def __init__(self, tap, lab, kind, nodes, *words):
        self.words, self.ended = words, 0  # of the command; VMs that ended with what was hurt
        self.tap, self.lab, self.nodes, self.kind = tap, lab, nodes, kind(lab, nodes)
        self.seed = os.environ.get("VSE_MIGRATE_SEED") or str(random.SystemRandom().randrange(10 ** 8))
        self.deaths, self.counts, self.took = {}, Counter(), 0
        self.touched = set()  # nodes that were cut off: connections of before end when they like

    def ignored(self):
        found = ["process %s uid * sshd*: sshd: *" % n for n in self.touched]
        for n in self.touched:
            found += ["socket *: tcp* to *%02X004D0A:*" % (10 + int(n[1:])), "socket %s: tcp*" % n]
        return found

    def measure(self):
        """How long a move takes that nobody disturbs."""
        at = status(self.lab)["vms"][0]["node"]
        r = self.lab.vse("migrate", "--json", "0", "--to", self.nodes[self.nodes.index(at) - 1], *self.words, timeout=300)
        self.took = json.loads(r.out)[0]["total_ms"] / 1000 if r.code == 0 else 0
        return self.tap.ok(r.code == 0, "a move takes %.1f s" % self.took, r)

    def may_kill(self, node):
        self.deaths[node] = [t for t in self.deaths.get(node, []) if t > time.monotonic() - DEATHS_S]
        return len(self.deaths[node]) < 2

    def killed(self, node):
        self.deaths.setdefault(node, []).append(time.monotonic())

    def shown(self):
        s = status(self.lab)
        if not s:
            return "no cluster"
        lines = ["%s: %s" % (n["name"], n["state"]) for n in s["nodes"]]
        lines += ["vm%d: %s on %s (%s), copies on %s" % (v["rank"], v["state"], v["node"], v["reason"],
                                                        self.kind.copies(v["rank"])) for v in s["vms"]]
        return "\n".join(lines)

    def one(self, i):
        r = Round(self, i)
        r.name = "not begun"
        begun = time.monotonic()
        try:
            r.play()
        except Alone:
            self.tap.skip("round %d and all after it" % i, "one node is left")
            return False
        except Broken as e:
            events = self.lab.vse("events").text.splitlines()[-30:]
            return self.tap.ok(False, "round %d: %s" % (i, r.name), e, r.said, self.shown(), "\n".join(events), self.logs(),
                               "repeat: VSE_MIGRATE_SEED=%s VSE_MIGRATE_ONLY=%d" % (self.seed, i))
        self.counts[r.what] += 1
        return self.tap.ok(True, "round %d: %s (%.0f s)" % (i, r.name, time.monotonic() - begun))

    def logs(self):
        found = []
        for name, disk in self.lab.lab.disks().items():
            for log in sorted((disk / "tmp").glob("vse-*/*/agent.log")):
                text = log.read_text(errors="replace").splitlines()[-25:]
                found.append("%s %s\n%s" % (name, log.parent.name, "\n".join("  " + t for t in text)))
        return "\n".join(found)

    def run(self, rounds):
        only = os.environ.get("VSE_MIGRATE_ONLY")
        self.tap.note("VSE_MIGRATE_SEED=%s, %d rounds" % (self.seed, rounds))
        if not self.measure():
            return
        for i in map(int, re.findall(r"\d+", only)) if only else range(rounds):
            if not self.one(i):
                break  # what follows would tell of this one only
        self.tap.note(", ".join("%s: %d" % item for item in sorted(self.counts.items())))
