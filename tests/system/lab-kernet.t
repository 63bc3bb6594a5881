#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The network by the nodes' kernels (--network kernel): VMs of QEMU on taps and bridges, nodes joined by VXLAN. It runs as
the nodes' root (rootlab.py).

VSE_KERNET_SEED: that of the moments at which agents are killed."""
import os
import random
import re
import subprocess
import sys
import time

sys.dont_write_bytecode = True
import harness  # noqa: E402
import labworld  # noqa: E402
import rootlab  # noqa: E402
from labworld import wait_for  # noqa: E402
from rootlab import ENV, vse  # noqa: E402

NODES = ("n1", "n2", "n3")
PORT = ":%04X " % 4789  # of VXLAN, as /proc/net/udp has it
BOUND_S = 20


def shell(lab, rank, text):
    return vse(lab, "exec", "-r", str(rank), "--", "sh", "-c", text, timeout=120)


def roles(lab, node, role):
    return lab.processes(node, role, user=None)


def networks(lab, node):
    """What a node's own network shows of ours: whether VXLAN listens, and the devices."""
    udp = lab.call("cat", "/proc/net/udp", node=node, user=None).text
    links = lab.call("ls", "/sys/class/net", node=node, user=None).text.split()
    return PORT in udp, sorted(links)


def up_words(n, *more, file="bb.yaml"):
    return ["up", "-q", "-n", str(n), "--accel", "tcg", "--memory", "96M", "--oversubscribe", "--lost-after", "10s",
            "--launcher", "mom", "--hosts", "n[1-2]", *more, "/home/labuser/" + file]


def up(lab, n, *more, **kw):
    return vse(lab, *up_words(n, *more, **kw), timeout=300)


def addresses(lab, n):
    """MTU, MAC, IPv4, IPv6 and link-local address of each; the last comes by itself, a moment after the VM is ready."""
    def look():
        found = [re.findall(r"inet6? ([0-9a-f.:]+)/|link/ether (\S+)|mtu (\d+)",
                            shell(lab, r, "ip addr show dev eth0").text) for r in range(n)]
        return found if all(len(a) == 5 for a in found) else None
    return wait_for(BOUND_S, look)


def ping_all(lab, n, *more):
    hosts = " ".join("vm%d" % r for r in range(n))
    r = vse(lab, "exec", *more, "--", "sh", "-c", "for h in %s; do ping -c 1 -W 5 $h >/dev/null || { echo no $h; exit 1; }; done" %
            hosts, timeout=300)
    return r


def forged(tap, lab):
    """vm0 (n1) tries to speak as others to vm1 (n1) and vm3 (n2)."""
    shell(lab, 0, "ip addr add 10.199.0.99/16 dev eth0")
    for to in ("vm1", "vm3"):
        r = shell(lab, 0, "ping -c 1 -W 2 -I 10.199.0.99 %s" % to)
        tap.ok(r.code != 0, "an address that is not its own does not get to " + to, r)
    shell(lab, 0, "ip addr del 10.199.0.99/16 dev eth0")
    r = shell(lab, 0, "ip link set eth0 down; ip link set eth0 address 52:54:00:00:00:02; ip link set eth0 up; "
              "ping -c 1 -W 2 vm1; code=$?; ip link set eth0 down; ip link set eth0 address 52:54:00:00:00:00; "
              "ip link set eth0 up; exit $code")
    tap.ok(r.code != 0, "nor does another's MAC", r)
    r = shell(lab, 0, "ping -c 1 -W 5 vm1 && ping -c 1 -W 5 vm3")
    tap.ok(r.code == 0, "as itself it is heard again", r)


def large(tap, lab):
    """More than the nodes' own network takes in one packet (its MTU is 1500, eth0's 9000)."""
    r = shell(lab, 0, "ping -c 2 -W 2 -s 8000 vm3")
    tap.ok(r.code == 0, "8000 bytes in one packet from node to node", r)
    receiver = lab.start("vse", "exec", "-r", "3", "--", "sh", "-c",
                         # Its own input must not end, or it says so and the other believes that all is over.
                         "mkfifo /tmp/open; timeout 60 nc -l -p 5555 <>/tmp/open | md5sum", user=None, env=ENV,
                         stdout=subprocess.PIPE)
    r = shell(lab, 0, "dd if=/dev/urandom of=/tmp/sent bs=65536 count=32 2>/dev/null; md5sum </tmp/sent; "
              "for i in 1 2 3 4 5 6 7 8 9; do timeout 60 nc vm3 5555 </tmp/sent && break; sleep 1; done")
    got = receiver.communicate(timeout=90)[0].decode()
    tap.ok(r.code == 0 and len(got) > 32 and got.split()[0] in r.text, "2 MiB by TCP from node to node", r, got)


