#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""VMs move to other nodes as they run, and whatever dies meanwhile, each goes on in one place and never in two.

VSE_MIGRATE_SEED=N repeats the random rounds of a run; VSE_MIGRATE_ROUNDS=N makes so many."""
import json
import os
import random
import signal
import sys
import time

sys.dont_write_bytecode = True
import counting  # noqa: E402
import harness  # noqa: E402
import labworld  # noqa: E402

CACHE = "*/vse-cache-*"  # files of images, kept on purpose (docs/staging.md)
BOUND_S = 60             # until all is as it should be again; on a quiet machine some seconds
DEATHS_S = 32            # within 30 s a node's third dead agent is its last
NODES = ["n1", "n2", "n3"]


def wait_for(seconds, check):
    until = time.monotonic() + seconds
    while True:
        got = check()
        if got or time.monotonic() > until:
            return got
        time.sleep(0.1)


def status(lab):
    r = lab.vse("ps", "--json", timeout=60)
    clusters = json.loads(r.out)["clusters"] if r.code == 0 else []
    return clusters[0] if clusters else None


def vms(lab):
    """[(state, node)] by rank, or None."""
    s = status(lab)
    return s and [(v["state"], v["node"]) for v in s["vms"]]


def node_of(lab, rank):
    all_ = vms(lab)
    return all_ and all_[rank][1]


def migrate(lab, ranks, to, *more, **kw):
    return lab.vse("migrate", "--json", str(ranks), "--to", to, *more, **dict({"timeout": 300}, **kw))


def moved(r):
    return json.loads(r.out) if r.code == 0 else []


def refusals(tap, lab):
    for what, words, code, text in (("no such node", ("0", "--to", "n9"), 1, "no node 'n9'"),
                                    ("no such VM", ("7", "--to", "n2"), 1, "7"),
                                    ("no node", ("0",), 2, "--to"),
                                    ("a time-out that is none", ("0", "--to", "n2", "--timeout", "soon"), 2, "--timeout")):
        r = lab.vse("migrate", *words, timeout=60)
        tap.ok(r.code in (code, 2) and text in r.said, "refused: " + what, r)
    lab.vse("pause", "3")
    r = migrate(lab, 3, "n1" if node_of(lab, 3) != "n1" else "n2")
    tap.ok(r.code == 1 and "paused" in r.said and vms(lab)[3][0] == "paused", "refused: a VM that is paused, and it stays so", r)
    lab.vse("resume", "3")


def plain(tap, lab):
    before = status(lab)["vms"]
    to = next(n for n in NODES if n != before[0]["node"])
    r = migrate(lab, 0, to)
    m = moved(r)
    tap.ok(r.code == 0 and len(m) == 1 and m[0]["to"] == to and m[0]["bytes"] > 0, "a VM is moved", r)
    after = status(lab)["vms"]
    tap.ok(after[0]["node"] == to and after[0]["state"] == "ready" and
           [v["node"] for v in after[1:]] == [v["node"] for v in before[1:]], "'vse ps' has it there, and the others where they were", after)
    r = lab.vse("exec", "hostname", timeout=60)
    tap.ok(r.code == 0 and all("vm%d" % i in r.text for i in range(4)), "all VMs answer", r)
    r = lab.vse("events")
    tap.ok("moved from %s to %s" % (before[0]["node"], to) in r.text, "events tell of it", r)
    r = migrate(lab, 0, to)
    tap.ok(r.code == 0 and moved(r) == [], "to where it is: nothing is moved", r)
    r = migrate(lab, "all", "n2")
    tap.ok(r.code == 0 and vms(lab) == [("ready", "n2")] * 4, "all to one node", r, vms(lab))
    r = migrate(lab, "0,1", "n3")
    tap.ok(r.code == 0 and vms(lab) == [("ready", "n3")] * 2 + [("ready", "n2")] * 2, "two of them elsewhere", r, vms(lab))


def copies(lab, rank):
    """The folders of that VM's fake hypervisor on all nodes: each is a VM that is there."""
    found = []
    for n in NODES:
        r = lab.call("sh", "-c", "ls -d /run/user/*/vse/*/vm%d/fake /tmp/vse-*/*/vm%d/fake 2>/dev/null" % (rank, rank), node=n)
        found += [n + ":" + x for x in set(r.text.split())]
    return found


