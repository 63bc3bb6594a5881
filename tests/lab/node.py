# SPDX-License-Identifier: Apache-2.0
"""Process 1 of a node: makes the node's own view of the machine, starts its services, then only reaps.

The root file system is the machine's, read-only; what a node may write is the lab's: /etc (a copy, one for
all nodes), /tmp, /var/tmp and /home (they outlive a power cut), /run and /dev/shm (they do not).
"""
import os
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

import linux
import services

DEVICES = ("null", "zero", "full", "random", "urandom", "tty")  # no kvm, no net/tun


def devices(disk):
    dev = disk / "dev"
    for name in ("pts", "shm", "mqueue"):
        (dev / name).mkdir(parents=True, exist_ok=True)
    for name in DEVICES:
        (dev / name).touch()
        linux.bind("/dev/" + name, dev / name)
    for link, target in (("ptmx", "pts/ptmx"), ("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0"),
                         ("stdout", "/proc/self/fd/1"), ("stderr", "/proc/self/fd/2")):
        if not (dev / link).is_symlink():
            (dev / link).symlink_to(target)
    linux.mount("devpts", dev / "pts", "devpts", linux.MS_NOSUID, "newinstance,ptmxmode=0666,mode=0620")
    linux.mount("tmpfs", dev / "shm", "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "mode=1777")
    linux.mount("mqueue", dev / "mqueue", "mqueue", linux.MS_NOSUID | linux.MS_NODEV)
    linux.mount(dev, "/dev", None, linux.MS_BIND | linux.MS_REC)


def hidden(path, fs):
    """An empty folder over this one: what lies there is not "installed on the node"."""
    if os.path.isdir(path):
        linux.bind(fs / "empty", path, read_only=True)


def cgroup_mounts(usable):
    linux.mount("tmpfs", "/sys/fs/cgroup", "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "mode=755")
    for h in usable:
        place = Path("/sys/fs/cgroup") / os.path.relpath(h.top, "/sys/fs/cgroup")
        place.mkdir(parents=True, exist_ok=True)
        linux.mount("cgroup", place, "cgroup" if h.version == 1 else "cgroup2", 0, h.options())


def mounts(spec, fs, disk, usable):
    linux.writable("/", False, True)
    linux.writable(fs, True, False)
    for source, target in spec["binds"].get(disk.name, []):
        linux.bind(source, disk / target.lstrip("/"), read_only=True)
    for path in spec["hide"]:
        hidden(path, fs)
    linux.bind(fs / "etc", "/etc")
    linux.bind(disk / "hostname", "/etc/hostname")
    shared = fs / "shared"
    linux.bind((shared if spec["tmp"] == "shared" else disk) / "tmp", "/tmp")
    linux.bind(disk / "vartmp", "/var/tmp")
    linux.bind((shared if spec["home"] == "shared" else disk) / "home", "/home")
    linux.mount(disk / "opt", "/opt", None, linux.MS_BIND | linux.MS_REC)
    devices(disk)
    linux.mount("sysfs", "/sys", "sysfs", linux.MS_RDONLY)
    cgroup_mounts(usable)
    linux.mount("proc", "/proc", "proc", linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC)
    linux.mount("tmpfs", "/run", "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "mode=755")
    os.umask(0)
    for name, mode in (("lock", 0o1777), ("user", 0o755), ("log", 0o755)):
        os.mkdir("/run/" + name, mode)
    os.umask(0o022)


def network(address):
    commands = "link set lo up\naddr add %s/24 brd + dev eth0\nlink set eth0 up\n" % address
    subprocess.run(["ip", "-batch", "-"], input=commands, text=True, check=True)


def listening(port):
    with open("/proc/net/tcp") as f:
        return any(row.split()[1].endswith(":%04X" % port) and row.split()[3] == "0A" for row in list(f)[1:])


def serve(spec, name):
    ports = []
    for argv, port in services.of_node(spec, name):
        subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, cwd="/")
        ports += [port] if port else []
    until = time.monotonic() + 20
    while not all(map(listening, ports)):
        if time.monotonic() > until:
            raise TimeoutError("%s does not listen on %s" % (name, ports))
        time.sleep(0.01)


def main(spec, name, fs, usable, talk):
    """Never returns. talk: a socket to the keeper, which gives the cue for every step."""
    try:
        linux.die_with_parent()
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        talk.recv(100)  # in its control groups now
        linux.unshare(linux.CLONE_NEWNS | linux.CLONE_NEWUTS | linux.CLONE_NEWIPC | linux.CLONE_NEWNET |
                      linux.CLONE_NEWCGROUP)
        linux.sethostname(name)
        talk.send(b"isolated")
        if not talk.recv(100):
            os._exit(1)
        mounts(spec, fs, fs / "nodes" / name, usable)
        network(spec["addresses"][name])
        talk.send(b"mounted")
        if not talk.recv(100):
            os._exit(1)
        os.environ.clear()
        os.environ.update(PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", LANG="C.UTF-8")
        serve(spec, name)
        talk.send(b"ready")
        talk.close()
        os.chdir("/")
        null = os.open("/dev/null", os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        os.closerange(3, 1024)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # kept over exec: the kernel reaps the orphans
        os.execv("/bin/sleep", ["init", "infinity"])
    except BaseException as e:  # the keeper hears of everything
        traceback.print_exc()
        for log in list(Path("/run/log").glob("*.log")) + list(Path("/run/munge").glob("*.log")):
            sys.stderr.write("%s: %s\n" % (log, log.read_text()[-500:]))
        sys.stderr.flush()
        try:
            talk.send(("error %s: %s" % (name, e)).encode())
        except OSError:
            pass
        os._exit(1)