def moved(tap, lab):
    """Another tap on the same node, and on another."""
    r = vse(lab, "restart", "1", timeout=300)
    tap.ok(r.code == 0 and wait_for(60, lambda: ping_all(lab, 4).code == 0), "a VM that is started anew is reached by all", r)
    r = vse(lab, "migrate", "-q", "0", "--to", "n2", timeout=300)
    tap.ok(r.code == 0 and wait_for(60, lambda: ping_all(lab, 4).code == 0), "so is one that is moved to the other node", r,
           ping_all(lab, 4))
    r = vse(lab, "migrate", "-q", "0", "--to", "n1", timeout=300)
    tap.ok(r.code == 0 and wait_for(60, lambda: ping_all(lab, 4).code == 0), "and back", r, ping_all(lab, 4))


def adopted(tap, lab):
    before = roles(lab, "n1", "agent")
    vmms = {p.pid for p in roles(lab, "n1", "vmm")}
    for p in before:
        p.kill()
    new = wait_for(BOUND_S, lambda: [p for p in roles(lab, "n1", "agent") if p.pid not in [b.pid for b in before]])
    tap.ok(len(before) == 1 and new, "another agent follows the one that was killed", before, new)
    r = wait_for(60, lambda: (lambda r: r if r.code == 0 else None)(vse(lab, "exec", "--", "true", timeout=60)))
    tap.ok(r and {p.pid for p in roles(lab, "n1", "vmm")} == vmms, "its VMs run on, and answer", r)
    # Nothing is remembered in the guests: the agent that follows answers.
    vse(lab, "exec", "--", "sh", "-c", "ip neigh flush all", timeout=60)
    tap.ok(wait_for(BOUND_S, lambda: ping_all(lab, 4).code == 0), "and reach one another, all to all", ping_all(lab, 4))


def beside(tap, lab, before):
    """Two clusters at once on the same nodes, with the same names and addresses. The second has a way out, too."""
    out = lab.start("python3", "-c", "import socket; s = socket.create_server(('', 7777)); print('ready', flush=True); "
                    "c = s.accept()[0]; c.sendall(b'outside\\n'); c.close()", user=None, stdout=subprocess.PIPE)
    ready = out.stdout.readline()
    r = up(lab, 2, "--network", "kernel", "--name", "k2", file="out.yaml")
    if not tap.ok(r.code == 0 and ready, "a second such cluster on the same nodes", r):
        return
    tap.ok(all(networks(lab, n) == (True, before[n][1]) for n in ("n1", "n2")), "which adds no device either")
    for name, n in (("k", 4), ("k2", 2)):
        vse(lab, "exec", "-c", name, "-r", "1", "--", "sh", "-c", "while :; do echo %s | nc -l -p 7000; done >/dev/null 2>&1 &" % name)
        r = ping_all(lab, n, "-c", name)
        tap.ok(r.code == 0, name + ": each reaches each", r)
    for name in ("k", "k2"):
        r = vse(lab, "exec", "-c", name, "-r", "0", "--", "sh", "-c", "for i in 1 2 3 4 5 6 7 8 9; do nc vm1 7000 </dev/null && break; sleep 1; done", timeout=60)
        tap.ok(r.text.split() == [name], name + ": vm1 is its own", r)
    r = vse(lab, "exec", "-c", "k2", "-r", "1", "--", "nc", "10.77.0.1", "7777", timeout=60)
    tap.ok(r.text == "outside\n", "the way out goes beside it", r)
    out.kill()
    r = vse(lab, "down", "-c", "k2")
    tap.ok(r.code == 0, "down of the second", r)
    r = ping_all(lab, 4)
    tap.ok(r.code == 0, "the first goes on", r)


