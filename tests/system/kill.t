#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The kill test: SIGKILL of a front end, an agent, its reaper, a VMM or a part of a build at a random moment.

Within 5 seconds nothing may be left that should not be: no process, mount, socket or file; a cluster whose
agent lives goes on with its other VMs; and the next command works.
  VSE_KILL_ROUNDS=N     rounds (30; 200 in a nightly run)
  VSE_KILL_SEED=S       the same rounds again; VSE_KILL_ONLY=I: only round I of them
  VSE_KILL_HYPERVISOR=fake|qemu
Each round draws from its own generator, so that one of them can be repeated alone; the moments within a phase
are as exact as the machine's scheduler.
"""
import json
import os
import random
import shutil
import sys
import time
from collections import Counter

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
import harness  # noqa: E402
from harness import CLEAN_S, NIGHTLY, Tap, World, real_world, shared_data  # noqa: E402

FAKE = ["--hypervisor", "fake", "--hypervisor-arg", "boot=40ms", "--hypervisor-arg", "ready=20ms"]
ENDS_S = 6  # a command whose other side was killed has ended by then
VICTIMS = {
    "up": ["front end", "agent", "vmm", "reaper", "agent and reaper"],
    "exec": ["front end", "agent", "vmm", "reaper"],
    "cp in": ["front end", "agent", "vmm", "reaper"],
    "cp out": ["front end", "agent", "vmm"],
    "down": ["front end", "agent", "vmm", "reaper"],
    "build": ["front end", "part"],
}


class Failed(Exception):
    pass


def expect(good, what, detail=""):
    if not good:
        raise Failed("%s\n%s" % (what, detail) if detail else what)


class Bench:
    """One hypervisor: how its clusters are started, and how long each phase takes undisturbed."""

    def __init__(self, world, file, options, size):
        self.world, self.file, self.options, self.size = world, file, options, size
        self.real = not options
        self.took = {}
        self.payload = world.dir / "payload"
        self.payload.write_bytes(os.urandom(1 << 20) * 4)

    def argv(self, phase):
        w = self.world
        if phase == "up":
            return ["up", "-q", "-n", str(self.size), *self.options, self.file]
        if phase == "exec" and self.real:
            return ["exec", "--", "sh", "-c", "dd if=/dev/zero bs=64k count=16; sleep 0.2"]
        if phase == "exec":
            return ["exec", "--", "sleep", "200ms"] if random.random() < 0.5 else ["exec", "--", "yes", "4M"]
        if phase == "cp in":
            return ["cp", self.payload, "all:/tmp/copy"]
        if phase == "cp out":
            (w.dir / "back").mkdir(exist_ok=True)
            return ["cp", "all:/bin/busybox", w.dir / "back"]
        return ["down"]

    def up(self, n=None):
        argv = self.argv("up")
        argv[3] = str(n or self.size)
        r = self.world.vse(*argv, timeout=120)
        expect(r.code == 0, "up fails", r)

    def down(self):
        r = self.world.vse("down")
        expect(r.code == 0, "down fails", r)
        left = self.world.clean_within()
        expect(not left, "left after down", "\n".join(left))

    def measure(self, phases):
        for phase in phases:
            r = self.world.vse(*self.argv(phase), timeout=120)
            expect(r.code == 0, "%s fails with nobody killed" % phase, r)
            self.took[phase] = r.seconds
        left = self.world.clean_within()
        expect(not left, "left with nobody killed", "\n".join(left))

    def alive(self, ranks):
        """Every VM of these answers."""
        for rank in ranks:
            r = self.world.vse("exec", "-r", str(rank), "--", "echo", "alive", timeout=30)
            expect(r.code == 0 and r.out == b"alive\n", "vm%d does not answer" % rank, r)

    def status(self):
        r = self.world.vse("ps", "--json", timeout=30)
        expect(r.code == 0, "ps fails", r)
        clusters = json.loads(r.out)["clusters"]
        return clusters[0] if clusters else None


def kill_one(world, victim, front, rng):
    """Kills; gives the killed processes."""
    if victim == "front end":
        front.kill()
        return [front.pid]
    if victim == "part":  # any process of the build but the front end
        found = [p for p in world.processes() if p.pid != front.pid]
        found = [rng.choice(found)] if found else []
    elif victim == "agent and reaper":
        found = world.processes("reaper") + world.processes("agent")
    else:
        found = world.processes(victim)
        found = [rng.choice(found)] if found else []
    for p in found:
        p.kill()
    return [p.pid for p in found]


def ended(front, victim, more=0):
    try:
        out, err = front.communicate(timeout=ENDS_S + more)
    except Exception:
        front.kill()
        raise Failed("the front end has not ended %d s after the %s was killed" % (ENDS_S, victim))
    return front.returncode, (out + err).decode("utf-8", "replace")


def after_up_or_rest(b, phase, victim, killed, code, said):
    """Either all is gone, or a whole cluster is there and answers."""
    w = b.world
    until = time.monotonic() + CLEAN_S
    while True:
        status = b.status() if w.processes("agent") else None
        if status is None and not w.leftovers():
            return "gone"
        states = [vm["state"] for vm in status["vms"]] if status else []
        # A VMM that was killed is known to be gone a moment later: its memory is taken apart first.
        seen = victim != "vmm" or not killed or "failed" in states
        if status and status["phase"] == "up" and (
                time.monotonic() > until or (seen and not (phase == "up" and victim == "front end"))):
            break
        expect(time.monotonic() < until, "after %d s neither gone nor up" % CLEAN_S,
               "\n".join(w.leftovers()) + "\n" + json.dumps(status)[:600])
        time.sleep(0.05)
    expect(phase != "down" or victim == "front end", "down has left the cluster", "%s %s" % (code, said))
    expect(phase != "up" or victim == "front end" or code == 0, "up fails but leaves a cluster", said)
    ready = [i for i, s in enumerate(states) if s == "ready"]
    dead = [i for i, s in enumerate(states) if s != "ready"]
    wanted = 1 if victim == "vmm" and killed else 0
    expect(len(dead) == wanted, "%d VMs are not ready" % len(dead), states)
    for i in dead:
        expect(states[i] == "failed" and status["vms"][i]["reason"], "vm%d is not shown as failed" % i, status["vms"][i])
        r = w.vse("exec", "-r", str(i), "true", timeout=30)
        expect(r.code == 1 and "vm%d" % i in r.said, "exec on the dead VM", r)
    b.alive(ready)
    b.down()
    return "up"


def round_cluster(b, phase, victim, rng):
    w = b.world
    if phase != "up":
        b.up()
    delay = rng.uniform(0, b.took[phase] * 1.05)
    front = w.start(harness.VSE, *b.argv(phase), stdout=-1, stderr=-1)
    if phase == "up" and victim != "front end":
        w.await_process("agent" if victim.startswith("agent") else victim, b.took[phase] + 5)
        delay = rng.uniform(0, delay)
    time.sleep(delay)
    killed = kill_one(w, victim, front, rng)
    # Who lost neither itself nor its agent goes on to its regular end.
    code, said = ended(front, victim, 4 * b.took[phase] + 10 if victim in ("vmm", "reaper") else 0)
    if "agent" in victim and killed:
        if phase != "down" and code == 0:
            pass  # it had just ended
        elif code != 0 and victim.startswith("agent"):
            expect("vse %s: " % phase.split()[0] in said, "no reason is given", said)
        if victim == "agent and reaper":
            # Nobody is left to clean up: what runs ends at once, the next command sweeps the rest.
            until = time.monotonic() + CLEAN_S
            while w.processes() and time.monotonic() < until:
                time.sleep(0.05)
            expect(not w.processes(), "processes outlive agent and reaper", "\n".join(w.leftovers()))
            r = w.vse("ps")
            expect(r.code == 0, "ps after agent and reaper were killed", r)
        left = w.clean_within()
        expect(not left, "left", "\n".join(left))
        return "gone"
    if victim == "reaper" and phase != "down":
        expect(code == 0, "%s fails because the reaper was killed" % phase, said)
    return after_up_or_rest(b, phase, victim, killed, code, said)


def round_next(b):
    b.up(1)
    b.alive([0])
    b.down()


class Builds:
    """Builds that are new each time, of the smallest root or of a distribution."""

    def __init__(self, world, root):
        self.world, self.root, self.number, self.took = world, root, 0, {}
        cache = shared_data() / "vse/cache"
        if cache.exists():
            shutil.copytree(cache, world.data / "vse/cache", dirs_exist_ok=True)

    def file(self, distribution):
        self.number += 1
        base = "debian:bookworm" if distribution else "dir:%s" % self.root
        return self.world.write("k.yaml", "vse: 1\nname: k\nbase: %s\nneeds: {memory: 256M}\n"
                                "files:\n  - {path: /etc/number, content: '%d'}\n" % (base, self.number))

    def round(self, victim, rng, distribution):
        w = self.world
        if distribution not in self.took:
            r = w.vse("build", "-q", self.file(distribution), timeout=900)
            expect(r.code == 0, "a build fails with nobody killed", r)
            self.took[distribution] = r.seconds
        file = self.file(distribution)
        before = w.vse("images").out
        front = w.start(harness.VSE, "build", "-q", file, stdout=-1, stderr=-1)
        time.sleep(rng.uniform(0, self.took[distribution] * 1.05))
        killed = kill_one(w, victim, front, rng)
        try:
            out, err = front.communicate(timeout=900 if not killed else ENDS_S + self.took[distribution])
        except Exception:
            front.kill()
            raise Failed("the build has not ended")
        said = (out + err).decode("utf-8", "replace")
        if victim == "part" and front.returncode:
            expect("vse build: " in said, "no reason is given", said)
        left = w.clean_within()
        expect(not left, "left", "\n".join(left))
        after = w.vse("images").out
        expect(front.returncode == 0 or victim == "front end" or after == before, "a failed build made an image", said)
        if rng.random() < 0.3:  # the same input again: nothing that was left is in the way
            r = w.vse("build", "-q", file, timeout=900)
            expect(r.code == 0, "the next build fails", r)
        left = w.clean_within()
        expect(not left, "left", "\n".join(left))
        return "built" if front.returncode == 0 else "gone"


def choose(rng, benches, builds):
    if builds and rng.random() < 0.12:
        return "build", rng.choice(VICTIMS["build"]), None
    b = rng.choice([b for b in benches for _ in range(1 if b.real else 3)])
    phase = rng.choice([p for p in b.took])
    victim = rng.choice([v for v in VICTIMS[phase] if b.real or v != "vmm"])
    return phase, victim, b


def main():
    tap = Tap()
    rounds = int(os.environ.get("VSE_KILL_ROUNDS") or (200 if NIGHTLY else 30))
    seed = os.environ.get("VSE_KILL_SEED") or str(random.SystemRandom().randrange(10 ** 8))
    only = os.environ.get("VSE_KILL_ONLY")
    which = os.environ.get("VSE_KILL_HYPERVISOR")
    tap.note("seed %s: VSE_KILL_SEED=%s VSE_KILL_ROUNDS=%d repeats this" % (seed, seed, rounds))
    worlds, benches, builds = [], [], None
    try:
        if which != "qemu":
            worlds.append(World())
            benches.append(Bench(worlds[-1], worlds[-1].fake_vse(), FAKE, 8))
            benches[-1].measure(["up", "exec", "cp in", "down"])
        if which != "fake":
            world, file, why = real_world()
            if world:
                worlds.append(world)
                benches.append(Bench(world, file, [], 2))
                benches[-1].measure(["up", "exec", "cp in", "cp out", "down"])
                worlds.append(World())
                builds = Builds(worlds[-1], world.dir / "root")
            else:
                tap.note("only the fake hypervisor: " + why)
        counts = Counter()
        for i in range(rounds) if only is None else [int(only)]:
            rng = random.Random("%s/%d" % (seed, i))
            random.seed("%s/%d" % (seed, i))
            phase, victim, b = choose(rng, benches, builds)
            kind = "qemu" if b and b.real else "fake" if b else "build"
            name = "round %d: %s: %s, %s" % (i, kind, phase, victim)
            world = b.world if b else builds.world
            try:
                if b:
                    outcome = round_cluster(b, phase, victim, rng)
                    round_next(b)
                else:
                    outcome = builds.round(victim, rng, NIGHTLY and rng.random() < 0.15)
                counts["%s, %s killed, %s" % (phase, victim, kind)] += 1
                tap.ok(True, "%s: %s" % (name, outcome))
            except Failed as e:
                tap.ok(False, name, e, "repeat: VSE_KILL_SEED=%s VSE_KILL_ONLY=%d" % (seed, i))
                for p in world.processes():
                    p.kill()
                world.vse("down", "--all")
                for folder in (world.run, world.tmp):
                    for entry in folder.iterdir():
                        if entry.is_dir():
                            shutil.rmtree(entry, ignore_errors=True)
                        else:
                            entry.unlink()
        tap.note("seed %s: %d of %d rounds passed" % (seed, tap.count - tap.failed, tap.count))
        for what, n in sorted(counts.items()):
            tap.note("  %3d  %s" % (n, what))
    except Failed as e:
        tap.ok(False, "with nobody killed", e)
    finally:
        for world in worlds:
            world.close()
    return tap.done()


if __name__ == "__main__":
    sys.exit(main())
