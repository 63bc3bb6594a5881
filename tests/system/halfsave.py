# SPDX-License-Identifier: Apache-2.0
"""Saves that are cut off: the front end is killed while the VMs stand still."""
import contextlib
import glob
import json
import os
import signal
import time

TRIES = 20


def states(w):
    r = w.vse("ps", "--json")
    clusters = json.loads(r.out)["clusters"] if r.code == 0 else []
    return [vm["state"] for vm in clusters[0]["vms"]] if clusters else []


def within(seconds, condition):
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def child_of(w, process):
    """What the nsenter of a Lab runs, once it does."""
    while process.poll() is None:
        try:
            return w.inner(process)
        except IndexError:
            time.sleep(0.001)
    return process.pid


def ran_ns(pid):
    try:
        with open("/proc/%d/schedstat" % pid) as f:
            return int(f.read().split()[0])
    except OSError:
        return -1


def go_on(process, pid):
    """An nsenter stops with what it runs."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)
    process.send_signal(signal.SIGCONT)


def slice_of(process, pid):
    """Lets it run, until it has or seems to wait for somebody; then it is stopped again."""
    before, until = ran_ns(pid), time.monotonic() + 0.03
    go_on(process, pid)
    while ran_ns(pid) == before and time.monotonic() < until:
        time.sleep(0.001)
    os.kill(pid, signal.SIGSTOP)


def catch(w, process, pid, part, paused=0):
    """Lets it run in slices until more VMs than those are paused, and leaves it stopped there; False: it has ended."""
    while process.poll() is None and not glob.glob(part):
        time.sleep(0.001)
    try:
        os.kill(pid, signal.SIGSTOP)
        while process.poll() is None:
            if states(w).count("paused") > paused:
                return True
            slice_of(process, pid)
    except ProcessLookupError:
        pass
    return False


def interrupted(tap, w, program, folder, files, signo, vms):
    """`files`: the folder in which `folder` is made, as a path of this machine."""
    before = sorted(os.listdir(files))
    for _ in range(TRIES):
        save = w.start(program, "save", "-q", "--to", folder)
        pid = child_of(w, save) if hasattr(w, "inner") else save.pid
        caught = catch(w, save, pid, os.path.join(files, os.path.basename(folder) + ".part-*"))
        if caught:
            os.kill(pid, signo)
            go_on(save, pid)
        save.wait(60)
        if caught and not os.path.exists(os.path.join(files, os.path.basename(folder))):
            break
        w.call("rm", "-r", folder)
    name = "a save is cut off by %s" % signal.Signals(signo).name
    tap.ok(caught and save.returncode != 0, name + " while VMs are paused", save.returncode)
    tap.ok(within(20, lambda: states(w) == ["ready"] * vms), name + ": the VMs go on", states(w))
    tap.ok(within(10, lambda: sorted(os.listdir(files)) == before), name + ": nothing of it stays", os.listdir(files))


def whole(saved, vms):
    return all(os.path.exists(os.path.join(saved, name)) for name in
               ["cluster.json"] + ["vm%d.%s" % (n, kind) for n in range(vms) for kind in ("json", "state")])


def caught_save(w, program, folder, files, paused):
    """A save whose front end is stopped while its VMs stand still, and its pid; None: it was always too fast."""
    for _ in range(TRIES):
        save = w.start(program, "save", "-q", "--to", folder)
        pid = child_of(w, save)
        if catch(w, save, pid, os.path.join(files, os.path.basename(folder) + ".part-*"), paused):
            return save, pid
        save.wait(60)
        w.call("rm", "-r", folder)
    return None, 0


def beheaded(tap, lab, folder, files, node, want):
    """The agent of a node is killed in the middle of a save: once the front end lives, once it dies with it. `want`: the states of
    the VMs before and after."""
    before = sorted(os.listdir(files))
    saved = os.path.join(files, os.path.basename(folder))
    for signo in (signal.SIGCONT, signal.SIGKILL):
        name = "an agent is killed in the middle of a save%s" % (", and the front end" if signo == signal.SIGKILL else "")
        # One that was whole when it was stopped is kept, rightly: the next one is to be caught earlier.
        for _ in range(TRIES):
            killed, half = [], None
            save, pid = caught_save(lab, "vse", folder, files, want.count("paused"))
            still = save and within(20, lambda: set(states(lab)) == {"paused"})
            if not still:
                break
            killed = lab.kill(node)
            os.kill(pid, signo)
            go_on(save, pid)
            save.wait(60)
            half = not whole(saved, len(want))
            if half or not within(30, lambda: states(lab) == want):
                break
            lab.call("rm", "-r", folder)
        if not tap.ok(still, name + ": all VMs stand still", states(lab)):
            continue
        tap.ok(half and len(killed) == 1 and save.returncode != 0 and not os.path.exists(saved),
               name + ": it came to nothing", killed, save.returncode)
        tap.ok(within(30, lambda: states(lab) == want), name + ": the VMs go on, those of that agent too", states(lab))
        tap.ok(within(10, lambda: sorted(os.listdir(files)) == before), name + ": nothing of it stays", os.listdir(files))
        ranks = ",".join(str(i) for i, s in enumerate(want) if s == "ready")
        # A guest whose agent has changed says hello once more when it goes on.
        tap.ok(within(20, lambda: lab.vse("exec", "-r", ranks, "true", timeout=60).code == 0), name + ": they answer",
               lab.vse("ps"))