def nodes(lab):
    """{name: state}"""
    lines = vse(lab, "nodes").text.splitlines()[1:]
    return {words[0]: words[1] for words in map(str.split, lines)}


def lost(tap, lab):
    """n3 is silent for too long, and comes back."""
    lab.cut("n3")
    tap.ok(wait_for(60, lambda: nodes(lab).get("n3") == "lost"), "it is declared lost", nodes(lab))
    lab.heal("n3")
    tap.ok(wait_for(60, lambda: nodes(lab).get("n3") == "up") and not roles(lab, "n3", "vmm"),
           "it comes back, without VMs", nodes(lab), roles(lab, "n3", "vmm"))
    tap.ok(wait_for(90, lambda: ping_all(lab, 4).code == 0), "its VM began anew elsewhere, and is reached", ping_all(lab, 4), vse(lab, "ps"))


def grown(tap, lab):
    """A node that is added, and taken out again."""
    r = vse(lab, "nodes", "add", "--hosts", "n3", timeout=120)
    tap.ok(r.code == 0, "a node is added", r)
    r = vse(lab, "migrate", "-q", "1", "--to", "n3", timeout=300)
    tap.ok(r.code == 0 and wait_for(60, lambda: ping_all(lab, 4).code == 0), "a VM that moves there is reached", r, ping_all(lab, 4))
    if harness.NIGHTLY:
        lost(tap, lab)
    r = vse(lab, "migrate", "-q", "0", "--to", "n3", timeout=300)
    tap.ok(r.code == 0 and wait_for(60, lambda: ping_all(lab, 4).code == 0), "it takes VMs again", r, ping_all(lab, 4))
    for line in vse(lab, "ps").text.splitlines():
        if line.split()[2] == "n3":
            r = vse(lab, "migrate", "-q", line.split()[0], "--to", "n1", timeout=300)
            tap.ok(r.code == 0, "moved away", r)
    r = vse(lab, "nodes", "remove", "n3", timeout=120)
    tap.ok(r.code == 0 and wait_for(BOUND_S, lambda: not networks(lab, "n3")[0]), "it is taken out: no VXLAN there", r)


def saved(tap, lab, before):
    r = vse(lab, "save", "-q", "-c", "k", "--to", "/home/labuser/saved", "--down", timeout=300)
    tap.ok(r.code == 0, "saved", r)
    nothing_left(tap, lab, before, "after that")
    where = ("--launcher", "mom", "--hosts", "n[2-3]", "/home/labuser/saved")
    r = vse(lab, "restore", "-q", "--network", "switch", *where, timeout=300)
    tap.ok(r.code == 2 and "was saved with --network kernel" in r.said and not vse(lab, "ps").text.count("vm"),
           "another network than it had is refused, and nothing is started", r)
    r = vse(lab, "restore", "-q", *where, timeout=300)
    tap.ok(r.code == 0 and wait_for(60, lambda: ping_all(lab, 4).code == 0), "restored on other nodes, all reach all", r)
    r = vse(lab, "down")
    tap.ok(r.code == 0, "down", r)
    nothing_left(tap, lab, before, "after down")


def left_of(lab):
    return [p for n in ("n0", *NODES) for p in roles(lab, n, None)
            if p.role() in ("agent", "keeper", "reaper", "vmm") or p.comm.startswith("vse")]


def nothing_left(tap, lab, before, what):
    tap.ok(wait_for(BOUND_S, lambda: not left_of(lab)), "no process is left " + what, *left_of(lab)[:20])
    tap.ok(wait_for(BOUND_S, lambda: all(networks(lab, n) == before[n] for n in NODES)),
           "no device and no VXLAN " + what, before, [networks(lab, n) for n in NODES])


