#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The back end `container`: a cluster without a hypervisor, as root and as an ordinary user: every verb, what its programs
cannot reach, and that nothing stays whatever is killed."""
import ctypes
import errno
import fcntl
import json
import os
import shutil
import struct
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
from harness import BUILD, BUSYBOX_VSE, NIGHTLY, Tap, World, busybox_root, shared_data  # noqa: E402

UID, FIRST = 61941, 7000000  # a user of this test's own, and his subordinate ids
SLEEPS = 0


def has(*programs):
    path = os.environ.get("PATH", "") + ":/sbin:/usr/sbin"
    return next((p for p in programs if not shutil.which(p, path=path)), None)


def as_user(folder):
    """The words that run a program as a user who has subordinate ids, here and nowhere else; None: not possible."""
    if os.getuid() != 0 or has("setpriv", "newuidmap"):
        return None
    etc = folder / "etc"
    etc.mkdir()
    for name in ("passwd", "group"):
        (etc / name).write_text(open("/etc/" + name).read())
    with open(etc / "passwd", "a") as f:
        f.write("vsetest:x:%d:%d::/:/bin/sh\n" % (UID, UID))
    for name in ("subuid", "subgid"):
        (etc / name).write_text("vsetest:%d:65536\n" % FIRST)
        if not os.path.exists("/etc/" + name):
            return None
    script = "for f in passwd group subuid subgid; do mount --bind %s/$f /etc/$f || exit 1; done; exec setpriv --reuid %d " \
        "--regid %d --clear-groups -- \"$@\"" % (etc, UID, UID)
    words = ["unshare", "-m", "sh", "-c", script, "sh"]
    return words if subprocess.call(words + ["true"], stderr=subprocess.DEVNULL) == 0 else None


def running(word):
    """Processes of the node, of whatever namespace, with this word among their arguments."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/cmdline" % pid, "rb") as f:
                if word.encode() in f.read().split(b"\0"):
                    found.append(int(pid))
        except OSError:
            pass
    return found


def open_files(pid):
    """Those with a name; of a process that may end meanwhile."""
    folder = "/proc/%d/fd/" % pid
    try:
        return [folder + f for f in os.listdir(folder) if os.path.exists(folder + f)]
    except OSError:
        return []


def within(seconds, what):
    until = time.monotonic() + seconds
    while not what():
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


AT_REMOVEDIR = 0x200
# flock(2), unlinkat(2), seccomp(2)
CALLS = {"x86_64": (73, 263, 317), "aarch64": (32, 35, 277)}.get(os.uname().machine)
REFUSE, HOLD = 0x50000, 0x7fc00000  # with an error; for somebody to decide who does not come


