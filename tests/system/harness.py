# SPDX-License-Identifier: Apache-2.0
"""For the system tests that are written in Python: TAP, and a world of one's own.

A World has its own run, data, temporary and home folders, and every process that is started in it carries
its mark in the environment: so what is left over is found without looking at names, beside other people's
clusters on the same machine.
"""
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("VSE_BUILD") or TOP / "build")
VSE = BUILD / "vse"
NIGHTLY = bool(os.environ.get("VSE_NIGHTLY"))
CLEAN_S = 5  # what a dead process left must be gone within this
MARK = "VSE_TEST_WORLD"


def shared_data():
    """The data folder that the system tests of one ./check share (as lib.sh has it)."""
    home = os.environ.get("VSE_TEST_HOME") or os.environ.get("HOME") or "/"
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(home, ".cache")
    return Path(os.environ.get("VSE_TEST_DATA") or os.path.join(cache, "vse-test/data"))


def why_no_numa():
    """Why this kernel binds no memory to NUMA nodes, or does not show it; None: it does."""
    call = {"x86_64": 239, "aarch64": 236}.get(os.uname().machine)
    libc = ctypes.CDLL(None, use_errno=True)
    if call and libc.syscall(call, None, None, ctypes.c_ulong(0), None, ctypes.c_ulong(0)):
        return "get_mempolicy: " + os.strerror(ctypes.get_errno())
    return None if os.path.exists("/proc/self/numa_maps") else "this kernel has no numa_maps"


def on_signal(signo, _):
    sys.exit(128 + signo)  # through every "finally": what was started is ended


class Tap:
    def __init__(self):
        for signo in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(signo, on_signal)
        self.count = self.failed = 0

    def ok(self, good, name, *details):
        self.count += 1
        self.failed += not good
        print("%sok %d - %s" % ("" if good else "not ", self.count, name))
        if not good:
            for detail in details:
                for line in str(detail).splitlines() or [""]:
                    print("#   " + line)
        sys.stdout.flush()
        return good

    def skip(self, name, why):
        self.count += 1
        print("ok %d - %s # SKIP %s" % (self.count, name, why))
        sys.stdout.flush()

    def note(self, text):
        for line in str(text).splitlines():
            print("# " + line)
        sys.stdout.flush()

    def done(self):
        print("1..%d" % self.count)
        sys.stdout.flush()
        return 1 if self.failed else 0


