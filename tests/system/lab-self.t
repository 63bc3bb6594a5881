#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The lab of nodes itself (tests/lab): other tests believe what it says."""
import glob
import os
import signal
import subprocess
import sys
import time

sys.dont_write_bytecode = True
import harness
import labworld

LAB = str(harness.TOP / "tests/lab/lab")


def until(seconds, condition):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def traces(name):
    """What this machine still has of a lab."""
    found = glob.glob("/run/vse-lab/" + name) + glob.glob("/sys/fs/cgroup/*/vse-lab-" + name)
    with open("/proc/self/mounts") as f:
        return found + [line for line in f if "/vse-lab/%s/" % name in line]


def gone(pids):
    """None runs any more; that somebody has yet to collect an exit status is nothing of ours."""
    return not any(labworld.client.one_process(pid, None) for pid in pids)


def nodes_view(tap, lab):
    r = lab.call("ssh", "n3", "hostname; id -un; pwd")
    tap.ok(r.text.split() == ["n3", "labuser", "/home/labuser"], "ssh from n0 to n3", r)
    r = lab.call("ssh", "-o", "BatchMode=yes", "n1", "true", user="labother")
    tap.ok(r.code == 255, "another user has no key", r)
    r = lab.call("sh", "-c", "ls /dev/kvm /dev/net/tun %s/check; touch /usr/x /etc/x /var/lib/x" % harness.TOP,
                 user=None, node="n1")
    tap.ok("/dev/kvm'" in r.said and "tun'" in r.said and "check'" in r.said and "/usr/x'" in r.said and
           "lib/x'" in r.said, "no kvm, no tun, no sources, nothing of the machine can be written, by root neither", r)
    r = lab.vse("--version")
    tap.ok(r.code == 0 and r.text.startswith("vse "), "the login node has vse", r)
    r = lab.call("sh", "-c", "command -v vse || ls /opt", node="n1")
    tap.ok(r.code == 0 and r.text == "", "the others have not", r)


def apart(tap, lab, other):
    """Two labs with the same addresses, and two nodes of one lab."""
    lab.call("sh", "-c", "echo mine >/tmp/mark; echo mine >mark", node="n3")
    r = lab.call("cat", "/tmp/mark", "mark", node="n3")
    tap.ok(r.text == "mine\nmine\n", "a node keeps its /tmp and /home", r)
    r = lab.call("cat", "/tmp/mark", "mark", node="n2")
    tap.ok(r.code != 0 and r.text == "", "another node does not see them", r)
    for node in "n3", "n2":
        r = subprocess.run([LAB, other, "as", node, "labuser", "cat", "/tmp/mark"], capture_output=True, text=True)
        tap.ok(r.returncode != 0 and r.stdout == "", "nor does %s of another lab" % node, r)
    r = subprocess.run([LAB, other, "as", "n1", "labuser", "sh", "-c", "echo all >/tmp/all; echo all >all"])
    r = subprocess.run([LAB, other, "as", "n2", "labuser", "cat", "/tmp/all", "all"], capture_output=True, text=True)
    tap.ok(r.stdout == "all\nall\n", "but there /tmp and /home are shared", r)
    tap.ok(labworld.client.Lab(other).uids != lab.uids, "the labs have users of their own")
    lab.call("rm", "/tmp/mark", "mark", node="n3")


def slurm(tap, lab, what):
    r = lab.call("srun", "-N4", "hostname", timeout=120)
    tap.ok(sorted(r.text.split()) == ["n1", "n2", "n3", "n4"], "srun -N4 hostname, " + what, r)


def power(tap, lab):
    lab.call("sh", "-c", "echo disk >/tmp/disk; echo memory >/dev/shm/memory; sleep 1000 >/dev/null 2>&1 &", node="n2")
    pids = [p.pid for p in lab.processes("n2", user=None)]
    tap.ok(len(pids) > 3 and any(p.argv[:1] == ["sleep"] for p in lab.processes("n2")), "a node has processes", pids)
    lab.off("n2")
    tap.ok(gone(pids) and "n2" not in lab.nodes(), "off: they have all gone at once")
    r = lab.call("ssh", "-o", "ConnectTimeout=2", "n2", "true")
    tap.ok(r.code == 255, "nothing answers there", r)
    tap.ok(any("/tmp/disk" in f for f in lab.leftovers()), "its disk is looked at even so", lab.leftovers())
    lab.boot("n2")
    r = lab.call("ssh", "n2", "cat /tmp/disk; cat /dev/shm/memory; rm /tmp/disk")
    tap.ok(r.text == "disk\n" and "memory" in r.said, "boot: it is back, with its disk and without its memory", r)


