# SPDX-License-Identifier: Apache-2.0
"""QEMU as one drives it by hand: the yardstick of bench/save, bench/migrate and bench/clone (clonescript.py). Its VMs boot the same kernel, initramfs and
root, with the same kernel line and memory, to a guest agent that is ready; then QMP does the rest."""
import json
import os
import signal
import socket
import struct
import subprocess
import time

PORT = "org.vse.agent.0"
BOUND_S = 300
BOOTS = 8
HEADER = struct.Struct(">IBBHII")  # src/wire/frame.h
KNOCK = bytes((64 << 10) + HEADER.size)  # src/wire/guestproto.h: who hears no hello sends so many zeros


class Image:
    """What a VSE builds into, and how vse runs it."""
    cpu = "max,-la57,-erms,-cx16"

    def __init__(self, call, file):
        said = json.loads(call("build", "-q", "--json", file))
        shown = json.loads(call("image", "show", "--json", call("build", "-q", file).decode().strip()))
        self.kernel, self.initrd, self.root, self.type = (said[k] for k in ("vmlinux", "initrd", "root", "root_type"))
        self.modules = ",".join(shown["modules"]["order"])
        self.memory = json.loads(call("show", "--resolved", "--json", file))["needs"]["memory"]
        if not self.kernel:
            raise SystemExit("the image has no PVH kernel: it cannot be run on microvm by hand")

    def append(self):
        with open("/proc/cpuinfo") as f:
            khz = next(int(float(line.split(":")[1]) * 500) for line in f if line.startswith("bogomips"))
        return ("console=ttyS0 quiet panic=-1 reboot=t tsc_early_khz=%d cryptomgr.notests i8042.noaux i8042.nokbd tsc=reliable "
                "no_timer_check audit=0 apparmor=0 mitigations=off init_on_alloc=0 vse.mods=%s vse.root=%s:vda:mem vse.init=vse" % (
                    khz, self.modules, self.type))


def record(pairs, request=0):
    """src/wire/kv.h"""
    body = b"".join(bytes([len(k)]) + struct.pack(">I", len(v)) + k.encode() + v for k, v in pairs)
    return HEADER.pack(len(body), 1, 0, 0, request, 0) + body


