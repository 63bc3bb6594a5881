#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""vse up --clone: VMs that start from one memory share nothing that must be their own, and where it cannot be they boot."""
import collections
import os
import re
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
sys.dont_write_bytecode = True
from harness import BUILD, BUSYBOX_VSE, Tap, World, busybox_root, real_world, shared_data  # noqa: E402

VMS = 3
NAME = "nobodys-business"
# In place of OpenSSH: what asks for a key gets random bytes, and something listens.
STUBS = {"usr/bin/ssh-keygen": '#!/bin/sh\nhead -c 64 /dev/urandom | sha256sum >"$7"\n',
         "usr/sbin/sshd": "#!/bin/sh\nwhile :; do nc -l -p 22; done\n"}
# What must differ between any two VMs. The last takes as much as a program would.
OWN = {"name": "hostname",
       "rank": "echo $VSE_RANK",
       "address": "ip -4 addr show eth0 | grep -o 'inet [0-9.]*'",
       "address of IPv6": "ip -6 addr show eth0 | grep -o 'inet6 fd[0-9a-f:]*'",
       "MAC": "cat /sys/class/net/eth0/address",
       "machine id": "cat /etc/machine-id",
       "boot id": "cat /proc/sys/kernel/random/boot_id",
       "ssh host key": "cat /etc/ssh/ssh_host_ed25519_key",
       "stream of /dev/urandom": "head -c 4096 /dev/urandom | sha256sum",
       "stream of /dev/random": "head -c 4096 /dev/random | sha256sum"}


def answers(w, command, vms=VMS):
    """What each VM says, by rank."""
    said = []
    for rank in range(vms):
        r = w.vse("exec", "-r", str(rank), "sh", "-c", command, timeout=120)
        said.append(r.text.strip() if r.code == 0 else "")
    return said


def events(w):
    return w.vse("events").text


def fake(tap, w):
    file = w.fake_vse()
    r = w.vse("up", "-q", "--clone", "-n", "4", "--hypervisor", "fake", file)
    tap.ok(r.code == 0 and "from a template made now" in events(w), "the fake clones", r, events(w))
    r = w.vse("exec", "hostname")
    tap.ok(all("vm%d" % n in r.text for n in range(4)), "each with its own name", r)
    r = w.vse("restart", "2")
    tap.ok(r.code == 0 and w.vse("exec", "-r", "2", "hostname").text == "vm2\n", "one that is restarted too", r)
    w.vse("down")
    r = w.vse("up", "--clone", "-n", "2", "--hypervisor", "fake", "--scratch", "16M", file)
    tap.ok(r.code == 0 and "booted, not cloned: each has a scratch disk" in r.said, "with scratch disks they boot, and it says why", r)
    w.vse("down")
    r = w.vse("up", "-q", "--clone", "-n", "2", "--hypervisor", "fake", "--hypervisor-arg=never-hello", "--timeout", "300ms", file)
    tap.ok(r.code == 1 and "not ready" in r.said, "a guest that never says hello: no template, and no VM", r)
    tap.ok(w.clean_within(10) == [], "nothing is left", w.leftovers())


def image():
    """As real_world(), with the stubs: (World, file, None)."""
    world, file, why = real_world()
    if not world:
        return None, None, why
    root = world.dir / "clone"
    busybox_root(root)
    for name, text in STUBS.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
        (root / name).chmod(0o755)
    (root / "etc/ssh").mkdir()
    for folder, names, files in os.walk(root, topdown=False):
        for name in names + files + ["."]:
            os.utime(os.path.join(folder, name), (0, 0), follow_symlinks=False)
    file = world.write("clone.yaml", BUSYBOX_VSE % root)
    r = world.vse("build", file, timeout=900, env=dict(world.env, XDG_DATA_HOME=str(shared_data())))
    return world, file, None if r.code == 0 else r.said


def search(w, words):
    """Which of these words are in the templates of the cache."""
    found = []
    for note in w.dir.glob("cache/*/templates/*.note"):
        key = note.read_text().split("\n")[0]
        for part, kind in (("memory", "disk"), ("state", "state")):
            out = w.dir / ("unpacked." + part)
            with open(note.with_suffix("." + part), "rb") as source, open(out, "wb+") as to:
                subprocess.run([BUILD / "vse-agent", "--pack", "unpack", kind, key], stdin=source, stdout=to, check=True)
            data = out.read_bytes()
            found += [word for word in words if word in data]
            found += [] if b"Linux version" in data or part == "state" else ["no memory of a guest"]
            out.unlink()
    return found