class Rounds:
    """Something happens in the middle of each move."""

    def __init__(self, tap, lab, real):
        self.tap, self.lab, self.real = tap, lab, real
        self.dead = {}
        self.seen = {}
        self.size = len(vms(lab))

    def may_kill(self, node):
        times = [t for t in self.dead.get(node, []) if t > time.monotonic() - DEATHS_S]
        self.dead[node] = times
        return len(times) < 2

    def happens(self, what, src, dst, front):
        node = {"source": src, "target": dst, "root": "n0"}.get(what)
        if what == "cancel":
            os.kill(self.lab.inner(front), signal.SIGINT)
        elif node:
            self.dead.setdefault(node, []).append(time.monotonic())
            self.lab.kill(node)

    def vmms(self, rank):
        return [p for n in NODES for p in self.lab.processes(n, "vmm") if "guest=vm%d" % rank in p.argv]

    def one_copy(self, rank, src, dst):
        """It is ready on one of the two, answers there, and no other process or folder of it is anywhere."""
        v = vms(self.lab)
        if not v or v[rank][0] != "ready" or v[rank][1] not in (src, dst):
            return None
        r = self.lab.vse("exec", "-r", str(rank), "hostname", timeout=60)
        n = len(self.vmms(rank)) if self.real else len(copies(self.lab, rank))
        return v[rank][1] if r.code == 0 and n == 1 else None

    def one(self, i, rng):
        rank, what = rng.randrange(self.size), rng.choice(["nothing", "cancel", "source", "target", "root"])
        delay, dst = rng.random() ** 2 * (3.0 if self.real else 1.0), rng.choice(NODES)
        src = node_of(self.lab, rank)
        if src == dst:
            dst = NODES[(NODES.index(dst) + 1) % len(NODES)]
        victim = {"source": src, "target": dst, "root": "n0"}.get(what)
        if victim and not self.may_kill(victim):
            what = "cancel"
        front = self.lab.start("vse", "migrate", "-q", str(rank), "--to", dst, stdout=-1, stderr=-1)
        time.sleep(delay)
        try:
            self.happens(what, src, dst, front)
        except (OSError, IndexError):
            pass  # it was over before
        try:
            _, err = front.communicate(timeout=120)
        except Exception:
            front.kill()
            _, err = front.communicate()
        at = wait_for(BOUND_S, lambda: self.one_copy(rank, src, dst))
        text = "round %d: vm%d %s->%s, %s after %.2f s: exit %d, is on %s" % (
            i, rank, src, dst, what, delay, front.returncode, at)
        self.seen[(what, at == dst)] = self.seen.get((what, at == dst), 0) + 1
        good = at and (front.returncode != 0 or at == dst)
        self.tap.ok(good, text, err.decode(), vms(self.lab), copies(self.lab, rank),
                    [str(p) for p in self.vmms(rank)], self.lab.vse("events"))
        return good

    def run(self, rounds):
        seed = os.environ.get("VSE_MIGRATE_SEED") or str(random.SystemRandom().randrange(10 ** 8))
        rng = random.Random(seed)
        self.tap.note("VSE_MIGRATE_SEED=%s, %d rounds" % (seed, rounds))
        for i in range(rounds):
            if not self.one(i, rng):
                break
        self.tap.note(", ".join("%s: %d %s" % (w, n, "moved" if m else "stayed") for (w, m), n in sorted(self.seen.items())))


def rounds(real):
    return int(os.environ.get("VSE_MIGRATE_ROUNDS") or (50 if harness.NIGHTLY else 2 if real else 6))


def end(tap, lab):
    r = lab.vse("down", timeout=120)
    left = lab.clean_within(10, ignore=[CACHE, *labworld.KEPT])
    tap.ok(r.code == 0 and not left, "down, and nothing is left on any node", r, "\n".join(left[:20]))


