# SPDX-License-Identifier: Apache-2.0
"""For tests over several nodes whose agents are the nodes' root: as root of n0, by a launcher that stands in for a resource
manager's (tests/fakes/mom), with taps on every node.

    with rootlab.open_lab(nodes=3) as (lab, why):
        rootlab.vse(lab, "up", "--launcher", "mom", "--hosts", "n[1-3]", "/home/labuser/bb.yaml")
"""
import contextlib
import os
import subprocess

import harness
import labworld

LAUNCHER = "launch = %s/on-node go-on %%h %%a\n" % labworld.FAKES
ENV = {"HOME": "/home/labuser", "XDG_CONFIG_HOME": "/home/labuser/.config", "STAND_IN_MOM_PORT": str(labworld.MOM_PORT),
       "XDG_RUNTIME_DIR": ""}


def vse(lab, *args, **kw):
    return lab.vse(*args, user=None, env=ENV, **kw)


def as_root(lab):
    """What is asked of the lab from here on is done as root, and about everybody's processes."""
    start, processes = lab.start, lab.processes
    lab.start = lambda *argv, user=None, env=None, **kw: start(*argv, user=user, env=dict(ENV, **(env or {})), **kw)
    lab.processes = lambda node=None, role=None, user=None: processes(node, role, user)


def prepare(lab):
    for node in lab.nodes():
        lab.call("sh", "-c", "mkdir -p /dev/net && ln -s /opt/tun /dev/net/tun", node=node, user=None)
    lab.call("mkdir", "-p", ENV["XDG_CONFIG_HOME"] + "/vse/launchers.d")
    lab.write(".config/vse/launchers.d/mom.conf", LAUNCHER)
    for node in lab.nodes()[1:]:
        p = lab.start(labworld.FAKES + "/mom", labworld.MOM_PORT, node=node, user=None, stdout=subprocess.PIPE)
        if p.stdout.readline() != b"ready\n":
            raise labworld.LabError("no stand-in for a resource manager on " + node)


@contextlib.contextmanager
def open_lab(nodes):
    """(lab, None), with bb.yaml of labworld.real_lab() in /home/labuser; or (None, why not)."""
    if not os.path.exists("/dev/net/tun"):
        yield None, "no /dev/net/tun"
        return
    binds = [("all", harness.TOP / "tests/fakes", labworld.FAKES), ("all", "/dev/net/tun", "/opt/tun")]
    with labworld.real_lab(nodes=nodes, vse="all", home="shared", binds=binds) as (lab, why):
        if lab:
            prepare(lab)
        yield lab, why and "no VMs of QEMU: " + why