def link(tap, lab):
    standing = lab.start("ssh", "n3", "read line; echo $line", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    tap.ok(until(30, lambda: any("read line" in " ".join(p.argv) for p in lab.processes("n3"))), "a connection stands")
    lab.cut("n3")
    r = lab.call("ssh", "-o", "ConnectTimeout=2", "n3", "true")
    tap.ok(r.code == 255 and "timed out" in r.said, "cut: a new connection times out", r)
    r = lab.call("cat", "/sys/class/net/eth0/carrier", node="n3")
    tap.ok(r.text == "1\n", "the node sees a link that is up", r)
    lab.heal("n3")
    out, _ = standing.communicate(b"through\n", timeout=60)
    tap.ok(out == b"through\n", "heal: the old connection goes on", out)


def shaped(tap, lab):
    lab.rate("20mbit", "n1")
    r = lab.call("sh", "-c", "head -c 4M /dev/zero | ssh n1 wc -c")
    tap.ok(r.text.strip() == str(4 << 20) and r.seconds > 1, "20 Mbit/s towards a node", r)
    r = lab.call("sh", "-c", "ssh n1 head -c 4M /dev/zero | wc -c")
    tap.ok(r.text.strip() == str(4 << 20) and r.seconds > 1, "20 Mbit/s from a node", r)
    lab.rate("off", "n1")


PLANTS = """
import os, socket, subprocess, time
s = socket.socket(); s.bind(("", 5555)); s.listen()
u = socket.socket(socket.AF_UNIX); u.bind(b"\\0planted")
f = socket.socket(socket.AF_UNIX); f.bind("/run/lock/planted")
subprocess.run(["ipcmk", "-M", "100"], stdout=subprocess.DEVNULL)
open("/dev/shm/planted", "w"); open("/var/tmp/planted", "w")
print("planted", flush=True)
time.sleep(1000)
"""


def leftovers(tap, lab):
    tap.ok(lab.clean_within() == [], "nothing is left over at first", "\n".join(lab.leftovers()))
    p = lab.start("python3", "-c", PLANTS, node="n4", stdout=subprocess.PIPE)
    p.stdout.readline()
    lab.call("mount", "-t", "tmpfs", "planted", "/opt", node="n4", user=None)
    found = "\n".join(lab.leftovers())
    for wanted in ("process ", "socket n4: tcp 00000000:15B3", "socket n4: unix @planted", "file n4: /run/lock/planted",
                   "ipc n4: shm", "file n4: /dev/shm/planted", "file n4: /var/tmp/planted", "mount n4: /opt"):
        tap.ok(wanted in found, "found: " + wanted, found)
    r = lab.leftovers("labother", ignore=["mount *", "socket *: unix *"])
    tap.ok(r == [], "it is not the other user's", r)
    tap.ok(not any("/var/tmp" in f for f in lab.leftovers(ignore=["file *: /var/tmp/*"])), "what is ignored is")
    p.stdout.close()
    p.kill()
    p.wait()
    tap.ok(until(10, lambda: not lab.processes("n4")), "who kills nsenter ends what it ran", lab.processes("n4"))
    lab.call("umount", "/opt", node="n4", user=None)
    lab.call("sh", "-c", "rm /run/lock/planted /dev/shm/planted /var/tmp/planted; ipcrm -a", node="n4")
    tap.ok(lab.clean_within() == [], "all is found to be gone", "\n".join(lab.leftovers()))


def helpers(tap, lab):
    r = lab.call("sleep", "1000", node="n1", timeout=1)
    tap.ok(r.code is None and until(10, lambda: not lab.processes("n1")), "a command that takes too long is ended")
    lab.write("t", "#!/bin/sh\nexec 1>&-\nsleep 1000\n")
    p = lab.start("sh", "/home/labuser/t", stderr=subprocess.DEVNULL)
    tap.ok(lab.await_process("n0", "sleep"), "a process by its role")
    tap.ok(not lab.kill("n1", "sleep") and len(lab.kill("n0", "sleep")) == 1 and p.wait(10) == 137,
           "killed by node and role")
    before, source = lab.cpu()
    lab.call("sh", "-c", "i=0; while [ $i -lt 300000 ]; do i=$((i + 1)); done", node="n3")
    after, _ = lab.cpu()
    tap.ok(after > before + 0.05, "CPU time of the lab is counted (%s)" % source, before, after)
    lab.call("rm", "t")


def options(tap):
    with labworld.Lab(nodes=2, ssh=True, slurm=True, keys="login", proctrack="linuxproc", vse="all") as lab:
        r = lab.call("ssh", "n2", "ssh -o BatchMode=yes n1 hostname")
        tap.ok(r.code == 255 and "Permission denied" in r.said, "nodes without keys reach no one", r)
        r = lab.call("srun", "-N2", "sh", "-c", "vse --version; setsid sleep 1000 >/dev/null 2>&1 & sleep 0.1")
        tap.ok(r.code == 0 and r.text.count("vse ") == 2, "every node has vse where that is wanted", r)
        tap.ok(len([p for p in lab.processes() if p.program == "sleep"]) == 2,
               "proctrack/linuxproc: what left its session outlives the job", *lab.processes())


def endings(tap, lab, other, owner):
    r = subprocess.run([LAB, "up", "bad", "--nodes", "2", "--rate", "nonsense"], capture_output=True, text=True)
    tap.ok(r.returncode == 1 and "tc" in r.stderr and not traces("bad"), "a lab that does not come up leaves nothing", r)

    pids = [p.pid for p in lab.lab.processes()] + [lab.lab.note["pid"]]
    tap.ok(len(pids) > 15 and traces(lab.name), "a lab leaves traces while it is up", pids)
    lab.close()
    tap.ok(gone(pids) and not traces(lab.name), "after down there are none", traces(lab.name))

    them = labworld.client.Lab(other)
    subprocess.run([LAB, other, "as", "n1", "labuser", "sh", "-c", "setsid sleep 1000 &"])
    pids = [p.pid for p in them.processes()] + [them.note["pid"]] + list(them.nodes().values())
    owner.kill()
    owner.wait()
    tap.ok(until(30, lambda: gone(pids) and not traces(other)), "its owner was killed: the other lab ends too",
           traces(other), [p for p in pids if not gone([p])])

    with labworld.Lab(nodes=1, vse=None) as third:
        pids = [p.pid for p in third.lab.processes()] + list(third.lab.nodes().values())
        os.kill(third.lab.note["pid"], signal.SIGKILL)
        tap.ok(until(30, lambda: gone(pids)), "its keeper was killed: the nodes end")
    tap.ok(not traces(third.name), "and down still cleans up", traces(third.name))


def main():
    labworld.skip_unless(ssh=True, slurm=True)
    tap = harness.Tap()
    owner = subprocess.Popen(["sleep", "1000"])
    other = "self-%d" % os.getpid()
    try:
        second = subprocess.Popen([LAB, "up", other, "--nodes", "3", "--shared-tmp", "--shared-home",
                                   "--owner", str(owner.pid)])
        begun = time.monotonic()
        with labworld.Lab(nodes=4, ssh=True, slurm=True) as lab:
            tap.note("up in %.1f s, proctrack/%s" % (time.monotonic() - begun, lab.lab.info()["proctrack"]))
            tap.ok(second.wait(120) == 0, "two labs at once")
            nodes_view(tap, lab)
            apart(tap, lab, other)
            slurm(tap, lab, "at first")
            power(tap, lab)
            slurm(tap, lab, "with the node that came back")
            link(tap, lab)
            shaped(tap, lab)
            leftovers(tap, lab)
            helpers(tap, lab)
            options(tap)
            endings(tap, lab, other, owner)
    finally:
        owner.kill()
        owner.wait()
    return tap.done()


if __name__ == "__main__":
    sys.exit(main())
