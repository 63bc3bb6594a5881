#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""vse save and vse restore: whole clusters, memory and disk of one moment; and what must be refused."""
import os
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
sys.dont_write_bytecode = True
import counting  # noqa: E402
from halfsave import interrupted, states  # noqa: E402
from harness import VSE, Tap, World, real_world  # noqa: E402

VMS = 4


def fake(tap, w):
    def vse(name, *args, code=0, said="", **kw):
        r = w.vse(*args, **kw)
        tap.ok(r.code == code and said in r.said + r.text, name, r)
        return r

    file = w.fake_vse()
    folder = str(w.dir / "saved")
    vse("up", "up", "-q", file, "-n", "3", "--hypervisor", "fake", "--scratch", "16M")
    vse("save", "save", "--to", folder, said=folder)
    tap.ok(states(w) == ["ready"] * 3, "the VMs go on", states(w))
    names = sorted(os.listdir(folder))
    tap.ok(names == ["cluster.json"] + ["vm%d.%s" % (r, x) for r in range(3) for x in ("disk", "json", "state")],
           "the folder has each VM's state and disk", names)
    tap.ok(all(os.stat(os.path.join(folder, n)).st_mode & 0o77 == 0 for n in names + ["."]), "nobody else may read it")
    vse("a folder that is there is not overwritten", "save", "--to", folder, code=1, said="is there already")
    vse("a folder that cannot be made", "save", "--to", str(w.dir / "no/where"), code=1, said="No such file")
    vse("restore beside the one that runs", "restore", folder, code=1, said="runs already")
    for signo in (signal.SIGKILL, signal.SIGINT):
        interrupted(tap, w, VSE, folder + "0", w.dir, signo, 3)
    w.vse("pause", "1")
    vse("save with a VM that is paused", "save", "--to", folder + "2")
    tap.ok(states(w) == ["ready", "paused", "ready"], "it stays so", states(w))
    w.vse("stop", "2")
    vse("save with a VM that is stopped", "save", "--to", folder + "3", code=1, said="vm2: cannot save: it is stopped")
    left = [n for n in os.listdir(w.dir) if n.startswith("saved3")]
    tap.ok(not left and states(w)[0] == "ready", "and nothing of it stays", left, states(w))
    w.vse("down")

    vse("restore", "restore", folder, said="3 VMs ready")
    tap.ok(states(w) == ["ready"] * 3, "all are ready", states(w))
    vse("they work", "exec", "hostname", said="vm2")
    vse("save of a restored cluster, and down", "save", "-q", "--down", "--to", folder + "4")
    tap.ok(states(w) == [], "it is down")
    vse("that one under another name", "restore", "-q", "--name", "other", folder + "4")
    w.vse("down", "other")
    vse("no save", "restore", str(w.dir), code=1, said="cluster.json")

    def damaged(name, file, change, said):
        path = os.path.join(folder, file)
        data = open(path, "rb").read()
        with open(path, "wb") as f:
            f.write(change(data))
        vse(name + " is refused", "restore", folder, code=1, said=said)
        with open(path, "wb") as f:
            f.write(data)

    damaged("a state that is cut short", "vm1.state", lambda d: d[:-30], "vm1")
    damaged("a state with another byte", "vm1.state", lambda d: d[:150] + bytes([d[150] ^ 1]) + d[151:], "vm1")
    damaged("another VM's state", "vm1.state", lambda d: open(os.path.join(folder, "vm2.state"), "rb").read(), "vm1")
    damaged("a disk with another byte", "vm0.disk", lambda d: d[:200] + bytes([d[200] ^ 1]) + d[201:],
            "vm0: scratch disk: the saved file is damaged")
    damaged("a VM without its note", "vm2.json", lambda d: b"", "vm2")
    damaged("a cluster without its note", "cluster.json", lambda d: d[:40], "not what 'vse save' writes")
    vse("as it was, it is restored", "restore", "-q", folder)
    w.vse("down")
    let_go_meanwhile(tap, w, file)
    tap.ok(w.clean_within(5) == [], "nothing is left", w.leftovers())


def let_go_meanwhile(tap, w, file):
    """Somebody resumes VMs that stand still to be saved."""
    w.vse("up", "-q", file, "-n", "3", "--hypervisor", "fake", "--hypervisor-arg", "state=96M")
    w.vse("pause", "2")
    folder = str(w.dir / "let-go")
    save = subprocess.Popen([VSE, "save", "-q", "--to", folder], env=w.env, stderr=subprocess.PIPE)
    tries = []
    while save.poll() is None:
        tries.append(w.vse("resume", "0-1"))
    said = save.communicate()[1].decode()
    refused = [r for r in tries if r.code]
    tap.ok(refused and all("cannot resume: it is being saved" in r.said for r in refused), "resume of a VM that is being saved is refused",
           *tries)
    tap.note("%d of %d refused" % (len(refused), len(tries)))
    tap.ok(save.returncode == 0 and states(w) == ["ready", "ready", "paused"], "the save ends well, and they go on", said, states(w))
    r = w.vse("resume", "2")
    tap.ok(r.code == 0, "then the one that was paused is resumed", r)
    pause_meanwhile(tap, w)
    two_saves(tap, w)
    w.vse("down")


