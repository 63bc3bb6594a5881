#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""VMs move to other nodes as they run, and whatever dies meanwhile, each goes on in one place and never in two.

The random rounds (migrating.py): VSE_MIGRATE_SEED=S repeats those of a run, VSE_MIGRATE_ONLY=I[,J...] only these of them,
VSE_MIGRATE_ROUNDS=N makes so many with each hypervisor; VSE_NIGHTLY=1: 50 with each."""
import json
import os
import signal
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
import counting  # noqa: E402
import harness  # noqa: E402
import labworld  # noqa: E402
from labworld import status, wait_for  # noqa: E402
from migrating import BOUND_S, LOST_S, Fake, Qemu, Rounds, Signs  # noqa: E402

CACHE = "*/vse-cache-*"  # files of images, kept on purpose (docs/staging.md)
NODES = ["n1", "n2", "n3"]


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
    r = lab.vse("migrate", "--cancel", "0", timeout=60)
    tap.ok(r.code == 1 and "none of these VMs" in r.said, "refused: to call off what nobody moves", r)


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


def rounds(real):
    return int(os.environ.get("VSE_MIGRATE_ROUNDS") or (50 if harness.NIGHTLY else 2 if real else 6))


def end(tap, lab, ignored):
    r = lab.vse("down", timeout=120)
    left = lab.clean_within(10, ignore=[CACHE, *labworld.KEPT, *ignored])
    tap.ok(r.code == 0 and not left, "down, and nothing is left on any node", r, "\n".join(left[:20]))


def fake(tap, lab):
    r = lab.vse("up", "-q", "--hypervisor", "fake", "--hypervisor-arg", "state=24M", "-n", "4", "--fanout", "2",
                "--recover", "--lost-after", "%ds" % LOST_S, "--give-up-after", "%ds" % (4 * LOST_S), "--hosts", "n[1-3]",
                "f.yaml", timeout=120)
    if not tap.ok(r.code == 0, "up: 4 VMs on 3 nodes", r):
        return
    refusals(tap, lab)
    plain(tap, lab)
    src = node_of(lab, 1)
    r = migrate(lab, 1, "n1", "--timeout", "1ms")
    tap.ok(r.code == 1 and "in time" in r.said, "no time for it: it stays", r)
    tap.ok(wait_for(BOUND_S, lambda: vms(lab)[1] == ("ready", src)), "where it was, and ready", vms(lab))
    r = Rounds(tap, lab, Fake, NODES)
    r.run(rounds(False))
    end(tap, lab, r.ignored())


def gaps(text):
    """Seconds between answers of 'ping' that has stamped each."""
    times = [float(w) for w in text.split()]
    return max([b - a for a, b in zip(times, times[1:])] or [0])


PING = "for i in $(seq 400); do ping -c 1 -W 1 vm0 >/dev/null 2>&1 && cut -d' ' -f1 /proc/uptime; [ -e /tmp/enough ] && exit 0; sleep 0.05; done"


STANDS_S = 26  # longer than a target may say nothing


def slow_source(tap, lab):
    """The VMM at the source stands still for a while: nobody else is to blame, and the move goes on."""
    src = node_of(lab, 0)
    to = next(n for n in NODES if n != src)
    vmm = [p for p in lab.processes(src, "vmm") if "guest=vm0" in p.argv]
    signs = Signs({n: lab.lab.root(n) for n in NODES}, 0, src, to)
    lab.rate("20mbit")
    front = lab.start("vse", "migrate", "--json", "0", "--to", to, stdout=-1, stderr=-1)
    wait_for(BOUND_S, signs.began)
    os.kill(vmm[0].pid, signal.SIGSTOP)
    time.sleep(STANDS_S)
    stood = not signs.stands() and front.poll() is None
    os.kill(vmm[0].pid, signal.SIGCONT)
    lab.rate("off")
    out, err = front.communicate(timeout=300)
    tap.ok(front.returncode == 0 and stood and node_of(lab, 0) == to, "a source whose VMM stood for %d s" % STANDS_S, stood, out, err)


def late(tap, lab, src):
    """Post-copy, by users who may have no userfaultfd: it is refused, with the reason, or works. lab-postcopy.t has the rest."""
    to = next(n for n in NODES if n != src)
    r = migrate(lab, 0, to, "--post-copy")
    at = wait_for(BOUND_S, lambda: vms(lab)[0][0] == "ready" and node_of(lab, 0))
    good = at == to if r.code == 0 else r.code == 1 and at == src and "post-copy: not supported: userfaultfd: " in r.said
    tap.ok(good, "post-copy: " + ("works" if r.code == 0 else "refused, as there is no userfaultfd"), r, at)


def writer(tap, lab, moves):
    """TCG before QEMU 9.0 loses writes to memory where it is let (src/hypervisor/qemu_state.h); most easily those of a guest with one
    busy process, which panics or finds numbers of before."""
    r = lab.vse("cp", "/opt/memory-writer", "vm0:/tmp/memory-writer", timeout=60)
    finish = "touch /tmp/stop; for i in $(seq 300); do [ ! -e /tmp/lost ] && [ ! -e /tmp/done ] || break; sleep 0.1; done; cat /tmp/lost /tmp/done 2>/dev/null"
    said = []
    for _ in range(moves if r.code == 0 else 0):
        lab.vse("exec", "-r", "0", "rm", "-f", "/tmp/stop", "/tmp/lost", "/tmp/done", timeout=60)
        r = lab.vse("exec", "-r", "0", "/tmp/memory-writer", "1024", timeout=60)
        src = node_of(lab, 0)
        r = r if r.code else migrate(lab, 0, next(n for n in NODES if n != src))
        if r.code:
            break
        time.sleep(0.5)
        said.append(lab.vse("exec", "-r", "0", "sh", "-c", finish, timeout=90).text.strip())
    tap.ok(len(said) == moves and all(s.isdigit() and int(s) > 1 for s in said),
           "in %d moves no write of a program that only writes is lost" % moves, r, *said,
           "" if r.code == 0 else lab.vse("logs", "0").text[-6000:])


def real(tap, lab):
    """VMs of QEMU; one counts, on its disk and in its memory, and answers the other."""
    r = lab.vse("up", "-q", "-n", "2", "--accel", "tcg", "--oversubscribe", "--scratch", "32M", "--recover",
                "--lost-after", "%ds" % Qemu.LOST_S, "--hosts", "n[1-3]", "bb.yaml", timeout=300)
    if not tap.ok(r.code == 0, "up: 2 VMs of QEMU on 3 nodes", r, lab.vse("events")):
        return
    src = node_of(lab, 0)
    boot = lab.vse("exec", "-r", "0", "cat", "/proc/sys/kernel/random/boot_id", timeout=60).text
    writer(tap, lab, 30 if harness.NIGHTLY else 6)
    src = node_of(lab, 0)
    r = counting.begin(lab)
    tap.ok(r.code == 0, "a counter that writes each number to the disk runs in both", r)
    if harness.NIGHTLY:
        slow_source(tap, lab)
        src = node_of(lab, 0)
    late(tap, lab, src)
    src = node_of(lab, 0)
    pings = lab.start("vse", "exec", "-r", "1", "sh", "-c", PING, stdout=-1, stderr=-1)
    to = "n3" if src != "n3" else "n1"
    r = migrate(lab, 0, to)
    m = moved(r)
    tap.ok(len(m) == 1, "vm0 is moved from %s to %s as it runs" % (src, to), r, m or lab.vse("logs", "0").text[-6000:])
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
    counting.check(tap, lab, 2)
    r = Rounds(tap, lab, Qemu, NODES)
    r.run(rounds(True))
    end(tap, lab, r.ignored())


def with_qemu(tap):
    with tempfile.TemporaryDirectory(dir=os.environ.get("VSE_TEST_TMP")) as folder:
        program = os.path.join(folder, "memory-writer")
        subprocess.run(["cc", "-O1", "-static", "-o", program, harness.TOP / "tests/system/memory-writer.c"], check=True)
        os.chmod(folder, 0o755)
        with labworld.real_lab(nodes=3, ssh=True, binds=[("n0", program, "/opt/memory-writer")]) as (lab, why):
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
