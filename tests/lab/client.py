# SPDX-License-Identifier: Apache-2.0
"""A lab seen from outside: bring it up, enter its nodes, look at them, ask its keeper for changes."""
import collections
import fcntl
import fnmatch
import json
import os
import pwd
import select
import socket
import stat
import subprocess
from pathlib import Path

import cgroups
import services
from registry import LABS, Locked, names, note, starttime, sweep

HERE = Path(__file__).resolve().parent
TOP = HERE.parents[1]
FIRST_UID, LAST_UID = 61000, 61180  # no range of any distribution's accounts or of systemd's
MAX_NODES = 200
PATH = "/opt/vse/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
NS_GET_PARENT = 0xB702


class LabError(Exception):
    pass


def why_not(ssh=False, slurm=False):
    """None, or why there can be no such lab on this machine."""
    if os.geteuid() != 0:
        return "needs root"
    lacking = services.missing({"ssh": ssh, "slurm": slurm})
    if lacking:
        return "missing packages: %s (scripts/setup.sh lab)" % " ".join(lacking)
    tried = subprocess.run(["unshare", "-m", "-n", "-p", "-u", "-i", "-C", "-f", "mount", "-t", "proc", "proc", "/proc"],
                           stderr=subprocess.PIPE, text=True)
    if tried.returncode:
        return "no namespaces: " + tried.stderr.strip().replace("\n", " ")
    return None


def address(index):
    return "10.77.0.%d" % (index + 10 if index else 1)


def free_uids(taken):
    for uid in range(FIRST_UID, LAST_UID, 2):
        try:
            pwd.getpwuid(uid)
        except KeyError:
            if uid not in taken:
                return {"labuser": uid, "labother": uid + 1}
    raise LabError("no free user ids")