def during(w, save, what):
    """What each of many tries gave while the save ran."""
    tries = []
    while save.poll() is None:
        tries.append(what())
    return tries, save.communicate()[1].decode()


def begin_save(w, name):
    return subprocess.Popen([VSE, "save", "-q", "--to", str(w.dir / name)], env=w.env, stderr=subprocess.PIPE)


def pause_meanwhile(tap, w):
    """A pause of a VM that is being saved would be undone with the save."""
    tries, said = during(w, begin_save(w, "paused-meanwhile"), lambda: w.vse("pause", "1"))
    refused = [r for r in tries if r.code]
    # One that came before the save made it refuse; one after it was heeded.
    tap.ok(refused and all("cannot pause: it is being saved" in r.said for r in refused), "pause of a VM that is being saved is refused", *tries)
    want = ["ready", "ready" if all(r.code for r in tries) else "paused", "ready"]
    tap.ok(states(w) == want, "and none that was heeded is undone", states(w), want, said)
    w.vse("resume", "1")
    # The front end dies while its save is under way: VMs go on by themselves, unless somebody paused them meanwhile.
    save = begin_save(w, "killed")
    while states(w) == ["ready"] * 3 and save.poll() is None:
        pass
    save.kill()
    save.communicate()
    for _ in range(200):
        r = w.vse("pause", "0")
        if r.code == 0:
            break
        time.sleep(0.05)
    for _ in range(200):
        if states(w)[1:] == ["ready", "ready"]:
            break
        time.sleep(0.05)
    time.sleep(0.3)
    tap.ok(r.code == 0 and states(w) == ["paused", "ready", "ready"], "a pause after a save that died stays", r, states(w))
    w.vse("resume", "0")


def two_saves(tap, w):
    """Of two saves at once one is made, and the other one told so; afterwards all go on."""
    saves = [begin_save(w, "at-once-%d" % i) for i in range(2)]
    said = [s.communicate()[1].decode() for s in saves]
    codes = sorted(s.returncode for s in saves)
    # Where the first was over before the second began, both are made.
    lost = [t for s, t in zip(saves, said) if s.returncode]
    tap.ok(codes in ([0, 1], [0, 0]) and all("another save has it" in t or "cannot save: it is" in t for t in lost),
           "two saves at once: one is refused", codes, *said)
    tap.ok(states(w) == ["ready"] * 3, "and the VMs go on", states(w))
    whole = [n for n in os.listdir(w.dir) if n.startswith("at-once")]
    tap.ok(len(whole) == codes.count(0), "nothing is left of the other", whole)


def identity(w):
    """Boot ids and machine ids of all, in order."""
    r = w.vse("exec", "--", "cat", "/proc/sys/kernel/random/boot_id", "/etc/machine-id", timeout=60)
    return sorted(line for line in r.text.splitlines() if ": " in line)


def real(tap, w, file):
    r = w.vse("up", "-q", "-n", str(VMS), "--scratch", "64M", file, timeout=300)
    tap.ok(r.code == 0, "up: %d VMs" % VMS, r)
    r = counting.begin(w)
    tap.ok(r.code == 0, "a counter that writes each number to the disk runs in all", r)
    time.sleep(2)
    folder = str(w.dir / "saved")
    who = identity(w)
    begin = time.monotonic()
    r = w.vse("save", "-q", "--to", folder, timeout=300)
    tap.ok(r.code == 0, "save, while they count", r)
    size = sum(os.path.getsize(os.path.join(folder, n)) for n in os.listdir(folder))
    tap.note("saved in %.1f s: %.1f MB" % (time.monotonic() - begin, size / 1e6))
    tap.ok(states(w) == ["ready"] * VMS, "they go on", states(w))
    interrupted(tap, w, VSE, folder + "0", w.dir, signal.SIGKILL, VMS)
    r = w.vse("exec", "cat", "/run/counter.pid", timeout=60)
    tap.ok(r.code == 0, "and answer", r)
    while w.processes():
        for p in w.processes():
            p.kill()
    tap.ok(w.processes() == [] and states(w) == [], "all is killed, and nothing is left but the save", w.processes())

    begin = time.monotonic()
    r = w.vse("restore", "-q", folder, timeout=300)
    tap.ok(r.code == 0, "restore", r)
    tap.note("restored in %.1f s" % (time.monotonic() - begin))
    counting.check(tap, w, VMS)
    tap.ok(len(set(who)) == 2 * VMS and identity(w) == who, "each is the machine that it was, and none another", who, identity(w))
    r = w.vse("exec", "date", "+%s", timeout=60)
    times = [int(line.split(": ")[1]) for line in r.text.splitlines() if ": " in line]
    tap.ok(times and all(abs(t - time.time()) < 60 for t in times), "their clocks are right", r, time.time())
    r = w.vse("exec", "-r", "0", "ping", "-c", "1", "-W", "5", "vm3", timeout=60)
    tap.ok(r.code == 0, "their network works", r)
    w.vse("down", timeout=60)
    tap.ok(w.clean_within(10) == [], "nothing is left", w.leftovers())


def main():
    tap = Tap()
    with World() as world:
        fake(tap, world)
    world, file, why = real_world()
    if world:
        with world:
            real(tap, world, file)
    else:
        tap.skip("with real VMs", why)
    return tap.done()


if __name__ == "__main__":
    sys.exit(main())