def life(tap, lab):
    before = {n: networks(lab, n) for n in NODES}
    r = up(lab, 2)
    if not tap.ok(r.code == 0, "up: 2 VMs of QEMU on 2 nodes, without a switch on them", r):
        return
    by = addresses(lab, 2)
    without = up(lab, 4, "--network", "kernel", "--recover", "--give-up-after", "90s", "--name", "k")
    if not tap.ok(without.code == 0, "4 with --network kernel beside it", without):
        tap.note(vse(lab, "events").text)
        return
    r = vse(lab, "down", "-c", "bb")
    tap.ok(r.code == 0, "down of the first", r)
    got = addresses(lab, 2)
    tap.ok(by and got == by, "MAC, addresses and MTU are the same", by, got)
    tap.ok(all(networks(lab, n) == (True, before[n][1]) for n in ("n1", "n2")),
           "of the nodes' own network it has a UDP port and no device", [networks(lab, n) for n in before])
    r = ping_all(lab, 4)
    tap.ok(r.code == 0, "each VM reaches each by name", r)
    r = shell(lab, 0, "ping -6 -c 1 -W 5 fd76:7365::4")
    tap.ok(r.code == 0, "and by IPv6 from node to node", r)
    large(tap, lab)
    forged(tap, lab)
    beside(tap, lab, before)
    moved(tap, lab)
    adopted(tap, lab)
    grown(tap, lab)
    saved(tap, lab, before)
    killed(tap, lab, before)
    refused(tap, lab)


def killed(tap, lab, before):
    """All that could clear up is killed at once; and some at any moment of a start, an end, a move."""
    r = up(lab, 2, "--network", "kernel")
    if not tap.ok(r.code == 0, "up again: 2 VMs", r):
        return
    for role in ("keeper", "reaper", "agent"):
        for node in ("n1", "n2"):
            for p in roles(lab, node, role):
                p.kill()
    for node in ("n1", "n2"):
        tap.ok(wait_for(BOUND_S, lambda: networks(lab, node) == before[node]),
               node + ": agent, keeper and reaper killed: no VXLAN and no device", networks(lab, node))
    vse(lab, "down", timeout=120)
    seed = int(os.environ.get("VSE_KERNET_SEED") or time.time())
    tap.note("VSE_KERNET_SEED=%d" % seed)
    rng = random.Random(seed)
    for number in range(24 if harness.NIGHTLY else 1):
        killed_meanwhile(tap, lab, before, rng, (("up",), ("down",), ("migrate", "-q", "0", "--to", "n2"))[number % 3])


def killed_meanwhile(tap, lab, before, rng, words):
    if words[0] == "up":
        words = up_words(2, "--network", "kernel")
    else:
        r = up(lab, 2, "--network", "kernel")
        if not tap.ok(r.code == 0, "up", r):
            return
    node, wait = rng.choice(("n1", "n2")), rng.uniform(0, {"up": 3, "down": 0.4, "migrate": 1}[words[0]])
    some = rng.choice((("agent",), ("keeper", "agent"), ("keeper", "reaper", "agent", "vmm"), ("agent", "vmm")))
    begun = lab.start("vse", *words, user=None, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        begun.wait(wait)
    except subprocess.TimeoutExpired:
        pass
    gone = [p for role in some for p in roles(lab, node, role)]
    for p in gone:
        p.kill()
    said = begun.communicate(timeout=300)[1].decode()
    vse(lab, "down", timeout=120)
    nothing_left(tap, lab, before, "where %d processes of %s (%s) are killed %.2f s after the beginning of %s" %
                 (len(gone), node, " ".join(some), wait, words[0]))
    tap.note(said[:300])


def refused(tap, lab):
    """All nodes or none."""
    lab.call("rm", "/dev/net/tun", node="n2", user=None)
    r = up(lab, 2, "--network", "kernel")
    tap.ok(r.code == 1 and "n2: " in r.said and "/dev/net/tun" in r.said, "a node that cannot: refused with its name and why", r)
    r = vse(lab, "up", "-q", "--hypervisor", "fake", "--network", "kernel", "/home/labuser/bb.yaml", timeout=60)
    tap.ok(r.code == 1 and "fake: " in r.said, "a hypervisor that cannot: refused", r)
    r = lab.vse("up", "-q", "--accel", "tcg", "--network", "kernel", "bb.yaml", timeout=60)
    tap.ok(r.code == 2 and "--network kernel: root is needed" in r.said, "an ordinary user: refused, as a wrong command line", r)


def main():
    labworld.skip_unless()
    tap = harness.Tap()
    with rootlab.open_lab(nodes=3) as (lab, why):
        if not lab:
            print("1..0 # SKIP " + why)
            return 0
        lab.write("out.yaml", (lab.home() / "bb.yaml").read_text() + "network:\n  outbound: true\n")
        life(tap, lab)
    return tap.done()


if __name__ == "__main__":
    sys.exit(main())
