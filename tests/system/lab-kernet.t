#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The network by the nodes' kernels (--network kernel): VMs of QEMU on taps and bridges, nodes joined by VXLAN. It runs as
the nodes' root, whose agents are started through a stand-in for a resource manager's daemon (tests/fakes/mom)."""
import os
import re
import subprocess
import sys
import time

sys.dont_write_bytecode = True
import harness  # noqa: E402
import labworld  # noqa: E402

PORT = ":%04X " % 4789  # of VXLAN, as /proc/net/udp has it
LAUNCHER = "launch = %s/on-node go-on %%h %%a\n" % labworld.FAKES
BOUND_S = 20
ENV = {"HOME": "/home/labuser", "XDG_CONFIG_HOME": "/home/labuser/.config", "STAND_IN_MOM_PORT": str(labworld.MOM_PORT),
       "XDG_RUNTIME_DIR": ""}


def wait_for(seconds, check):
    until = time.monotonic() + seconds
    while True:
        got = check()
        if got or time.monotonic() > until:
            return got
        time.sleep(0.05)


def vse(lab, *args, **kw):
    return lab.vse(*args, user=None, env=ENV, **kw)


def shell(lab, rank, text):
    return vse(lab, "exec", "-r", str(rank), "--", "sh", "-c", text, timeout=120)


def roles(lab, node, role):
    return lab.processes(node, role, user=None)


def networks(lab, node):
    """What a node's own network shows of ours: whether VXLAN listens, and the devices."""
    udp = lab.call("cat", "/proc/net/udp", node=node, user=None).text
    links = lab.call("ls", "/sys/class/net", node=node, user=None).text.split()
    return PORT in udp, sorted(links)


def prepare(lab):
    for node in ("n0", "n1", "n2"):
        lab.call("sh", "-c", "mkdir -p /dev/net && ln -s /opt/tun /dev/net/tun", node=node, user=None)
    lab.call("mkdir", "-p", ENV["XDG_CONFIG_HOME"] + "/vse/launchers.d")
    lab.write(".config/vse/launchers.d/mom.conf", LAUNCHER)
    moms = []
    for node in ("n1", "n2"):
        p = lab.start(labworld.FAKES + "/mom", labworld.MOM_PORT, node=node, user=None, stdout=subprocess.PIPE)
        assert p.stdout.readline() == b"ready\n", "no stand-in on " + node
        moms.append(p)
    return moms


def up(lab, n, *more):
    return vse(lab, "up", "-q", "-n", str(n), "--accel", "tcg", "--memory", "96M", "--oversubscribe", "--lost-after", "10s", "--launcher", "mom", "--hosts",
               "n[1-2]", *more, "/home/labuser/bb.yaml", timeout=300)


def addresses(lab, n):
    """MTU, MAC, IPv4, IPv6 and link-local address of each; the last comes by itself, a moment after the VM is ready."""
    def look():
        found = [re.findall(r"inet6? ([0-9a-f.:]+)/|link/ether (\S+)|mtu (\d+)",
                            shell(lab, r, "ip addr show dev eth0").text) for r in range(n)]
        return found if all(len(a) == 5 for a in found) else None
    return wait_for(BOUND_S, look)


def ping_all(lab, n):
    hosts = " ".join("vm%d" % r for r in range(n))
    r = vse(lab, "exec", "--", "sh", "-c", "for h in %s; do ping -c 1 -W 5 $h >/dev/null || { echo no $h; exit 1; }; done" %
            hosts, timeout=300)
    return r


def forged(tap, lab):
    """vm0 (n1) tries to speak as others to vm1 (n1) and vm3 (n2)."""
    shell(lab, 0, "ip addr add 10.199.0.99/16 dev eth0")
    for to in ("vm1", "vm3"):
        r = shell(lab, 0, "ping -c 2 -W 2 -I 10.199.0.99 %s" % to)
        tap.ok(r.code != 0, "an address that is not its own does not get to " + to, r)
    shell(lab, 0, "ip addr del 10.199.0.99/16 dev eth0")
    r = shell(lab, 0, "ip link set eth0 down; ip link set eth0 address 52:54:00:00:00:02; ip link set eth0 up; "
              "ping -c 2 -W 2 vm1; code=$?; ip link set eth0 down; ip link set eth0 address 52:54:00:00:00:00; "
              "ip link set eth0 up; exit $code")
    tap.ok(r.code != 0, "nor does another's MAC", r)
    r = shell(lab, 0, "ping -c 1 -W 5 vm1 && ping -c 1 -W 5 vm3")
    tap.ok(r.code == 0, "as itself it is heard again", r)


def large(tap, lab):
    """More than the nodes' own network takes in one packet (its MTU is 1500, eth0's 9000)."""
    r = shell(lab, 0, "ping -c 2 -W 5 -s 8000 vm3")
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


def nothing_left(tap, lab, before, what):
    def left():
        return [p for n in ("n0", "n1", "n2") for p in roles(lab, n, None)
                if p.role() in ("agent", "keeper", "reaper", "vmm") or p.comm.startswith("vse")]
    tap.ok(wait_for(BOUND_S, lambda: not left()), "no process is left " + what, *left()[:20])
    for node in ("n1", "n2"):
        tap.ok(wait_for(BOUND_S, lambda: networks(lab, node) == before[node]),
               "%s: no device and no VXLAN %s" % (node, what), before[node], networks(lab, node))


def life(tap, lab):
    before = {n: networks(lab, n) for n in ("n1", "n2")}
    r = up(lab, 4)
    if not tap.ok(r.code == 0, "up: 4 VMs of QEMU on 2 nodes, without a switch on them", r):
        return
    by = addresses(lab, 4)
    without = up(lab, 4, "--network", "kernel", "--name", "k")
    if not tap.ok(without.code == 0, "the same with --network kernel beside it", without):
        tap.note(vse(lab, "events").text)
        return
    r = vse(lab, "down", "-c", "bb")
    tap.ok(r.code == 0, "down of the first", r)
    got = addresses(lab, 4)
    tap.ok(by and got == by, "MAC, addresses and MTU are the same", by, got)
    tap.ok(all(networks(lab, n) == (True, before[n][1]) for n in before),
           "of the nodes' own network it has a UDP port and no device", [networks(lab, n) for n in before])
    r = ping_all(lab, 4)
    tap.ok(r.code == 0, "each VM reaches each by name", r)
    r = shell(lab, 0, "ping -6 -c 1 -W 5 fd76:7365::4")
    tap.ok(r.code == 0, "and by IPv6 from node to node", r)
    large(tap, lab)
    forged(tap, lab)
    moved(tap, lab)
    adopted(tap, lab)
    r = vse(lab, "down")
    tap.ok(r.code == 0, "down", r)
    nothing_left(tap, lab, before, "after down")
    killed(tap, lab, before)
    refused(tap, lab)


def killed(tap, lab, before):
    """All that could clear up is killed at once."""
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
    if not os.path.exists("/dev/net/tun"):
        print("1..0 # SKIP no /dev/net/tun")
        return 0
    binds = [("all", harness.TOP / "tests/fakes", labworld.FAKES), ("all", "/dev/net/tun", "/opt/tun")]
    with labworld.real_lab(nodes=2, vse="all", home="shared", binds=binds) as (lab, why):
        if not lab:
            print("1..0 # SKIP no VMs of QEMU: " + why)
            return 0
        moms = prepare(lab)
        try:
            life(tap, lab)
        finally:
            for p in moms:
                p.terminate()
    return tap.done()


if __name__ == "__main__":
    sys.exit(main())
