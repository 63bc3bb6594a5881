#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Another user on the nodes of a cluster: he cannot join, read, stop or spoof it, and nothing shows him the secret."""
import json
import os
import shutil
import sys
import time

sys.dont_write_bytecode = True
import harness  # noqa: E402
import labworld  # noqa: E402

NODES = 2
# Sends what is on its standard input to an address, and prints what comes back until the other side closes.
TALK = """
import socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)
s.settimeout(15)
try:
    s.sendall(sys.stdin.buffer.read())
    got = b""
    while True:
        d = s.recv(65536)
        if not d:
            break
        got += d
    print("closed", len(got))
except socket.timeout:
    print("open")
except OSError as e:
    print("closed", e)
"""


def ports(lab, node):
    """The TCP ports that agents of the user listen on."""
    r = lab.call("ss", "-Hltnp", node=node, user=None)
    return sorted({int(line.split()[3].rsplit(":", 1)[1]) for line in r.text.splitlines() if "vse-agent" in line})


def agent_log(lab, node):
    r = lab.call("sh", "-c", "cat /tmp/vse-*/*/agent.log", node=node, user=None)
    return r.text


def strangers(tap, lab, node, address, port):
    def talk(name, data):
        r = lab.call("python3", "-c", TALK, address, str(port), node=node, user="labother", stdin=data, timeout=40)
        tap.ok(r.text.startswith("closed"), "%s: cut off" % name, r)

    talk("plain text", b"GET / HTTP/1.0\r\n\r\n")
    talk("a frame of ours in the clear", bytes([0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]) + b"{}")
    talk("random bytes", os.urandom(4096))
    talk("a huge TLS record", b"\x16\x03\x01\xff\xff" + b"x" * 70000)
    if not shutil.which("openssl"):
        tap.skip("TLS without the secret", "openssl is not here")
        return
    for name, more in (("TLS without a secret", []), ("TLS with another secret",
                       ["-psk_identity", "vse:00", "-psk", "00" * 32]), ("TLS 1.2", ["-tls1_2"])):
        r = lab.call("openssl", "s_client", "-connect", "%s:%d" % (address, port), *more, node=node, user="labother",
                     timeout=40)
        tap.ok("Cipher is (NONE)" in r.text, "%s: no session" % name, r)


def secrets(tap, lab):
    """The secret of the cluster, looked for wherever another user could see it."""
    r = lab.call("sh", "-c", "cat /tmp/vse-*/f/journal", node="n0", user=None)
    line = json.loads(json.loads(r.out)["bootstrap"])
    secret = line["secret"]
    tap.ok(len(secret) == 64, "the secret is in the journal, which only its owner reads")
    seen = lab.call("sh", "-c", "cat /tmp/vse-*/f/journal", node="n0", user="labother")
    tap.ok(seen.code != 0 and secret not in seen.text, "another user does not read it", seen)
    find = ("grep -al -e %s $(ls /proc/[0-9]*/cmdline /proc/[0-9]*/environ) 2>/dev/null; "
            "find /tmp /var/tmp /home /run /dev/shm -xdev -type f -perm /0044 -exec grep -al -e %s {} + 2>/dev/null; true")
    for node in ["n0"] + ["n%d" % (i + 1) for i in range(NODES)]:
        r = lab.call("sh", "-c", find % (secret, secret), node=node, user=None, timeout=60)
        found = [w for w in r.text.split() if "/proc/" not in w or "grep" not in w]
        # The searching shell and grep carry it themselves.
        found = [w for w in found if not w.startswith("/proc/") or is_ours(lab, node, w)]
        tap.ok(not found, "no argument, environment or readable file of %s holds it" % node, r)


def is_ours(lab, node, path):
    r = lab.call("sh", "-c", "tr '\\0' ' ' <%s/cmdline" % os.path.dirname(path), node=node, user=None)
    return "grep" not in r.text and r.text != ""


def main():
    labworld.skip_unless(ssh=True)
    tap = harness.Tap()
    with labworld.Lab(nodes=NODES, ssh=True) as lab:
        file = lab.write("f.yaml", "vse: 1\nname: f\nbase: debian:bookworm\n")
        lab.mark()
        r = lab.vse("up", "--hypervisor", "fake", "-n", "4", "--hosts", "n[1-%d]" % NODES, file, timeout=60)
        tap.ok(r.code == 0, "up", r)
        time.sleep(0.2)  # the journal follows the start by some milliseconds
        r = lab.vse("ps", user="labother")
        tap.ok("vm0" not in r.text, "another user lists nothing", r)
        r = lab.vse("down", "f", user="labother")
        tap.ok(r.code == 1, "nor ends it", r)
        r = lab.call("sh", "-c", "ls /tmp/vse-*/f /tmp/vse-*/f@* ; cat /tmp/vse-*/*/agent.log", node="n1", user="labother")
        tap.ok(r.text == "", "nor looks into its folders on a node", r)
        for node, address in (("n0", "10.77.0.1"), ("n1", "10.77.0.11")):
            found = ports(lab, node)
            tap.ok(len(found) == 1, "the agent of %s listens on one port" % node, found)
            strangers(tap, lab, "n2", address, found[0])
            log = agent_log(lab, node)
            tap.ok("was refused: " in log and "10.77.0.12" in log, "%s: its log says who was refused, and why" % node, log)
        secrets(tap, lab)
        r = lab.vse("exec", "--", "echo", "x")
        tap.ok(r.code == 0 and r.text == "vm[0-3]: x\n", "the cluster has taken no notice", r)
        r = lab.vse("down")
        left = lab.clean_within(10, ignore=["*/vse-cache-*"])
        tap.ok(r.code == 0 and not left, "down: nothing is left", r, "\n".join(left))
    return tap.done()


if __name__ == "__main__":
    sys.exit(main())
