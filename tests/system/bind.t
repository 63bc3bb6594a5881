#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""CPUs of the node for VMs, memory near them, memory in reserved pages: as the kernel says it is, through restart, clones,
save and restore."""
import fcntl
import json
import os
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
from harness import NIGHTLY, Tap, real_world, why_no_numa  # noqa: E402

POOL = Path("/proc/sys/vm/nr_hugepages")
PAGE = 2 << 20
MEMORY = 96 << 20


def main():
    tap = Tap()
    own = sorted(os.sched_getaffinity(0))
    if len(own) < 2:
        print("1..0 # SKIP one CPU: there is nothing to choose")
        return 0
    os.sched_setaffinity(0, own[:2])  # what follows has these two, as in an allocation
    world, file, why = real_world()
    if not world:
        print("1..0 # SKIP " + why)
        return 0
    with world:
        checks(tap, world, file, own[:2])
        hugepages(tap, world, file)
    if NIGHTLY and not why_no_numa():
        without_numa(tap)
    return tap.done()


def without_numa(tap):
    """This test, as on a kernel that has no memory policies."""
    nonuma = Path(__file__).resolve().parent / "nonuma.py"
    r = subprocess.run([sys.executable, nonuma, sys.executable, __file__], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                       timeout=1800)
    tap.ok(r.returncode == 0 and b"SKIP get_mempolicy: " in r.stdout, "the same on a kernel without NUMA", r.stdout.decode())


def vms(w):
    clusters = json.loads(w.vse("ps", "--json").out)["clusters"]
    return clusters[0]["vms"] if clusters else []


def threads(pid):
    """The sets of CPUs that the threads of a process may run on."""
    found = []
    for task in Path("/proc/%d/task" % pid).iterdir():
        try:
            found.append(tuple(sorted(os.sched_getaffinity(int(task.name)))))
        except OSError:
            pass
    return found


def memory_bound(pid):
    """What is the process's own follows its policy: "bind:0"."""
    lines = Path("/proc/%d/numa_maps" % pid).read_text().splitlines()
    return bool(lines) and all(line.split()[1].startswith("bind:") for line in lines)


def expect_bound(tap, w, name, cpus, memory):
    """memory: whether it is bound; None: there is no telling here."""
    all_vms = vms(w)
    taken = [tuple(sorted(c for part in v.get("bound_to", "").split(",") if part
                          for c in range(int(part.split("-")[0]), int(part.split("-")[-1]) + 1))) for v in all_vms]
    tap.ok(sorted(c for t in taken for c in t) == sorted(cpus), name + ": each has CPUs of its own", all_vms)
    tap.ok(all(set(threads(v["pid"])) == {t} for v, t in zip(all_vms, taken)), name + ": and the kernel keeps it there",
           [(v["pid"], threads(v["pid"])) for v in all_vms])
    if memory is not None:
        tap.ok(all(memory_bound(v["pid"]) == memory for v in all_vms), name + ": memory is %s" % ("bound" if memory else "free"))


def ready(w, rank, pid_not=0):
    until = time.monotonic() + 120
    while time.monotonic() < until:
        v = [v for v in vms(w) if v["rank"] == rank]
        if v and v[0]["state"] == "ready" and v[0]["pid"] != pid_not:
            return True
        time.sleep(0.2)
    return False


def checks(tap, w, file, own):
    def vse(name, *args, code=0, said="", **kw):
        r = w.vse(*args, **kw)
        tap.ok(r.code == code and said in r.said, name, r)
        return r

    one = ("--memory", "96M", "-q", "--timeout", "5m")
    vse("mem-bind alone says what it lacks", "up", *one, "--mem-bind", "local", file, code=2, said="cpu-bind threads or cores")
    r = vse("three VMs do not fit on two CPUs", "up", *one, "-n", "3", "--cpu-bind", "threads", file, code=1,
            said="cpu-bind: 3 CPUs wanted, 2 of the 2 that this agent may use are free")
    tap.ok(len(r.said.strip().splitlines()) == 1, "and that is one line", r)
    why = why_no_numa()
    local = () if why else ("--mem-bind", "local")
    bound, free = (None, None) if why else (True, False)
    if why:
        tap.skip("memory of the CPUs' NUMA node", why)
    if why and why.startswith("get_mempolicy"):
        r = vse("it is refused", "up", *one, "--cpu-bind", "threads", "--mem-bind", "local", file, code=1,
                said="numa: not supported: memory policies cannot be set here: ")
        tap.ok(len(r.said.strip().splitlines()) == 1, "in one line", r)
    vse("up: bound", "up", *one, "-n", "2", "--no-clone", "--cpu-bind", "threads", *local, file, timeout=300)
    expect_bound(tap, w, "up", own, bound)
    before = {v["rank"]: v["pid"] for v in vms(w)}
    vse("restart", "restart", "vm0", timeout=300)
    tap.ok(ready(w, 0, before[0]), "it is ready again")
    expect_bound(tap, w, "restart", own, bound)
    vse("save", "save", "-q", "--down", "--to", w.dir / "saved", timeout=300)
    vse("restore, bound otherwise", "restore", "-q", "--cpu-bind", "threads", "--mem-bind", "none", w.dir / "saved", timeout=300)
    expect_bound(tap, w, "restore", own, free)
    vse("down", "down")
    vse("up: clones", "up", *one, "-n", "2", "--clone", "--cpu-bind", "cores", *local, "--oversubscribe", file,
        timeout=300)
    said = w.vse("events").text
    tap.ok("start from a template" in said, "they are clones", said)
    if not why:
        tap.ok(all(memory_bound(v["pid"]) for v in vms(w)), "and bound")
    vse("down", "down")
    vse("up: shared CPUs", "up", *one, "-n", "3", "--cpu-bind", "threads", "--oversubscribe", file, timeout=300)
    tap.ok(sorted(v["bound_to"] for v in vms(w)) == sorted([str(own[0]), str(own[0]), str(own[1])]), "the least taken first", vms(w))
    vse("down", "down")


def reserve(pages):
    """So many reserved pages more, or fewer; other tests may do the same meanwhile."""
    with POOL.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        POOL.write_text(str(int(POOL.read_text()) + pages))


def in_pages(pid):
    for line in Path("/proc/%d/status" % pid).read_text().splitlines():
        if line.startswith("HugetlbPages:"):
            return int(line.split()[1]) << 10
    return 0


def hugepages(tap, w, file):
    r = w.vse("up", "-q", "--memory", "16T", "--hugepages", file, timeout=60)
    tap.ok(r.code == 1 and "hugepages: " in r.said and len(r.said.strip().splitlines()) == 1,
           "reserved pages that are not there: refused in one line", r)
    if not os.access(POOL, os.W_OK):
        tap.skip("reserved pages", "only root can reserve them")
        return
    need = 2 * MEMORY // PAGE
    reserve(need)
    try:
        r = w.vse("up", "-q", "-n", "2", "--memory", "95M", "--hugepages", "--clone", file, timeout=300)
        tap.ok(r.code == 0 and "VMs are booted, not cloned" in r.said + w.vse("events").text, "up: in reserved pages", r)
        tap.ok([in_pages(v["pid"]) for v in vms(w)] == 2 * [MEMORY], "all of their memory is, in whole pages", vms(w))
        w.vse("down")
        r = w.vse("restore", "-q", "--hugepages", w.dir / "saved", timeout=300)
        tap.ok(r.code == 0 and [in_pages(v["pid"]) for v in vms(w)] == 2 * [MEMORY], "restored into reserved pages", r)
        w.vse("down")
    finally:
        reserve(-need)


if __name__ == "__main__":
    sys.exit(main())