def filtered(call, argument, value, action):
    """For preexec_fn: a call with this argument is refused, or never ends."""
    class Program(ctypes.Structure):
        _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_char_p)]
    code = b"".join(struct.pack("HBBI", *c) for c in (
        (0x20, 0, 0, 0), (0x15, 0, 3, CALLS[call]),  # the call's number
        (0x20, 0, 0, 16 + 8 * argument), (0x45, 0, 1, value), (0x06, 0, 0, action), (0x06, 0, 0, 0x7fff0000)))
    program = Program(len(code) // 8, code)

    def begin():
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
        fd = libc.syscall(CALLS[2], 1, 8 if action == HOLD else 0, ctypes.byref(program))
        if fd < 0:
            raise OSError(ctypes.get_errno(), "seccomp")
        if fd:
            os.set_inheritable(fd, True)
    return begin


class Checks:
    """words: what is put before every command, to be somebody else; home: his folder, with bin/ and store/ in it."""

    def __init__(self, tap, world, file, who, words, home):
        self.tap, self.w, self.file, self.who, self.words = tap, world, file, who, words
        self.env = dict(world.env, VSE_ROOTS=str(home / "roots"))
        self.program = BUILD / "vse"
        if words:
            self.program = home / "bin/vse"
            self.env.update(HOME=str(home), XDG_RUNTIME_DIR=str(home / "run"), XDG_DATA_HOME=str(home / "data"),
                            TMPDIR=str(home / "tmp"), VSE_SITE_STORE=str(home / "store"))

    def call(self, *args, **kw):
        return self.w.call(*(self.words + [str(self.program)] + list(args)), env=self.env, **kw)

    def vse(self, name, *args, code=0, out=None, said="", **kw):
        r = self.call(*args, **kw)
        self.tap.ok(r.code == code and (out is None or r.text == out) and said in r.said, "%s: %s" % (self.who, name), r)
        return r

    def ok(self, good, name, *details):
        return self.tap.ok(good, "%s: %s" % (self.who, name), *details)

    def states(self):
        return [v["state"] for v in json.loads(self.call("ps", "--json").out)["clusters"][0]["vms"]]

    def sleeper(self):
        """A program in vm0 with an argument that nobody else has: the node sees it, and its end."""
        global SLEEPS
        SLEEPS += 1
        word = "%d.%d" % (900000 + os.getpid(), SLEEPS)
        self.call("exec", "-r", "0", "--", "sh", "-c", "sleep %s >/dev/null 2>&1 &" % word)
        self.ok(within(5, lambda: running(word)), "a program runs in vm0")
        return word

    def up(self):
        return self.vse("up: 2 containers", "up", "-n", "2", "--hypervisor", "container", str(self.file), timeout=300)

    # ---- the verbs ----

    def verbs(self):
        r = self.up()
        self.ok(r.said.count("lighter protection") == 1, "the lighter protection is said once", r)
        ps = json.loads(self.call("ps", "--json").out)["clusters"][0]
        self.ok(ps["accel"] == "namespaces" and all(v["pid"] > 0 and v["memory_used"] > 0 for v in ps["vms"]),
                "ps knows the processes", ps)
        self.vse("exec: exit code", "exec", "-r", "1", "--", "sh", "-c", "exit 42", code=42)
        self.vse("exec: as a user", "exec", "-r", "0", "-u", "user", "id", "-u", out="1000\n")
        self.vse("exec: names", "exec", "-r", "1", "hostname", out="vm1\n")
        self.vse("the network reaches the other", "exec", "-r", "0", "--", "ping", "-c", "2", "-W", "5", "vm1")
        self.copies()
        self.console()
        self.pause()
        self.vse("kill", "kill", "1")
        self.ok(self.states() == ["ready", "stopped"], "the killed one is stopped", self.states())
        self.vse("restart", "restart", "1")
        self.ok(within(20, lambda: self.states() == ["ready", "ready"]), "and ready again", self.states())
        self.vse("stop", "stop", "1")
        self.ok(within(20, lambda: self.states() == ["ready", "stopped"]), "graceful stop", self.states())

    def race(self):
        """Two VMs want the tree at once: who waited for the other one's does not wait for the end of what runs in it."""
        dir = self.w.dir / "race"
        dir.mkdir()
        with open(dir / "k.lock", "w") as first:
            fcntl.flock(first, fcntl.LOCK_EX)
            second = subprocess.Popen([str(BUILD / "vse-guest"), "--unpack", str(dir), "k"], stdin=subprocess.DEVNULL)
            try:
                self.ok(within(10, lambda: any(os.path.samefile(f, dir / "k.lock") for f in open_files(second.pid))) and
                        second.poll() is None, "a second one waits while the root image is unpacked")
                time.sleep(0.1)  # so that it is in the call that waits
                (dir / "k").mkdir()
                fcntl.flock(first, fcntl.LOCK_SH)
                self.ok(within(20, lambda: second.poll() == 0), "and goes on when the first one's container runs", second.poll())
            finally:
                second.kill()
                second.wait()

    def unpack(self, folder, key, image="/dev/null", **how):
        # A filter's other end must stay open, or what it holds goes on.
        return subprocess.Popen(["sh", "-c", 'exec 3<"$0" "$@"', str(image), str(BUILD / "vse-guest"), "--unpack", str(folder), key],
                                stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, close_fds=False, **how)

    def swept(self, when):
        """A folder with the tree `k`, and `old`, which nobody used for two weeks."""
        folder = self.w.dir / ("swept-" + when)
        for key in "k", "old":
            (folder / key / "root/bin").mkdir(parents=True)
            (folder / key / "root/file").write_text("")
            (folder / (key + ".lock")).write_text("")
        os.utime(folder / "old.lock", (time.time() - 14 * 86400,) * 2)
        return folder, folder / "old", folder / "old.lock", folder / "old.new"

    def sweeping(self, there):
        """What is not removed to its end is not taken for a root afterwards; and nobody waits for that."""
        folder, old, lock, part = self.swept("beside" if there else "after")
        image = folder.with_suffix(".image")
        subprocess.check_call(["mksquashfs", str(folder / "k/root"), str(image), "-quiet", "-no-progress"], stdout=subprocess.DEVNULL)
        if not there:
            shutil.rmtree(folder / "k")
        first = self.unpack(folder, "k", image, preexec_fn=filtered(1, 2, AT_REMOVEDIR, HOLD))
        try:
            self.ok(within(20, lambda: not any((d / "root/file").exists() for d in (old, part))) and first.poll() is None,
                    "an old root image is being removed", first.poll())
            with open(folder / "k.lock") as mine:
                try:
                    fcntl.flock(mine, fcntl.LOCK_SH | fcntl.LOCK_NB)
                    held = True
                except BlockingIOError:
                    held = False
            self.ok(held, "meanwhile the new one can be held%s" % ("" if there else ", by others than who made it"))
        finally:
            first.kill()
            first.communicate()
        self.ok(not old.exists() and lock.exists(), "killed at it: it is not taken for a whole one", os.listdir(folder))
        second = self.unpack(folder, "k")
        self.ok("" == second.communicate()[1].decode() and second.returncode == 0 and sorted(os.listdir(folder)) == ["k", "k.lock"],
                "the next one removes the rest", os.listdir(folder))

    def stuck(self):
        folder, old, lock, part = self.swept("kept")
        first = self.unpack(folder, "k", preexec_fn=filtered(1, 2, AT_REMOVEDIR, REFUSE | errno.EPERM))
        first.communicate()
        self.ok(first.returncode == 0 and not old.exists() and part.exists() and lock.exists(),
                "what cannot be removed is not taken for a whole one either", os.listdir(folder))

    def no_locks(self):
        folder = self.swept("locks")[0]
        r = self.unpack(folder, "k", preexec_fn=filtered(0, 1, fcntl.LOCK_EX | fcntl.LOCK_SH, REFUSE | errno.ENOLCK))
        said = r.communicate()[1].decode()
        self.ok(r.returncode == 1 and os.strerror(errno.ENOLCK) in said, "a disk without locks is told", r.returncode, said)

    def former_boot(self):
        with open("/proc/sys/kernel/random/boot_id") as f:
            boot = f.read().strip().replace("-", "")
        keys = [name for name in os.listdir(self.env["VSE_ROOTS"]) if "." not in name]
        self.ok(keys and all(key.split("-")[1] == boot for key in keys), "a root image is unpacked once a boot", keys)
        folder = self.w.dir / "boots"
        for key in "a-1-x", "a-2-x", "a-2-y", "b-1-x":
            (folder / key).mkdir(parents=True)
            (folder / (key + ".lock")).write_text("")
        with open(folder / "a-1-y.lock", "w") as used:
            fcntl.flock(used, fcntl.LOCK_SH)
            self.unpack(folder, "a-2-x").communicate()
        left = sorted(name for name in os.listdir(folder) if name.endswith(".lock"))
        self.ok(left == ["a-1-y.lock", "a-2-x.lock", "a-2-y.lock", "b-1-x.lock"] and not (folder / "a-1-x").exists(),
                "those of a former boot of this node make room", left)

    def copies(self):
        blob = os.urandom(300000)
        (self.w.dir / "blob").write_bytes(blob)
        os.chmod(self.w.dir / "blob", 0o644)
        self.vse("cp: in", "cp", str(self.w.dir / "blob"), "vm0:/root/blob")
        r = self.call("exec", "-r", "0", "cat", "/root/blob")
        self.ok(r.code == 0 and r.out == blob, "the same bytes are there", r.code, len(r.out))

    def console(self):
        self.call("exec", "-r", "0", "--", "sh", "-c", "echo printed >/dev/console")
        self.ok(within(5, lambda: "printed" in self.call("logs", "vm0").text), "the console is logged")

    def pause(self):
        # Counts, as a child of a shell, so that a whole tree has to stop.
        self.call("exec", "-r", "0", "--", "sh", "-c",
                  "(i=0; while :; do i=$((i+1)); echo $i >/tmp/n.new; mv /tmp/n.new /tmp/n; sleep 0.01; done) >/dev/null 2>&1 &")
        word = self.sleeper()
        self.vse("pause", "pause", "0")
        self.ok(self.states()[0] == "paused", "ps says so")
        stopped = [open("/proc/%d/stat" % p).read().rsplit(")", 1)[1].split()[0] for p in running(word)]
        self.ok(stopped and set(stopped) == {"T"}, "and so does the node's kernel", stopped)
        self.vse("resume", "resume", "0")
        before = self.call("exec", "-r", "0", "cat", "/tmp/n").text
        self.ok(within(10, lambda: self.call("exec", "-r", "0", "cat", "/tmp/n").text != before), "it counts on")

    # ---- the walls ----

    def walls(self):
        def refused(name, line):
            r = self.call("exec", "-r", "0", "--", "sh", "-c", line)
            self.ok(r.code != 0, "refused: " + name, r)

        secret = self.w.dir / "secret"
        secret.write_text("secret\n")
        os.chmod(secret, 0o644)
        refused("a file of the node", "cat %s" % secret)
        refused("the node's processes", "test -e /proc/%d" % os.getpid())
        refused("mount", "mount -t tmpfs none /mnt || exit 1; true")
        refused("a namespace of its own", "unshare -U true")
        refused("the network's settings", "ip link set eth0 down")
        refused("the kernel's log", "dmesg")
        refused("a device of the node", "mknod /dev/sda b 8 0 && cat /dev/sda")
        refused("a setting of the node's kernel", "echo 1 >/proc/sys/vm/drop_caches")
        refused("the clock", "date -s 2001-01-01; test $(date +%Y) = 2001")
        status = self.call("exec", "-r", "0", "cat", "/proc/self/status").text
        values = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        self.ok(values["NoNewPrivs"] == "1" and values["Seccomp"] == "2" and not int(values["CapEff"], 16) & (1 << 21),
                "no new privileges, a filter, no CAP_SYS_ADMIN", status)
        word = self.sleeper()
        owner = [os.stat("/proc/%d" % p).st_uid for p in running(word)]
        self.ok(owner and 0 not in owner, "root inside is not root outside", owner)
        nets = self.call("exec", "-r", "0", "ls", "/sys/class/net").text.split()
        self.ok(sorted(nets) == ["eth0", "lo"], "no network device of the node is seen", nets)
        self.another_user(running(word)[0])

    def another_user(self, pid):
        if os.getuid() != 0 or has("setpriv"):
            return
        other = ["setpriv", "--reuid", "61942", "--regid", "61942", "--clear-groups", "--"]
        for name, line in (("signal it", "kill -0 %d" % pid), ("see its root", "ls /proc/%d/root/" % pid),
                           ("enter it", "nsenter -t %d -U -m true" % pid), ("read the unpacked root", "ls %s" % self.env["VSE_ROOTS"])):
            r = self.w.call(*(other + ["sh", "-c", line]))
            self.ok(r.code != 0, "another user cannot " + name, r)

    # ---- the end ----

    def deaths(self):
        word = self.sleeper()
        ps = json.loads(self.call("ps", "--json").out)["clusters"][0]
        os.kill(ps["vms"][0]["pid"], 9)
        self.ok(within(10, lambda: self.states()[0] == "failed" and not running(word)), "process 1 killed: failed, and its programs ended",
                self.states(), running(word))
        self.vse("and started anew", "restart", "0")
        self.ok(within(20, lambda: self.states()[0] == "ready"), "ready again")
        for p in [p for p in self.w.processes() if p.program == "bwrap"]:
            p.kill()
        self.ok(within(10, lambda: self.states() == ["failed", "stopped"]), "bwrap killed: failed", self.states())
        self.vse("and started anew", "restart", "0")
        self.ok(within(20, lambda: self.states()[0] == "ready"), "ready again")
        word = self.sleeper()
        os.kill(json.loads(self.call("ps", "--json").out)["clusters"][0]["agent"]["pid"], 9)
        self.ok(within(10, lambda: not running(word)), "agent killed: its programs ended", running(word))
        self.ok(within(10, lambda: not [p for p in self.w.processes()]), "and nothing of it is left", *self.w.processes())

    def refusals(self):
        for name, more, said in (("outbound", "network:\n  outbound: true\n", "outbound: not supported"),
                                 ("scratch", "needs:\n  scratch: 64M\n", "scratch: not supported")):
            file = self.w.write("%s-%s.yaml" % (self.who, name), self.file.read_text().replace("needs:\n  memory: 128M\n", "") + more)
            os.chmod(file, 0o644)
            self.vse("refused: " + name, "up", "-q", "--name", "other", "--hypervisor", "container", str(file), code=1, said=said, timeout=60)

    def run(self):
        self.verbs()
        self.walls()
        self.refusals()
        self.deaths()
        if not self.words:
            self.race()
            self.former_boot()
            if CALLS:
                self.sweeping(True)
                self.sweeping(False)
                self.stuck()
                self.no_locks()
        self.up()
        word = self.sleeper()
        self.vse("down", "down")
        self.ok(within(5, lambda: not running(word)), "ends all")
        mounts = [m for m in open("/proc/self/mounts") if str(self.w.dir) in m]
        self.ok(not mounts, "nothing stays mounted", mounts)


def build_image(world):
    """In the shared store, where the other tests have it too."""
    store = shared_data()
    store.mkdir(parents=True, exist_ok=True)
    if not busybox_root(world.dir / "root"):
        return None, None, "busybox is not here"
    file = world.write("bb.yaml", BUSYBOX_VSE % (world.dir / "root"))
    built = world.vse("build", "-q", file, timeout=900, env=dict(world.env, XDG_DATA_HOME=str(store)))
    if built.code != 0:
        return None, None, "the image cannot be built: " + built.said.strip().splitlines()[-1]
    return file, built.text.strip(), None


def main():
    lacking = has("bwrap", "unsquashfs")
    if lacking:
        print("1..0 # SKIP %s is not here" % lacking)
        return 0
    tap = Tap()
    with World(site_store=shared_data() / "vse") as world:
        os.chmod(world.dir, 0o711)  # root's containers run as somebody else
        file, image, why = build_image(world)
        if not file:
            print("1..0 # SKIP " + why)
            return 0
        os.chmod(file, 0o644)
        try:
            both(tap, world, file, image)
        finally:
            drop_roots(world)
    return tap.done()


def both(tap, world, file, image):
    if os.getuid() != 0:
        Checks(tap, world, file, "user", [], world.dir).run()
        return
    Checks(tap, world, file, "root", [], world.dir).run()
    if not NIGHTLY:  # his image is another build; the contract (contract-container.t) runs as such a user each time
        return
    home = world.dir / "u"
    home.mkdir()
    words = as_user(home)
    if words:
        furnish(home, image)
        Checks(tap, world, file, "user", words, home).run()
    else:
        tap.skip("an ordinary user", "setpriv, newuidmap or /etc/subuid is not here")


def furnish(home, image):
    """What the user needs, where he can reach it."""
    for name in ("run", "data", "tmp"):
        (home / name).mkdir(mode=0o700)
        os.chown(home / name, UID, UID)
    os.chown(home, UID, UID)
    (home / "bin").mkdir()
    for name in ("vse", "vse-agent", "vse-guest"):
        shutil.copy(BUILD / name, home / "bin")
    shutil.copytree(shared_data() / "vse/inputs", home / "store/inputs")
    shutil.copytree(shared_data() / "vse/images" / image, home / "store/images" / image)
    # His own, as root's was root's: the same input, so nothing is built again.
    subprocess.check_call(["chown", "-R", "-h", "%d:%d" % (UID, UID), str(home.parent / "root")])
    subprocess.check_call(["chmod", "-R", "a+rX", str(home / "store"), str(home / "bin"), str(home.parent / "root")])


def drop_roots(world):
    """They belong to other ids: only who may take these on removes them."""
    if os.getuid() != 0 and (world.dir / "roots").exists():
        world.call("unshare", "--map-auto", "--map-root-user", "rm", "-rf", str(world.dir / "roots"))


if __name__ == "__main__":
    sys.exit(main())
