# SPDX-License-Identifier: Apache-2.0
"""Cloning as a bare script does it: the yardstick of bench/clone. One QEMU boots to its guest agent's hello and is saved without its
memory (x-ignore-shared), which is a file in /dev/shm; then QEMUs start that map it privately and take the state in, some at a
time. Each is told who it is by vse's own record on its channel and says that it is ready: same kernel, initramfs, root,
kernel line, memory and devices, and what vse tells its VMs. Left out is all that a script does not need: nobody behind eth0 and the console, no sandbox, no seal on the memory."""
import json
import os
import pathlib
import queue
import shutil
import socket
import subprocess
import tempfile
import threading
import time

import byhand


def command(name, **arguments):
    return json.dumps({"execute": name, "arguments": arguments}).encode() + b"\n"


# In one write. No RARP of the template's address (announce-rounds): QEMU 7.2 crashes over it while nobody is behind eth0.
QMP = b"".join([command("qmp_capabilities"), command("migrate-set-parameters", **{"announce-rounds": 0}),
                command("migrate-set-capabilities", capabilities=[{"capability": "x-ignore-shared", "state": True}]),
                command("migrate-incoming", uri="fd:STATE")])
VERB = b"verb%s"
DEVICES = ["-device", "pvpanic", "-device", "virtio-net-device,netdev=net0,mac=%s"]


def mac(rank):
    return "02:76:73:%02x:%02x:%02x" % (rank >> 16, rank >> 8 & 255, rank & 255)


def listen(path):
    s = socket.socket(socket.AF_UNIX)
    s.bind(path)
    s.listen()
    return s


def cpu_s(pid):
    fields = pathlib.Path("/proc/%d/stat" % pid).read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Clone:
    """One more VM from the template: up when start() is over."""

    def __init__(self, script, rank):
        self.script, self.rank, self.name = script, rank, "c%d" % rank
        self.data = b""
        self.process = self.channel = self.qmp = None

    def start(self):
        s = self.script
        path = "%s/%s." % (s.folder, self.name)
        self.channel, self.qmp = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
        with listen(path + "c") as channel, listen(path + "n") as net, listen(path + "q") as qmp, open(s.state, "rb") as state:
            # The connection waits in the backlog: so the guest never sees its host gone, and needs no new hello.
            self.channel.connect(path + "c")
            self.qmp.connect(path + "q")
            fds = [f.fileno() for f in (channel, net, qmp, state)]
            self.qmp.sendall(QMP.replace(b"STATE", b"%d" % fds[3]))
            argv = s.argv("off", self.rank, "fd=%d" % fds[0], "addr.type=fd,addr.str=%d" % fds[1])
            argv += ["-chardev", "socket,id=q0,server=on,wait=off,fd=%d" % fds[2], "-mon", "chardev=q0,mode=control"]
            self.process = subprocess.Popen(argv + ["-incoming", "defer"], stdin=subprocess.DEVNULL, pass_fds=fds)
        for socket_ in self.channel, self.qmp:
            socket_.settimeout(byhand.BOUND_S)
        try:
            self.channel.sendall(s.setup(self.rank))
            while VERB % b"ready" not in self.data:
                more = self.channel.recv(1 << 16)
                if not more or VERB % b"failed" in self.data:
                    raise OSError("the channel ended")
                self.data += more
        except OSError as e:
            self.process.kill()
            raise SystemExit("%s did not come up: %s; QEMU's end: %s; said %r" % (
                self.name, e, self.process.wait(), self.data[-300:]))

    def end(self):
        for s in self.channel, self.qmp:
            if s:
                s.close()
        if self.process:
            self.process.kill()
            self.process.wait()