def fake(tap, lab):
    r = lab.vse("up", "-q", "--hypervisor", "fake", "--hypervisor-arg", "state=24M", "-n", "4", "--fanout", "2",
                "--hosts", "n[1-3]", "f.yaml", timeout=120)
    if not tap.ok(r.code == 0, "up: 4 VMs on 3 nodes", r):
        return
    refusals(tap, lab)
    plain(tap, lab)
    src = node_of(lab, 1)
    r = migrate(lab, 1, "n1", "--timeout", "1ms")
    tap.ok(r.code == 1 and "in time" in r.said, "no time for it: it stays", r)
    tap.ok(wait_for(BOUND_S, lambda: vms(lab)[1] == ("ready", src)), "where it was, and ready", vms(lab))
    Rounds(tap, lab, False).run(rounds(False))
    end(tap, lab)


def gaps(text):
    """Seconds between answers of 'ping' that has stamped each."""
    times = [float(w) for w in text.split()]
    return max([b - a for a, b in zip(times, times[1:])] or [0])


PING = "for i in $(seq 400); do ping -c 1 -W 1 vm0 >/dev/null 2>&1 && cut -d' ' -f1 /proc/uptime; [ -e /tmp/enough ] && exit 0; sleep 0.05; done"


def real(tap, lab):
    """VMs of QEMU; one counts, on its disk and in its memory, and answers the other."""
    r = lab.vse("up", "-q", "-n", "2", "--accel", "tcg", "--oversubscribe", "--scratch", "32M", "--lost-after", "10s",
                "--hosts", "n[1-3]", "bb.yaml", timeout=300)
    if not tap.ok(r.code == 0, "up: 2 VMs of QEMU on 3 nodes", r, lab.vse("events")):
        return
    src = node_of(lab, 0)
    boot = lab.vse("exec", "-r", "0", "cat", "/proc/sys/kernel/random/boot_id", timeout=60).text
    r = counting.begin(lab)
    tap.ok(r.code == 0, "a counter that writes each number to the disk runs in both", r)
    pings = lab.start("vse", "exec", "-r", "1", "sh", "-c", PING, stdout=-1, stderr=-1)
    r = migrate(lab, 0, "n3")
    m = moved(r)
    tap.ok(len(m) == 1, "vm0 is moved from %s to n3 as it runs" % src, r)
    if m:
        tap.note("stood still for %d ms, of %d ms; %d bytes of memory, %d of disk" %
                 (m[0]["downtime_ms"], m[0]["total_ms"], m[0]["bytes"], m[0]["disk"]))
    time.sleep(1)
    lab.vse("exec", "-r", "1", "touch", "/tmp/enough", timeout=60)
    out, _ = pings.communicate(timeout=120)
    tap.ok(len(out.split()) > 2, "it has answered the other VM", out)
    tap.note("%d answers, the longest time without one: %.2f s" % (len(out.split()), gaps(out.decode())))
    now = lab.vse("exec", "-r", "0", "cat", "/proc/sys/kernel/random/boot_id", timeout=60).text
    tap.ok(boot and boot == now, "it was not booted anew", boot, now)
    r = lab.vse("exec", "-r", "0", "ping", "-c", "1", "vm1", timeout=60)
    tap.ok(r.code == 0, "and reaches the other", r)
    Rounds(tap, lab, True).run(rounds(True))
    counting.check(tap, lab, 2)
    end(tap, lab)


def with_qemu(tap):
    with labworld.real_lab(nodes=3, ssh=True) as (lab, why):
        if lab:
            real(tap, lab)
        else:
            tap.skip("with VMs of QEMU", why)


def main():
    labworld.skip_unless(ssh=True)
    tap = harness.Tap()
    parts = sys.argv[1:] or ["fake", "qemu"]
    if "fake" in parts:
        with labworld.Lab(nodes=3, ssh=True) as lab:
            lab.write("f.yaml", "vse: 1\nname: f\nbase: debian:bookworm\n")
            lab.mark()
            fake(tap, lab)
    if "qemu" in parts:
        with_qemu(tap)
    return tap.done()


if __name__ == "__main__":
    sys.exit(main())