def real(tap, w, file):
    seen = collections.defaultdict(list)

    def up(name, said, n=VMS, how=("--clone",)):
        r = w.vse("up", "-q", *how, "-n", n, "--name", NAME, file, timeout=300)
        tap.ok(r.code == 0 and said in events(w), name, r, events(w))

    def apart(when):
        for what, command in OWN.items():
            values = answers(w, command)
            tap.ok(len(set(values)) == VMS and all(values), "%s: no two VMs share the %s" % (when, what), *values)
            if re.search("id|key|stream", what):
                seen[what] += values

    up("up: one boots, all start from it", "from a template made now")
    apart("clones")
    times = answers(w, "date +%s")
    tap.ok(all(t and abs(int(t) - time.time()) < 60 for t in times), "their clocks are right", times, time.time())
    r = w.vse("exec", "-r", "0", "ping", "-c", "1", "-W", "10", "vm2", timeout=60)
    tap.ok(r.code == 0, "their network works", r)
    r = w.vse("restart", "1", timeout=120)
    tap.ok(r.code == 0 and answers(w, OWN["name"]) == ["vm%d" % n for n in range(VMS)], "restart: from the template, as itself", r)
    seen["boot id"] += [answers(w, OWN["boot id"])[1]]
    folder = str(w.dir / "saved")
    before = answers(w, OWN["boot id"])
    r = w.vse("save", "-q", "--down", "--to", folder, timeout=300)
    tap.ok(r.code == 0, "clones can be saved", r)
    r = w.vse("restore", "-q", folder, timeout=300)
    tap.ok(r.code == 0 and answers(w, OWN["boot id"]) == before, "and restored, as they were", r, before, answers(w, OWN["boot id"]))
    w.vse("down", timeout=60)

    found = search(w, [NAME.encode(), b"PRIVATE KEY", b"VSE_RANK=", b"vm1"])
    tap.ok(list(w.dir.glob("cache/*/templates/*.note")) and found == [], "the template that is kept knows nothing of the cluster", found)
    up("another cluster: from the template of the cache", "from a template of the cache")
    apart("from the cache")
    w.vse("down", timeout=60)
    for n in 1, VMS:
        up("up -n %d: from the template of the cache, though nobody asked for clones" % n, "from a template of the cache", n, ())
        w.vse("down", timeout=60)
    r = w.vse("up", "-q", "--no-clone", "-n", "1", file, timeout=300)
    tap.ok(r.code == 0 and "template" not in events(w), "--no-clone: it boots", r, events(w))
    w.vse("down", timeout=60)
    for what, values in seen.items():
        again = [v for v, n in collections.Counter(values).items() if n > 1]
        tap.ok(again == [], "over all of them: every %s is seen once" % what, *again)

    for memory in w.dir.glob("cache/*/templates/*.memory"):
        data = bytearray(memory.read_bytes())
        data[len(data) // 2] ^= 1
        memory.write_bytes(data)
    up("a template that is damaged is made anew", "from a template made now", 2)
    w.vse("down", timeout=60)
    for path in w.dir.glob("cache/*/templates/*"):
        path.unlink()
    up("two VMs, nothing is kept: they boot", "ready", 2, ())
    tap.ok("template" not in events(w) and "not cloned" not in events(w), "without a word", events(w))
    w.vse("down", timeout=60)
    up("four: from a template that is made now", "from a template made now", 4, ())
    w.vse("down", timeout=60)
    r = w.vse("up", "-q", "--clone", "-n", "2", "--scratch", "16M", file, timeout=300)
    tap.ok(r.code == 0 and "not cloned: each has a scratch disk" in events(w), "what cannot be cloned boots, and it says why", r)
    w.vse("down", timeout=60)
    tap.ok(w.clean_within(10) == [], "nothing is left", w.leftovers())


def main():
    tap = Tap()
    with World() as world:
        fake(tap, world)
    world, file, why = image()
    if world:
        with world:
            if why:
                tap.ok(False, "the image is built", why)
            else:
                real(tap, world, file)
    else:
        tap.skip("with real VMs", why)
    return tap.done()


if __name__ == "__main__":
    sys.exit(main())
