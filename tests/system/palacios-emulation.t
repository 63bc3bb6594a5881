#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The emulation of the Palacios module must end a test that would have taken a real node down, and must not end one that
would not: else the contract suite on it would prove nothing. Its ioctls are called by hand here, without the back end."""
import os, subprocess, sys, tempfile
sys.dont_write_bytecode = True

PRELUDE = """
import ctypes, fcntl, os, struct, sys
ROOT = os.environ["VSE_PALACIOS_ROOT"]
def call(node, number, argument=0):
    fd = os.open(f"{ROOT}/dev/{node}", os.O_RDONLY)
    try:
        return fcntl.ioctl(fd, number, argument)
    except OSError as e:
        return -e.errno
    finally:
        os.close(fd)
def image(xml, cookie=b"v3vee\\0\\0\\1"):
    return cookie + struct.pack("<I", len(xml)) + xml.encode() + bytes(8) + bytes(8) + bytes(8)
def create(data, name="vm-a"):
    global kept
    kept = ctypes.create_string_buffer(data, len(data))
    return call("v3vee", 12, bytearray(struct.pack("<QQ128s", len(data), ctypes.addressof(kept), name.encode())))
def vm(memory="<memory>128</memory>", cores='<cores count="1"><core target_cpu="0"/></cores>', devices=""):
    return image(f'<vm class="PC">{memory}{cores}<devices>{devices}</devices></vm>')
def checkpoint(number, url):
    return call("v3-vm0", number, bytearray(struct.pack("<128s256sQ", b"DIR", url.encode(), 0)))
def read(name):
    return open(f"{ROOT}/{name}").read()
"""
LOST, LEFT = 99, 98
CASES = [
    ("a VM is made and freed", 0,
     'assert create(vm()) == 0 and "vm-a\\t/dev/v3-vm0\\tstopped\\t1 vcores\\t1 regions\\t134217728 mem" in read("proc/v3vee/v3-guests")\n'
     'assert "free=402653184" in read("proc/v3vee/v3-mem0")\n'
     'assert call("v3vee", 13, 0) == 0 and read("proc/v3vee/v3-guests") == ""'),
    ("a create without memory", LOST, "create(vm(memory=''))"),
    ("a create with all of the pool", LOST, "create(vm(memory='<memory>512</memory>'))"),
    ("a create with all but one block", LEFT, "assert create(vm(memory='<memory>384</memory>')) == 0"),
    ("a core without a CPU of its own", LOST, "create(vm(cores='<cores count=\"1\"/>'))"),
    ("a core on CPU 31", LOST, "create(vm(cores='<cores count=\"1\"><core target_cpu=\"31\"/></cores>'))"),
    ("a name with a blank", LOST, "create(vm(), 'a b')"),
    ("the same name twice", LOST, "create(vm()); create(vm())"),
    ("a number of the other line", LOST, "call('v3vee', 112)"),
    ("a save to a folder that is not there", LOST, "create(vm()); checkpoint(28, '/nonexist/x')"),
    ("what is refused leaves the node as it was", 0,
     'one = \'<cores count="5">\' + \'<core target_cpu="0"/>\' * 5 + "</cores>"\n'
     'assert create(b"junk" * 9) == -1 and create(image("<vm")) == -1 and create(vm(cores=one)) == -1\n'
     'assert create(vm(devices=\'<device class="nosuch" id="a"/>\')) == -1 and "device class nosuch" in read("dev/kmsg")\n'
     'assert create(vm(devices=\'<device class="FILEDISK" id="a"><path>/nonexist</path></device>\')) == -1\n'
     'assert create(vm(devices=\'<device class="IDE" id="a"><bus>pci0</bus></device>\')) == -1\n'
     'assert call("v3vee", 13, 7) == -1'),
    ("operations that succeed and do nothing", 0,
     'create(vm()); assert [call("v3-vm0", n) for n in (23, 24, 26)] == [0, 0, 0]\n'
     'assert "stopped" in read("proc/v3vee/v3-guests") and call("v3-vm0", 21, bytearray(b"com1".ljust(128, bytes(1)))) == -14\n'
     'call("v3vee", 13, 0)'),
    ("from state to state", 0,
     'S = lambda: read("proc/v3vee/v3-guests").split("\\t")[2]\n'
     'create(vm()); assert call("v3-vm0", 25) == 0 and S() == "running" and call("v3-vm0", 25) == -1\n'
     'assert call("v3-vm0", 23) == 0 and S() == "paused" and call("v3-vm0", 26) == 0 and S() == "paused"\n'
     'assert call("v3vee", 13, 0) == -1 and call("v3-vm0", 24) == 0 and S() == "running"\n'
     'assert call("v3vee", 13, 0) == -1 and call("v3-vm0", 26) == 0 and S() == "stopped" and call("v3vee", 13, 0) == 0'),
    ("a launch of a VM that has run", LOST, 'create(vm()); call("v3-vm0", 25); call("v3-vm0", 26); call("v3-vm0", 25)'),
    ("two operations at a time", LOST,
     'create(vm())\nif os.fork():\n    [call("v3-vm0", 23) for _ in range(500)]\nelse:\n    [call("v3-vm0", 23) for _ in range(500)]'),
    ("a VM that is left", LEFT, "create(vm())"),
    ("a command's own status", 3, "sys.exit(3)"),
    ("a command that fails", 1, "assert create(vm()) == 5 or call('v3vee', 13, 0)"),
]


def main():
    import harness
    tap = harness.Tap()
    emulation = harness.TOP / "tests/palacios/emulation"
    with tempfile.TemporaryDirectory() as tmp:
        for name, want, code in CASES:
            r = subprocess.run([emulation, "--memory", "512", sys.executable, "-c", PRELUDE + code], text=True, timeout=120,
                               stdin=subprocess.DEVNULL, capture_output=True, env={**os.environ, "TMPDIR": tmp})
            good = r.returncode == want and (want != LOST or "A REAL HOST WOULD BE LOST" in r.stderr)
            tap.ok(good and "EMULATION" in r.stdout, name, r.returncode, r.stdout, r.stderr)
        tap.ok(os.listdir(tmp) == [], "and nothing is left", os.listdir(tmp))
    return tap.done()


if __name__ == "__main__":
    sys.exit(main())