class Process:
    def __init__(self, pid, parent, argv, comm):
        self.pid, self.parent, self.argv, self.comm = pid, parent, argv, comm
        self.program = os.path.basename(argv[0]) if argv else comm

    def __str__(self):
        return "%d %s %s" % (self.pid, self.comm, " ".join(self.argv)[:120])

    def role(self):
        if self.comm in ("vse-reaper", "vse-keeper"):
            return self.comm[4:]
        if self.program == "vse-agent":
            return "agent"
        if self.program.startswith("qemu-system"):
            return "vmm"
        return self.program

    def kill(self):
        try:
            os.kill(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


class Result:
    """How a command ended: code None = it did not end in time (and was killed)."""

    def __init__(self, argv, code, out, err, seconds):
        self.argv, self.code, self.out, self.err, self.seconds = argv, code, out, err, seconds

    @property
    def text(self):
        return self.out.decode("utf-8", "replace")

    @property
    def said(self):
        return self.err.decode("utf-8", "replace")

    def __str__(self):
        return "%s\nexit %s after %.1f s\nstdout: %s\nstderr: %s" % (
            " ".join(map(str, self.argv)), self.code, self.seconds, self.text[-600:], self.said[-900:])


class World:
    def __init__(self, site_store=None):
        base = os.environ.get("VSE_TEST_TMP") or os.environ.get("TMPDIR") or "/tmp"
        # Short: a Unix socket's path has at most 107 bytes.
        self.dir = Path(tempfile.mkdtemp(prefix="w.", dir=base))
        self.mark = "%s-%d" % (self.dir.name, os.getpid())
        self.run, self.data, self.tmp, self.home = (self.dir / n for n in ("run", "data", "tmp", "home"))
        for path in (self.run, self.data, self.tmp, self.home):
            path.mkdir(mode=0o700)
        self.env = dict(os.environ)
        for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "VSE_SCRATCH"):
            self.env.pop(name, None)
        self.env.update({
            MARK: self.mark,
            "PATH": "%s:%s" % (BUILD, os.environ.get("PATH", "/usr/bin:/bin")),
            "HOME": str(self.home),
            "XDG_RUNTIME_DIR": str(self.run),
            "XDG_DATA_HOME": str(self.data),
            "TMPDIR": str(self.tmp),
            "VSE_CACHE": str(self.dir / "cache"),  # templates of others must not decide whether VMs boot
            # Never the machine's own: what is built elsewhere must not decide a test.
            "VSE_SITE_STORE": str(site_store or self.dir / "no-site-store"),
        })

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        for _ in range(20):
            left = self.processes()
            for p in left:
                p.kill()
            if not left:
                break
            time.sleep(0.05)
        shutil.rmtree(self.dir, ignore_errors=True)

    # ---- commands ----

    def start(self, *argv, **kw):
        """A process in this world; "vse" as argv[0] is the built one."""
        kw.setdefault("stdin", subprocess.DEVNULL)
        kw.setdefault("env", self.env)
        kw.setdefault("cwd", self.dir)
        return subprocess.Popen([str(a) for a in argv], **kw)

    def call(self, *argv, timeout=60, stdin=b"", **kw):
        begun = time.monotonic()
        kw.setdefault("stdout", subprocess.PIPE)
        kw.setdefault("stderr", subprocess.PIPE)
        feed = stdin if isinstance(stdin, bytes) else None
        p = self.start(*argv, stdin=subprocess.PIPE if feed is not None else stdin, **kw)
        try:
            out, err = p.communicate(feed, timeout=timeout)
            code = p.returncode
        except subprocess.TimeoutExpired:
            p.kill()
            # Whoever inherited the pipes may live on: no waiting for their end.
            code, out, err = None, b"", b"(did not end within %d s)" % timeout
            for pipe in (p.stdout, p.stderr, p.stdin):
                if pipe:
                    pipe.close()
            p.wait()
        return Result(argv, code, out or b"", err or b"", time.monotonic() - begun)

    def vse(self, *args, **kw):
        return self.call(VSE, *args, **kw)

    # ---- what is there ----

    def processes(self, role=None):
        found = []
        mark = ("%s=%s" % (MARK, self.mark)).encode()
        for entry in os.listdir("/proc"):
            if not entry.isdigit() or int(entry) == os.getpid():
                continue
            try:
                with open("/proc/%s/environ" % entry, "rb") as f:
                    if mark not in f.read().split(b"\0"):
                        continue
                with open("/proc/%s/cmdline" % entry, "rb") as f:
                    argv = f.read().decode("utf-8", "replace").split("\0")[:-1]
                with open("/proc/%s/stat" % entry) as f:
                    comm, rest = f.read().split("(", 1)[1].rsplit(")", 1)
            except OSError:
                continue
            if argv:
                found.append(Process(int(entry), int(rest.split()[1]), argv, comm))
        # What an agent has forked looks like it for a moment.
        agents = [p.pid for p in found if p.role() == "agent"]
        found = [p for p in found if role is None or (p.role() == role and not (role == "agent" and p.parent in agents))]
        return sorted(found, key=lambda p: p.pid)

    def await_process(self, role, seconds):
        until = time.monotonic() + seconds
        while True:
            found = self.processes(role)
            if found or time.monotonic() > until:
                return found
            time.sleep(0.002)

    def mounts(self):
        with open("/proc/self/mounts") as f:
            return [line.strip() for line in f if str(self.dir) in line]

    def files(self):
        """What a cluster or a build may not leave: the run and temporary folders, the store's work."""
        found = []
        for top in (self.run, self.tmp, self.data / "vse/tmp"):
            for folder, names, files in os.walk(top):
                found += [os.path.join(folder, n) for n in names + files]
        return found

    def leftovers(self):
        return (["process " + str(p) for p in self.processes()] + ["mount " + m for m in self.mounts()] +
                ["file " + f for f in self.files()])

    def clean_within(self, seconds=CLEAN_S):
        """What is still there at the end of that time: []: all gone."""
        until = time.monotonic() + seconds
        while True:
            left = self.leftovers()
            if not left or time.monotonic() > until:
                return left
            time.sleep(0.05)

    # ---- VSE files ----

    def write(self, name, text):
        path = self.dir / name
        path.write_text(text)
        return path

    def fake_vse(self, name="f"):
        return self.write(name + ".yaml", "vse: 1\nname: %s\nbase: debian:bookworm\n" % name)


BUSYBOX_VSE = "vse: 1\nname: bb\nbase: dir:%s\nneeds:\n  memory: 128M\n"


def busybox_root(path):
    """The smallest root file system that runs programs; False when there is no static busybox."""
    busybox = shutil.which("busybox", path=os.environ.get("PATH", "") + ":/bin:/usr/bin")
    if not busybox:
        return False
    for name in ("bin", "sbin", "lib", "etc", "proc", "sys", "dev", "tmp", "root", "run", "usr", "var"):
        (path / name).mkdir(parents=True)
    shutil.copy(busybox, path / "bin/busybox")
    for applet in subprocess.check_output([busybox, "--list"], text=True).split():
        if applet != "busybox":
            (path / "bin" / applet).symlink_to("busybox")
    (path / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/tmp:/bin/sh\n")
    (path / "etc/group").write_text("root:x:0:\nuser:x:1000:\n")
    # Two roots made at different times are the same input.
    for folder, names, files in os.walk(path, topdown=False):
        for name in names + files + ["."]:
            os.utime(os.path.join(folder, name), (0, 0), follow_symlinks=False)
    return True


def real_world():
    """(World, VSE file, None) with the busybox image at hand, or (None, None, why not)."""
    if not shutil.which("qemu-system-x86_64"):
        return None, None, "qemu is not here"
    store = shared_data()
    store.mkdir(parents=True, exist_ok=True)
    world = World(site_store=store / "vse")
    if not busybox_root(world.dir / "root"):
        world.close()
        return None, None, "busybox is not here"
    file = world.write("bb.yaml", BUSYBOX_VSE % (world.dir / "root"))
    built = world.vse("build", file, timeout=900, env=dict(world.env, XDG_DATA_HOME=str(store)))
    if built.code != 0:
        world.close()
        return None, None, "the image cannot be built: " + built.said.strip().splitlines()[-1]
    return world, file, None
