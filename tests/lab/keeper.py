#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The process that holds a lab: keeper.py, with its orders as JSON on stdin. Not for people: see `lab`.

It sits in network and mount namespaces of its own. In the first is the switch of the lab, in the second the
one tmpfs that is every disk of every node; so both vanish with it. Process 1 of every node is its child and
dies with it. It ends on "down", on SIGTERM, and when the process it was told to watch has ended.
"""
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import cgroups
import linux
import node as node_
import registry
import services

TIMEOUT = 60  # seconds for one step of a node's start on a busy machine


class Node:
    def __init__(self, name):
        self.name, self.pid, self.talk = name, 0, None


def run_ip(*lines):
    subprocess.run(["ip", "-batch", "-"], input="".join(s + "\n" for s in lines), text=True, check=True,
                   stdout=subprocess.DEVNULL)


class Keeper:
    def __init__(self, spec):
        self.spec = spec
        self.dir = Path(spec["dir"])
        self.fs = self.dir / "fs"
        self.nodes = {name: Node(name) for name in spec["addresses"]}
        self.own_pids = os.open("/proc/self/ns/pid", os.O_RDONLY)
        self.usable = []
        self.proctrack = None
        self.rates = {}
        self.cut = set()

    # ---- what is made once ----

    def up(self):
        linux.unshare(linux.CLONE_NEWNS | linux.CLONE_NEWNET)
        linux.mount(None, "/", None, linux.MS_REC | linux.MS_PRIVATE)
        self.fs.mkdir()
        linux.mount("tmpfs", self.fs, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "mode=755")
        run_ip("link set lo up", "link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
               "link set br0 up")
        self.usable = cgroups.hierarchies()
        for name in self.nodes:
            self.usable = cgroups.make(self.spec["name"], name, self.usable)
        have = set().union(*(h.controllers for h in self.usable if h.version == 1), set())
        self.proctrack = self.spec["proctrack"] or ("cgroup" if cgroups.SLURM_NEEDS <= have else "linuxproc")
        self.disks()
        self.boot(list(self.nodes))
        if self.spec["rate"]:
            for name in self.nodes:
                self.set_rate(name, self.spec["rate"])
        if self.spec["slurm"]:
            self.await_slurm()

    def disks(self):
        spec, fs = self.spec, self.fs
        etc = fs / "etc"
        (fs / "empty").mkdir()
        subprocess.run(["cp", "-a", "/etc", str(etc)], check=True)
        services.users(spec, etc)
        services.names(spec, etc)
        places = [fs / "shared"] + [fs / "nodes" / name for name in self.nodes]
        for place in places:
            for name, mode in (("tmp", 0o1777), ("vartmp", 0o1777), ("opt", 0o755), ("home", 0o755)):
                (place / name).mkdir(parents=True)
                (place / name).chmod(mode)
            for user in services.USERS:
                home = place / "home" / user
                home.mkdir(mode=0o700)
                os.chown(home, spec["uids"][user], spec["uids"][user])
            (place / "hostname").write_text(place.name + "\n")
        if spec["ssh"]:
            keyed = places if spec["keys"] == "all" else places[:2] if spec["home"] == "shared" else places[1:2]
            services.ssh(spec, etc, [p / "home" for p in keyed])
        if spec["slurm"]:
            services.slurm(spec, etc, self.proctrack)
        for name, binds in spec["binds"].items():
            for _, target in binds:
                self.bind_point(name, target, binds)
        if spec["store"]:
            for name in self.nodes if spec["store_on"] == "all" else ["n0"]:
                self.store(Path(spec["store"]), fs / "nodes" / name / "opt/vse/store")

    def bind_point(self, name, target, binds):
        """Where something of the machine's is to be seen on a node: always below /opt, which is the node's own."""
        source = dict((t, s) for s, t in binds)[target]
        point = self.fs / "nodes" / name / target.lstrip("/")
        point.parent.mkdir(parents=True, exist_ok=True)
        point.mkdir(exist_ok=True) if os.path.isdir(source) else point.touch()

    def store(self, source, target):
        """The images of a store, readable by everybody: its folders may be closed, its files are not."""
        for top in ("images", "inputs"):
            for folder, names, files in os.walk(source / top):
                to = target / os.path.relpath(folder, source)
                to.mkdir(parents=True, exist_ok=True)
                for name in files + [n for n in names if os.path.islink(os.path.join(folder, n))]:
                    path = Path(folder, name)
                    if path.is_symlink():
                        (to / name).symlink_to(os.readlink(path))
                    elif path.stat().st_size < 1 << 16:
                        shutil.copy2(path, to / name)
                        (to / name).chmod(0o644)
                    else:
                        (to / name).touch()
                        linux.bind(path, to / name, read_only=True)

    def await_slurm(self):
        count = str(self.spec["nodes"])
        argv = ["nsenter", "-t", str(self.nodes["n0"].pid), "-m", "-n", "-u", "-i",
                "sinfo", "-h", "-p", "main", "-t", "idle", "-o", "%D"]
        until = time.monotonic() + TIMEOUT
        while True:
            got = subprocess.run(argv, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            if got.stdout.strip() == count:
                return
            if time.monotonic() > until:
                raise TimeoutError("Slurm: %s of %s nodes are idle %s" % (got.stdout.strip(), count, got.stderr))
            time.sleep(0.05)

    # ---- nodes ----

    def spawn(self, n):
        """Process 1 of a node, in a pid namespace of its own, waiting for its first cue."""
        n.talk, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        n.talk.settimeout(TIMEOUT)
        linux.unshare(linux.CLONE_NEWPID)
        pid = os.fork()
        if pid == 0:
            for other in self.nodes.values():
                if other.talk:
                    other.talk.close()
            node_.main(self.spec, n.name, self.fs, self.usable, theirs)
        linux.setns(self.own_pids, linux.CLONE_NEWPID)
        theirs.close()
        n.pid = pid
        for h in self.usable:
            group = h.group(self.spec["name"], n.name)
            for entry in group.iterdir():
                if entry.is_dir():
                    cgroups.remove_tree(entry)  # of its life before
            (group / "cgroup.procs").write_text(str(pid))

    def hear(self, n, wanted):
        said = n.talk.recv(4096).decode()
        if said != wanted:
            raise RuntimeError(said or "%s ended before it was %s" % (n.name, wanted))

    def boot(self, names):
        nodes = [self.nodes[name] for name in names]
        for n in nodes:
            self.spawn(n)
            n.talk.send(b"grouped")
        for n in nodes:
            self.hear(n, "isolated")
        lines = []
        for n in nodes:
            # A node keeps its address over a power cut: its neighbours go on to know it.
            lines.append("link add p-%s type veth peer name eth0 address 02:4c:41:42:00:%02x netns %d" %
                         (n.name, int(n.name[1:]), n.pid))
            if n.name not in self.cut:
                lines.append("link set p-%s master br0" % n.name)
            lines.append("link set p-%s up" % n.name)
        run_ip(*lines)
        for n in nodes:
            n.talk.send(b"wired")
        for n in nodes:
            self.hear(n, "mounted")
        # The login node first: slurmctld is there when the others ask for it.
        for some in ([n for n in nodes if n.name == "n0"], [n for n in nodes if n.name != "n0"]):
            for n in some:
                n.talk.send(b"serve")
            for n in some:
                self.hear(n, "ready")
                n.talk.close()
                n.talk = None
        for n in nodes:
            if self.rates.get(n.name):
                self.set_rate(n.name, self.rates[n.name])

    def set_rate(self, name, rate):
        n = self.nodes[name]
        sides = [(["tc"], "p-" + name)]
        sides.append((["nsenter", "--net=/proc/%d/ns/net" % n.pid, "tc"], "eth0"))
        for tc, device in sides:
            if rate == "off":
                subprocess.run(tc + ["qdisc", "del", "dev", device, "root"], stderr=subprocess.DEVNULL)
            else:
                subprocess.run(tc + ["qdisc", "replace", "dev", device, "root", "tbf", "rate", rate,
                                     "burst", "256kb", "latency", "100ms"], check=True)
        self.rates[name] = None if rate == "off" else rate

    def alive(self, name):
        if name not in self.nodes:
            raise ValueError("no node %s" % name)
        n = self.nodes[name]
        if not n.pid:
            raise ValueError("%s is off" % name)
        return n

    def end_init(self, n):
        if n.pid:
            os.kill(n.pid, signal.SIGKILL)
            os.waitpid(n.pid, 0)  # returns when every process of the node has gone
            n.pid = 0

    # ---- requests ----

    def do_info(self, _):
        return {"pid": os.getpid(), "nodes": {n.name: n.pid for n in self.nodes.values()},
                "proctrack": self.proctrack if self.spec["slurm"] else None, "fs": str(self.fs),
                "cgroups": [str(h.top) for h in self.usable]}

    def do_off(self, r):
        n = self.alive(r["node"])
        # First: as with a real power cut nobody gets a FIN or RST. It has gone already if process 1 was killed.
        subprocess.run(["ip", "link", "del", "p-" + n.name], stderr=subprocess.DEVNULL)
        self.end_init(n)

    def do_boot(self, r):
        if r["node"] not in self.nodes or self.nodes[r["node"]].pid:
            raise ValueError("%s is not off" % r["node"])
        try:
            self.boot([r["node"]])
        except BaseException:
            self.do_off(r)
            raise

    def do_cut(self, r):
        # Out of the switch, with the carrier kept: packets vanish, no error tells the node.
        run_ip("link set p-%s nomaster" % self.alive(r["node"]).name)
        self.cut.add(r["node"])

    def do_heal(self, r):
        self.cut.discard(r["node"])
        run_ip("link set p-%s master br0" % self.alive(r["node"]).name)

    def do_rate(self, r):
        for name in [r["node"]] if r.get("node") else [n.name for n in self.nodes.values() if n.pid]:
            self.alive(name)
            self.set_rate(name, r["rate"])

    def request(self, connection):
        """True: it was the last one."""
        try:
            connection.settimeout(5)
            r = json.loads(connection.makefile().readline())
            if r["do"] == "down":
                self.close()
                answer = {}
            else:
                answer = getattr(self, "do_" + r["do"])(r) or {}
            done = r["do"] == "down"
        except Exception as e:
            answer, done = {"error": "%s" % e}, False
        try:
            connection.sendall((json.dumps(answer) + "\n").encode())
        except OSError:
            pass
        connection.close()
        return done

    def serve(self, listener, wake):
        poll = select.poll()
        watched = -1
        if self.spec["owner"]:
            try:
                watched = os.pidfd_open(self.spec["owner"])
            except ProcessLookupError:
                return
            poll.register(watched, select.POLLIN)
        poll.register(listener, select.POLLIN)
        poll.register(wake, select.POLLIN)
        while True:
            ready = [fd for fd, _ in poll.poll()]
            if watched in ready or wake in ready:
                return
            if self.request(listener.accept()[0]):
                return

    def close(self):
        for n in self.nodes.values():
            self.end_init(n)
        # The tmpfs stays with this process; the folder that it is mounted on does not.
        subprocess.run(["umount", "-l", str(self.fs)], stderr=subprocess.DEVNULL)
        with registry.Locked():
            registry.remove(self.spec["name"])


def main():
    spec = json.load(sys.stdin)
    os.umask(0o022)
    keeper = Keeper(spec)
    report = os.dup(1)
    os.set_inheritable(report, False)
    log = os.open(keeper.dir / "log", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    wake, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake_write)
    for signo in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signo, lambda *_: None)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(keeper.dir / "keeper"))
    try:
        keeper.up()
        listener.listen(16)
        os.write(report, b"{}\n")
        os.close(report)
        keeper.serve(listener, wake)
    except BaseException as e:
        text = "%s: %s" % (type(e).__name__, e)
        try:
            os.write(report, (json.dumps({"error": text, "log": (keeper.dir / "log").read_text()[-2000:]}) + "\n").encode())
        except OSError:
            pass
    finally:
        keeper.close()


if __name__ == "__main__":
    main()