class Script:
    def __init__(self, image, at_once):
        self.image, self.at_once, self.n = image, at_once, 0
        self.folder = tempfile.mkdtemp(prefix="vse-bench-clone.", dir="/dev/shm")
        self.memory, self.state = self.folder + "/memory", self.folder + "/state"

    def argv(self, share, rank, channel, net):
        i = self.image
        return ["qemu-system-x86_64", "-accel", "tcg", "-M", "microvm,memory-backend=ram", "-nodefaults", "-no-user-config",
                "-display", "none", "-no-reboot", "-bios", "qboot.rom", "-cpu", i.cpu, "-m", "%dB" % i.memory,
                "-object", "memory-backend-file,id=ram,mem-path=%s,size=%dB,share=%s" % (self.memory, i.memory, share),
                "-kernel", i.kernel, "-initrd", i.initrd, "-append", i.append(), "-serial", "null",
                "-chardev", "socket,id=c0,server=on,wait=off," + channel,
                "-device", "virtio-serial-device", "-device", "virtserialport,chardev=c0,name=" + byhand.PORT,
                "-drive", "if=none,id=d0,format=raw,readonly=on,file.locking=off,file=" + i.root,
                "-device", "virtio-blk-device,drive=d0", "-netdev", "stream,id=net0,server=on," + net,
                *[word % mac(rank) if "%s" in word else word for word in DEVICES]]

    def make(self):
        """A boot may find no timer on a busy machine (src/guest/timer.c): then the guest reboots, which ends this QEMU."""
        for left in 2, 1, 0:
            try:
                return self.boot_and_save()
            except SystemExit:
                if not left:
                    raise

    def boot_and_save(self):
        path = self.folder + "/t."
        vm = byhand.Vm(self.image, self.folder, "t", argv=self.argv("on", 0xffff, "path=%sc" % path,
                                                                    "addr.type=unix,addr.path=%sn" % path))
        try:
            vm.open()
            vm.await_verb(b"hello")
            vm.migrate("exec:cat >{0}.part && mv {0}.part {0}".format(self.state), ignore_shared=True)
            vm.await_event("MIGRATION", status="completed")
            while not os.path.exists(self.state):
                time.sleep(0.002)
        finally:
            vm.end()

    def setup(self, rank):
        """What src/cluster/setup.c writes."""
        ip = [10, 120, rank >> 8, rank & 255]
        names = ["10.120.%d.%d vm%d" % (r >> 8, r & 255, r) for r in range(self.n)]
        return byhand.record([("verb", b"setup"), *[(k, str(v).encode()) for k, v in [
            ("hostname", "vm%d" % rank), ("rank", rank), ("size", self.n), ("cluster", "bench"), ("time_ns", time.time_ns()),
            ("machine_id", os.urandom(16).hex()), ("mac", mac(rank)), ("ipv4", "%d.%d.%d.%d/16" % tuple(ip)),
            ("ipv6", "fd76:7365::%x/64" % (rank + 1)), ("mtu", 9000), ("hosts", "".join(n + "\n" for n in names)),
            ("hostfile", "".join("vm%d slots=1\n" % r for r in range(self.n))),
            ("env", "VSE_RANK=%d" % rank), ("env", "VSE_SIZE=%d" % self.n), ("env", "VSE_NAME=bench"),
            ("env", "VSE_CLUSTER=bench"), ("ssh_private", os.urandom(200).hex()), ("ssh_public", os.urandom(40).hex()),
            ("ssh_authorized", os.urandom(40).hex()), ("clone", 1)]], ("seed", os.urandom(64))])

    def clone(self, n):
        """n VMs that are ready; (seconds, VMs)."""
        self.n, vms, todo, failed = n, [Clone(self, r) for r in range(n)], queue.SimpleQueue(), []
        for vm in vms:
            todo.put(vm)

        def work():
            try:
                while not failed:
                    todo.get_nowait().start()
            except queue.Empty:
                pass
            except BaseException as e:
                failed.append(e)

        begin = time.monotonic()
        threads = [threading.Thread(target=work) for _ in range(self.at_once)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        wall = time.monotonic() - begin
        if failed:
            self.end(vms)
            raise failed[0]
        return wall, vms

    def end(self, vms):
        for vm in vms:
            vm.end()
        for name in os.listdir(self.folder):
            if name not in ("memory", "state"):
                os.unlink(self.folder + "/" + name)

    def forget(self):
        for path in (self.memory, self.state):
            if os.path.exists(path):
                os.unlink(path)

    def finish(self):
        shutil.rmtree(self.folder, ignore_errors=True)
