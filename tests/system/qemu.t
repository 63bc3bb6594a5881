#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What only real VMs show: exec, copies, the network between them, terminals, a VMM that dies, guests that misbehave."""
import json
import os
import shutil
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
from harness import BUILD, BUSYBOX_VSE, NIGHTLY, VSE, Tap, real_world  # noqa: E402


def main():
    tap = Tap()
    world, file, why = real_world()
    if not world:
        print("1..0 # SKIP " + why)
        return 0
    with world:
        checks(tap, world, file)
        if NIGHTLY:
            hung(tap, world, file)
    return tap.done()


def hung(tap, w, file):
    """A VMM that stops in the boot of its guest."""
    front = w.start(VSE, "up", "--name", "h", "-n", "2", "--parallel", "2", "--hung-after", "1s", "--timeout", "1h", file,
                    stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    stopped = 0
    while not stopped and front.poll() is None:
        r = w.vse("ps", "--json")
        for c in json.loads(r.out)["clusters"] if r.code == 0 else []:
            for v in c["vms"][1:]:
                if v["state"] == "booting" and v["pid"]:
                    stopped = v["pid"]
                    os.kill(stopped, signal.SIGSTOP)
        time.sleep(0.05)
    out, _ = front.communicate(timeout=600)
    tap.ok(stopped and front.returncode == 0 and b"vm1: no sign of life" in out and b"vm0: no" not in out,
           "a VM whose VMM stands still in its boot is started anew, the other is not", out.decode())
    w.vse("down", "h")


def checks(tap, w, file):
    def vse(name, *args, code=0, out=None, said="", **kw):
        r = w.vse(*args, **kw)
        good = r.code == code and (out is None or out(r.text) if callable(out) else out in (None, r.text)) and said in r.said
        tap.ok(good, name, r)
        return r

    # As much as no node gives: the kernel promises no single mapping beyond memory and swap together.
    total = sum(int(line.split()[1]) for line in open("/proc/meminfo") if line.startswith(("MemTotal:", "SwapTotal:")))
    if open("/proc/sys/vm/overcommit_memory").read().strip() != "1":
        vse("up: more memory than there is", "up", "-q", "--name", "big", "--memory", "%dG" % ((total >> 19) + 1), file, code=1, timeout=120,
            said=" free: ask for less (--memory")
    vse("up: 2 VMs", "up", "-q", "-n", "2", file, timeout=120)
    ps = json.loads(w.vse("ps", "--json").out)["clusters"][0]
    tap.ok(ps["accel"] in ("kvm", "tcg") and all(v["pid"] > 0 and v["memory_used"] > 1 << 20 for v in ps["vms"]),
           "ps knows the accelerator and the VMMs", ps)

    # exec
    def both(line):
        """Of both VMs: folded, unless one was much later than the other (a busy machine)."""
        apart = ["vm0: %s\n" % line, "vm1: %s\n" % line]
        return lambda t: t in ("vm[0-1]: %s\n" % line, "".join(apart), "".join(reversed(apart)))

    vse("exec: output is folded", "exec", "uname", "-s", out=both("Linux"))
    vse("exec: words arrive whole", "exec", "-r", "0", "--", "echo", "a  b", "", "$HOME", "'", "\\", "é",
        out="a  b  $HOME ' \\ é\n")
    vse("exec: exit code", "exec", "-r", "1", "sh", "-c", "exit 42", code=42)
    vse("exec: signal", "exec", "-r", "1", "sh", "-c", "kill -9 $$", code=137)
    vse("exec: not there", "exec", "-r", "0", "/no/such", code=127)
    vse("exec: as a user", "exec", "-r", "0", "-u", "user", "id", "-un", out="user\n")
    vse("exec: environment and folder", "exec", "-r", "1", "-e", "X=1 2", "-w", "/etc", "sh", "-c",
        "echo $X $PWD $VSE_RANK $VSE_SIZE $VSE_NAME", out="1 2 /etc 1 2 bb\n")
    blob = os.urandom(2 << 20)
    r = w.vse("exec", "-r", "0", "cat", stdin=blob, timeout=60)
    tap.ok(r.code == 0 and r.out == blob, "exec: 2 MB of bytes through cat are the same", r.code, len(r.out))
    r = w.vse("exec", "-r", "0", "sh", "-c", "echo out; echo err >&2")
    tap.ok(r.out == b"out\n" and r.err == b"err\n", "exec: stderr is apart", r)

    # copies
    (w.dir / "tree/sub").mkdir(parents=True)
    (w.dir / "tree/a").write_bytes(blob)
    (w.dir / "tree/sub/run").write_text("#!/bin/sh\necho ran\n")
    (w.dir / "tree/sub/run").chmod(0o755)
    (w.dir / "tree/link").symlink_to("sub/run")
    vse("cp: a folder into all VMs", "cp", "-q", w.dir / "tree", "all:/tmp/")
    vse("cp: modes and links are kept", "exec", "/tmp/tree/link", out=both("ran"))
    vse("cp: out of all VMs", "cp", "-q", "all:/tmp/tree", w.dir / "back")
    same = [w.call("diff", "-r", w.dir / "tree", w.dir / "back" / vm / "tree").code for vm in ("vm0", "vm1")]
    tap.ok(same == [0, 0], "cp: what comes back is what went", w.call("find", w.dir / "back").text)
    vse("cp: out of one VM", "cp", "-q", "vm1:/tmp/tree/a", w.dir / "one")
    tap.ok((w.dir / "one").read_bytes() == blob, "cp: one file, the same bytes")
    vse("cp: what is not there", "cp", "-q", "vm0:/no/such", w.dir / "none", code=1, said="vse cp: vm0: ")
    tap.ok(not (w.dir / "none").exists(), "cp: and nothing appears")
    vse("cp: a full disk inside", "exec", "-r", "0", "sh", "-c", "mkdir -p /small && mount -t tmpfs -o size=64k none /small")
    vse("cp: no room in the VM", "cp", "-q", w.dir / "one", "vm0:/small/", code=1, said="o space left")
    vse("cp: nothing half is left there", "exec", "-r", "0", "ls", "-A", "/small", out="")

    # network
    vse("network: names and packets", "exec", "ping", "-c", "2", "-W", "5", "vm1",
        out=lambda t: t.count("2 packets received") == 2 or "vm[0-1]: 2 packets transmitted, 2 packets received" in t)

    # terminals
    for term, size in (("xterm", "24 80"), ("dumb", "5 10"), (None, "24 80")):
        env = {k: v for k, v in w.env.items() if k != "TERM"}
        if term:
            env["TERM"] = term
        rows, cols = size.split()
        line = "stty rows %s cols %s; '%s' exec -t -r 0 sh -c 'tty; stty size; echo TERM=$TERM'" % (rows, cols, VSE)
        r = w.call("script", "-qec", line, "/dev/null", env=env, timeout=30)
        tap.ok(r.code == 0 and "/dev/pts/" in r.text and size in r.text and "TERM=%s" % (term or "dumb") in r.text,
               "terminal: TERM=%s, %s columns" % (term, cols), r)

    # guests that misbehave
    r = w.vse("exec", "-r", "0", "timeout", "5", "sh", "-c", "yes console >/dev/console", timeout=60)
    agent = json.loads(w.vse("ps", "--json").out)["clusters"][0]["agent"]
    log = sum(f.stat().st_size for f in (w.run / "vse/bb/vm0").glob("console.log*"))
    tap.ok(log <= 2 << 20 and agent["memory"] < 32 << 20, "a console that never ends: log and memory are bounded", log, agent)
    vse("and exec answers", "exec", "echo", "alive", out=both("alive"))

    # a VMM that dies in the middle
    front = w.start(VSE, "exec", "sleep", "60", stdout=-1, stderr=-1)
    time.sleep(0.5)
    victim = ps["vms"][1]["pid"]
    for p in w.processes("vmm"):
        if p.pid == victim:
            p.kill()
    time.sleep(0.5)
    states = [v["state"] for v in json.loads(w.vse("ps", "--json").out)["clusters"][0]["vms"]]
    tap.ok(states == ["ready", "failed"], "a VMM that was killed is shown as failed, the other as ready", states)
    front.terminate()
    _, err = front.communicate(timeout=10)
    tap.ok(b"vse exec: vm1: " in err, "and exec says so", err)
    vse("restart brings it back", "restart", "1", timeout=120)
    vse("with all that it had at first", "exec", "-r", "1", "hostname", out="vm1\n")
    vse("a guest that powers itself off is stopped", "exec", "-r", "1", "sh", "-c", "poweroff -f || kill -USR2 1; sleep 20",
        code=1, said="vm1: ", timeout=40)
    vse("down, gracefully", "down", "--graceful", timeout=60)
    left = w.clean_within()
    tap.ok(not left, "nothing is left", *left)

    # never ready
    r = w.vse("up", "-q", "--timeout", "300ms", file, timeout=30)
    tap.ok(r.code == 1 and "vse up: vm0: not ready within" in r.said and len(r.said.splitlines()) == 1,
           "a VM that is not ready in time", r)
    r = w.vse("up", "-q", "--hypervisor-arg=-frob", file, timeout=30)
    tap.ok(r.code == 1 and "vse up: vm0: " in r.said and "frob" in r.said, "a VMM that refuses its arguments", r)
    left = w.clean_within()
    tap.ok(not left, "nothing is left", *left)

    # no hypervisor: said before a build, not after
    other = w.write("other.yaml", BUSYBOX_VSE.replace("name: bb", "name: other") % (w.dir / "root"))
    bare = dict(w.env, PATH=str(BUILD))
    r = w.vse("up", "-q", other, env=bare, timeout=60)
    tap.ok(r.code == 1 and len(r.said.splitlines()) == 1 and "qemu-system-x86_64: not in PATH" in r.said and
           "package qemu-system-x86" in r.said, "without QEMU: one line, with the package", r)
    built = [p for n in ("images", "tmp") for p in (w.data / "vse" / n).glob("*")]
    tap.ok(not built, "and nothing was built", *built)
    r = w.vse("up", "-q", other, "--accel", "kvm", env=dict(w.env, VSE_QEMU="/no/qemu"), timeout=60)
    tap.ok(r.code == 1 and "VSE_QEMU=/no/qemu: no such program" in r.said, "the same for a program that was named", r)
    r = w.vse("up", "-q", file, env=bare, timeout=60)
    tap.ok(r.code == 1 and len(r.said.splitlines()) == 1 and "qemu-system-x86_64: not in PATH" in r.said,
           "and where the image is there", r)
    vse("the fake needs none", "up", "-q", "--hypervisor", "fake", other, env=bare, timeout=60)
    vse("down", "down", "other")

    # a run directory that is removed below its cluster: nobody could find that any more
    vse("up: a cluster", "up", "-q", "-n", "2", "--hypervisor", "fake", "--name", "gone", w.fake_vse(), timeout=60)
    front = w.start(VSE, "events", "--follow", "gone", stdout=-1, stderr=-1)
    tap.ok(b"starting" in front.stdout.readline(), "its events are followed")
    shutil.rmtree(w.run / "vse/gone")
    out, _ = front.communicate(timeout=30)
    tap.ok(b"the run directory was removed" in out, "its folder is removed: it says so", out)
    left = w.clean_within()
    tap.ok(not left, "and ends", *left)


if __name__ == "__main__":
    sys.exit(main())