class Vm:
    def __init__(self, image, folder, name, incoming=None, argv=None):
        """argv: all but QMP; without it as below, with the channel's socket at path("c")."""
        self.folder, self.name, self.events = folder, name, []
        self.listening = self.listen("q")
        argv = (argv or self.usual(image)) + ["-qmp", "unix:%s" % self.path("q")]
        self.process = subprocess.Popen(argv + (["-incoming", incoming] if incoming else []), stdin=subprocess.DEVNULL,
                                        preexec_fn=os.setpgrp)
        self.channel = None
        self.listening.settimeout(BOUND_S)
        self.qmp = self.listening.accept()[0].makefile("rwb", buffering=0)
        json.loads(self.qmp.readline())
        self.command("qmp_capabilities")

    def usual(self, image):
        return ["qemu-system-x86_64", "-accel", "tcg", "-M", "microvm", "-nodefaults", "-no-user-config", "-display", "none",
                "-no-reboot", "-bios", "qboot.rom", "-cpu", image.cpu, "-m", "%dB" % image.memory,
                "-kernel", image.kernel, "-initrd", image.initrd, "-append", image.append(),
                "-serial", "null",
                "-chardev", "socket,id=c0,path=%s,server=on,wait=off" % self.path("c"),
                "-device", "virtio-serial-device", "-device", "virtserialport,chardev=c0,name=" + PORT,
                "-drive", "if=none,id=d0,format=raw,readonly=on,file.locking=off,file=" + image.root,
                "-device", "virtio-blk-device,drive=d0"]

    def path(self, what):
        return "%s/%s.%s" % (self.folder, self.name, what)

    def listen(self, what):
        s = socket.socket(socket.AF_UNIX)
        if os.path.exists(self.path(what)):
            os.unlink(self.path(what))
        s.bind(self.path(what))
        s.listen()
        return s

    # ---- QMP ----

    def read(self):
        line = self.qmp.readline()
        if not line:
            raise SystemExit("%s: qemu has ended" % self.name)
        j = json.loads(line)
        if "event" in j:
            self.events.append(j)
        return j

    def command(self, name, **arguments):
        self.qmp.write(json.dumps({"execute": name, "arguments": arguments}).encode() + b"\n")
        while True:
            j = self.read()
            if "error" in j:
                raise SystemExit("%s: %s: %s" % (self.name, name, j["error"]["desc"]))
            if "return" in j:
                return j["return"]

    def await_event(self, name, **data):
        """When it happened, in seconds."""
        while True:
            for e in self.events:
                if e["event"] == name and all(e.get("data", {}).get(k) == v for k, v in data.items()):
                    return e["timestamp"]["seconds"] + e["timestamp"]["microseconds"] / 1e6
                if e["event"] == "MIGRATION" and e["data"]["status"] == "failed":
                    raise SystemExit("%s: the migration has failed" % self.name)
            self.read()

    def migrate(self, uri, ignore_shared=False):
        self.events = []
        self.command("migrate-set-capabilities", capabilities=[{"capability": "events", "state": True},
                                                               {"capability": "x-ignore-shared", "state": ignore_shared}])
        self.command("migrate-set-parameters", **{"max-bandwidth": 1 << 40})
        self.command("migrate", uri=uri)

    # ---- the guest agent ----

    def open(self):
        self.channel = socket.socket(socket.AF_UNIX)
        self.channel.connect(self.path("c"))
        self.data = b""

    def await_verb(self, verb, knock=False):
        until, next_knock = time.monotonic() + BOUND_S, time.monotonic() + 0.02
        while time.monotonic() < until:
            i = self.data.find(b"\x04\0\0\0" + bytes([len(verb)]) + b"verb" + verb)
            if i >= 0:
                self.data = self.data[i + 9 + len(verb):]
                return
            self.channel.settimeout(max(0.001, next_knock - time.monotonic()) if knock else 0.5)
            try:
                more = self.channel.recv(1 << 16)
            except socket.timeout:
                more = None
            if more == b"":
                raise SystemExit("%s: its channel has ended" % self.name)
            self.data += more or b""
            if knock and time.monotonic() > next_knock:
                self.channel.settimeout(10)
                self.channel.sendall(KNOCK)
                next_knock = time.monotonic() + 1
        raise SystemExit("%s: no '%s'" % (self.name, verb.decode()))

    def set_up(self):
        self.await_verb(b"hello")
        self.channel.sendall(record([("verb", b"setup"), ("hostname", self.name.encode()),
                                     ("time_ns", b"%d" % time.time_ns()), ("seed", os.urandom(64))]))
        self.await_verb(b"ready")

    def run(self, *argv):
        """A program in the guest. It ends with the channel, but what has begun a session of its own does not."""
        self.channel.sendall(record([("verb", b"exec"), *[("arg", w.encode()) for w in argv], ("stdin", b"0"),
                                     ("window", b"65536")], request=1))
        self.await_verb(b"started")

    def close(self):
        if self.channel:
            self.channel.close()
            self.channel = None

    def end(self):
        self.close()
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
        self.listening.close()


def boot(image, folder, n):
    """A boot may find no timer on a busy machine (src/guest/timer.c): then the guest reboots, which ends its QEMU, and it is
    booted again, as vse does."""
    def begin(i):
        vms[i] = Vm(image, folder, "b%d" % i)
        vms[i].open()

    vms = [None] * n
    try:
        for i in range(n):
            begin(i)
        for i in range(n):
            for left in range(BOOTS - 1, -1, -1):
                try:
                    vms[i].set_up()
                    break
                except (OSError, SystemExit):
                    if not left:
                        raise
                    vms[i].end()
                    begin(i)
    except BaseException:
        for vm in vms:
            if vm:
                vm.end()
        raise
    return vms