def up(name, nodes=8, ssh=False, slurm=False, tmp="private", home="private", keys="all", rate=None, owner=0,
       binds=(), store=None, store_on="n0", hide=(), cpus=4, memory=4000, slurm_conf=(), proctrack=None):
    """Brings a lab up and returns it.

    nodes: how many besides the login node n0. owner: the process with whose end the lab ends (0: none).
    binds: (node or "all", path here, path below /opt there), read-only. store: an image store, seen at
    /opt/vse/store by n0 or "all". hide: folders that are empty on every node. memory: MB a node, as Slurm is told.
    proctrack: "cgroup" or "linuxproc", by which Slurm finds a job's processes (None: cgroup where possible).
    """
    if not name.replace("-", "").replace("_", "").isalnum() or len(name) > 40:
        raise LabError("not a name for a lab: %r" % name)
    if not 1 <= nodes <= MAX_NODES:
        raise LabError("nodes: 1 to %d" % MAX_NODES)
    reason = why_not(ssh, slurm)
    if reason:
        raise LabError(reason)
    spec = {"name": name, "dir": str(LABS / name), "nodes": nodes, "ssh": ssh, "slurm": slurm, "tmp": tmp,
            "home": home, "keys": keys, "rate": rate, "owner": owner, "proctrack": proctrack, "cpus": cpus, "memory": memory,
            "slurm_conf": list(slurm_conf), "hide": [str(p) for p in hide], "store": str(store or ""),
            "store_on": store_on, "binds": {}, "addresses": {"n%d" % i: address(i) for i in range(nodes + 1)}}
    for where, source, target in binds:
        if not os.path.normpath(target).startswith("/opt/"):
            raise LabError("%s: only below /opt" % target)
        for node in spec["addresses"] if where == "all" else [where]:
            spec["binds"].setdefault(node, []).append([str(source), os.path.normpath(target)])
    with Locked():
        sweep()
        taken = set()
        for other in names():
            if other == name:
                raise LabError("there is a lab %s already" % name)
            taken.update(note(other)["uids"].values())
        spec["uids"] = free_uids(taken)
        (LABS / name).mkdir(mode=0o700)
        # A clean environment: the marks of the test that wants the lab are not the lab's; it watches its owner.
        keeper = subprocess.Popen(["python3", "-B", str(HERE / "keeper.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                  start_new_session=True, cwd="/", env={"PATH": PATH, "LANG": "C.UTF-8"})
        about = {"pid": keeper.pid, "starttime": starttime(keeper.pid), "uids": spec["uids"], "owner": owner}
        (LABS / name / "note.new").write_text(json.dumps(about))
        (LABS / name / "note.new").rename(LABS / name / "note")
    try:
        keeper.stdin.write(json.dumps(spec).encode())
        keeper.stdin.close()
        said = json.loads(keeper.stdout.readline() or b'{"error": "the keeper ended"}')
    except BaseException:
        keeper.terminate()
        keeper.wait()
        raise
    if "error" in said:
        keeper.wait()
        raise LabError(said["error"] + "".join("\n  " + line for line in said.get("log", "").splitlines()[-12:]))
    try:
        lab = Lab(name, keeper)
        lab.mark()
    except OSError as e:
        raise LabError("the lab ended while it came up: %s" % e) from None
    return lab


class Process:
    def __init__(self, pid, node, uid, parent, argv, comm):
        self.pid, self.node, self.uid, self.parent, self.argv, self.comm = pid, node, uid, parent, argv, comm

    def __str__(self):
        return "%d %s uid %d %s: %s" % (self.pid, self.node, self.uid, self.comm, " ".join(self.argv)[:120])


def parent_pidns(pid, known):
    """The pid namespaces of a process from its own outwards, as inode numbers."""
    chain = []
    fd = os.open("/proc/%d/ns/pid" % pid, os.O_RDONLY)
    try:
        while fd >= 0:
            inode = os.fstat(fd).st_ino
            if inode in known:
                chain += known[inode]
                break
            chain.append(inode)
            try:
                up_fd = fcntl.ioctl(fd, NS_GET_PARENT)
            except OSError:
                up_fd = -1  # the outermost that we may see
            os.close(fd)
            fd = up_fd
    finally:
        if fd >= 0:
            os.close(fd)
    for i, inode in enumerate(chain):
        known[inode] = chain[i:]
    return chain


def one_process(pid, node):
    try:
        with open("/proc/%d/cmdline" % pid, "rb") as f:
            argv = f.read().decode("utf-8", "replace").split("\0")[:-1]
        with open("/proc/%d/stat" % pid) as f:
            comm, rest = f.read().split("(", 1)[1].rsplit(")", 1)
        uid = os.stat("/proc/%d" % pid).st_uid
        with open("/proc/%d/status" % pid) as f:
            uid = int(next(line for line in f if line.startswith("Uid:")).split()[1])
    except (OSError, StopIteration):
        return None
    return None if rest.split()[0] == "Z" else Process(pid, node, uid, int(rest.split()[1]), argv, comm)


class Lab:
    def __init__(self, name, keeper=None):
        self.name, self.dir, self.keeper = name, LABS / name, keeper
        try:
            self.note = note(name)
        except OSError:
            raise LabError("there is no lab %s" % name) from None
        self.uids = self.note["uids"]
        self.known = None
        self.doors = {}

    # ---- asking the keeper ----

    def ask(self, do, **more):
        try:
            with socket.socket(socket.AF_UNIX) as s:
                s.connect(str(self.dir / "keeper"))
                s.sendall((json.dumps(dict(more, do=do)) + "\n").encode())
                answer = json.loads(s.makefile().readline() or '{"error": "the keeper ended"}')
        except OSError as e:
            raise LabError("lab %s does not answer: %s" % (self.name, e)) from None
        if "error" in answer:
            raise LabError("%s %s: %s" % (do, more.get("node", ""), answer["error"]))
        if do in ("off", "boot"):
            self.known = None
        return answer

    def info(self):
        if not self.known:
            self.known = self.ask("info")
        return self.known

    def nodes(self):
        """Those that are on: name -> process id of its process 1."""
        return {name: pid for name, pid in self.info()["nodes"].items() if pid}

    def init(self, node):
        pid = self.nodes().get(node)
        if not pid:
            raise LabError("there is no node %s in lab %s, or it is off" % (node, self.name))
        return pid

    def down(self):
        try:
            keeper = os.pidfd_open(self.note["pid"])
        except ProcessLookupError:
            keeper = None
        try:
            self.ask("down")
        except LabError:
            pass  # it is going down by itself, or was killed
        if keeper is not None:
            if starttime(self.note["pid"]) == self.note["starttime"]:
                select.select([keeper], [], [], 30)
            os.close(keeper)
        if self.keeper:
            self.keeper.wait()
        with Locked():
            sweep()

    # ---- entering a node ----

    def argv(self, node, command, user=None, env=None):
        """What to execute for this command there; user: "labuser", "labother" or None for root."""
        enter = ["nsenter", "-t", str(self.init(node)), "-m", "-u", "-i", "-n", "-p", "-C", "--", "setpriv"]
        home = "/home/" + user if user else "/run"
        if user:
            uid = str(self.uids[user])
            enter += ["--reuid", uid, "--regid", uid, "--clear-groups"]
        values = {"HOME": home, "USER": user or "root", "LOGNAME": user or "root", "SHELL": "/bin/bash",
                  "PATH": PATH, "LANG": "C.UTF-8", "TERM": "dumb"}
        values.update(env or {})
        # When nsenter is killed, so is what it has started.
        return (enter + ["--pdeathsig", "KILL", "env", "-i", "-C", home] +
                ["%s=%s" % item for item in values.items()] + [str(a) for a in command])

    def find_doors(self, node):
        """Once, before a child is forked that joins."""
        if node not in self.doors:
            self.doors[node] = cgroups.doors(self.name, node)
        return self.doors[node]

    def join(self, node):
        """For the process that is about to enter."""
        for door in self.find_doors(node):
            with open(door, "w") as f:
                f.write(str(os.getpid()))

    # ---- looking ----

    def processes(self, node=None, user=None):
        """All of the nodes, with their process ids on this machine; those in namespaces of their own too."""
        inits = {os.stat("/proc/%d/ns/pid" % pid).st_ino: (name, pid) for name, pid in self.nodes().items()}
        known, found = {}, []
        for entry in os.listdir("/proc"):
            if not entry.isdigit():
                continue
            try:
                chain = parent_pidns(int(entry), known)
            except OSError:
                continue
            home = next((inits[i] for i in chain if i in inits), None)
            if home and home[1] != int(entry) and node in (None, home[0]):
                p = one_process(int(entry), home[0])
                if p and (user is None or p.uid == self.uids[user]):
                    found.append(p)
        return sorted(found, key=lambda p: (int(p.node[1:]), p.pid))

    def root(self, node):
        """The node's root folder, as a path of this machine."""
        return Path("/proc/%d/root" % self.init(node))

    def disks(self):
        """name -> folder, of everything that outlives a power cut: /tmp, /var/tmp, /home of nodes that are off too."""
        fs = Path("/proc/%d/root%s" % (self.note["pid"], self.info()["fs"]))
        found = {"shared": fs / "shared"}
        found.update({name: fs / "nodes" / name for name in self.info()["nodes"]})
        return found

    def files(self, uid):
        for node, disk in self.disks().items():
            for place, seen_as in (("tmp", "/tmp"), ("vartmp", "/var/tmp"), ("home", "/home"), ("opt", "/opt")):
                for path in owned(disk / place, uid):
                    yield "%s: %s%s" % (node, seen_as, path)
        for node in self.nodes():
            for place in ("run", "dev/shm", "dev/mqueue"):
                for path in owned(self.root(node) / place, uid):
                    yield "%s: /%s%s" % (node, place, path)

    def seen(self, uid):
        """Everything by which a user could leave a trace, except processes: a set of lines."""
        found = {"file " + f for f in self.files(uid)}
        for node, pid in self.nodes().items():
            for mount, times in collections.Counter(mount_lines(pid)).items():
                found.update("mount %s: %s (%d)" % (node, mount, i) for i in range(1, times + 1))
            found.update("socket %s: %s" % (node, s) for s in socket_lines(pid, uid))
            found.update("ipc %s: %s" % (node, s) for s in ipc_lines(pid, uid))
        return found

    def mark(self):
        """From now on only what is newer is left over."""
        folder = self.dir / "seen"
        folder.mkdir(exist_ok=True)
        for user, uid in self.uids.items():
            (folder / user).write_text(json.dumps(sorted(self.seen(uid))))

    def leftovers(self, user="labuser", ignore=()):
        """Every process, mount, socket, IPC object and file of a user on any node that came after up (or mark)."""
        known = set(json.loads((self.dir / "seen" / user).read_text()))
        found = ["process %s" % p for p in self.processes(user=user)]
        found += sorted(self.seen(self.uids[user]) - known)
        return [f for f in found if not any(fnmatch.fnmatch(f, pattern) for pattern in ignore)]

    def cpu(self):
        """(CPU seconds of all that ever ran in the lab, which counter says so)."""
        seconds, source = cgroups.cpu_seconds(self.name)
        if seconds is not None:
            return seconds, source
        ticks = 0
        for p in self.processes():
            try:
                with open("/proc/%d/stat" % p.pid) as f:
                    ticks += sum(map(int, f.read().rsplit(")", 1)[1].split()[11:15]))
            except OSError:
                pass
        return ticks / os.sysconf("SC_CLK_TCK"), "/proc of the living (%s)" % source


def owned(top, uid):
    """Paths below top of files of this user."""
    prefix = len(str(top))
    for folder, names_, files in os.walk(top):
        for name in names_ + files:
            path = os.path.join(folder, name)
            try:
                if os.lstat(path).st_uid == uid:
                    yield path[prefix:] + ("/" if stat.S_ISDIR(os.lstat(path).st_mode) else "")
            except OSError:
                pass


def mount_lines(pid):
    with open("/proc/%d/mountinfo" % pid) as f:
        for line in f:
            left, right = line.split(" - ")
            yield "%s %s" % (left.split()[4], right.split()[0])


def socket_lines(pid, uid):
    for kind in ("tcp", "tcp6", "udp", "udp6", "raw", "raw6"):
        try:
            with open("/proc/%d/net/%s" % (pid, kind)) as f:
                rows = [line.split() for line in f][1:]
        except OSError:
            continue
        for row in rows:
            if int(row[7]) == uid and row[3] != "06":  # 06: TIME_WAIT, nobody's
                yield "%s %s to %s" % (kind, row[1], row[2])
    with open("/proc/%d/net/unix" % pid) as f:
        for line in f:
            row = line.split()
            # Those with a path are files. The kernel does not say whose these are: anybody's are told.
            if len(row) > 7 and row[7].startswith("@"):
                yield "unix " + row[7]


def ipc_lines(pid, uid):
    text = subprocess.run(["nsenter", "-t", str(pid), "-i", "sh", "-c",
                           'for k in shm sem msg; do sed "1d;s/^/$k /" /proc/sysvipc/$k; done'],
                          stdout=subprocess.PIPE, text=True).stdout
    columns = {"shm": 8, "sem": 5, "msg": 8}  # of the owner's uid, after our own word
    for line in text.splitlines():
        row = line.split()
        if int(row[columns[row[0]]]) == uid:
            yield "%s id %s" % (row[0], row[2])
