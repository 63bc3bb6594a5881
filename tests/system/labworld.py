# SPDX-License-Identifier: Apache-2.0
"""For the system tests over several nodes: a lab (tests/lab, docs/testing.md) as harness.World is one node.

    labworld.skip_unless(ssh=True)
    with labworld.Lab(nodes=4, ssh=True) as lab:
        lab.vse("up", ...)                      # on the login node n0, as labuser
        lab.call("hostname", node="n3")
        lab.off("n2")
        tap.ok(lab.clean_within() == [], "nothing is left on any node")
"""
import contextlib
import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import harness

sys.path.insert(1, str(harness.TOP / "tests/lab"))
import client  # noqa: E402
from client import LabError  # noqa: E402,F401

PROGRAMS = ("vse", "vse-agent", "vse-guest", "vse-tm")
STORE = "/opt/vse/store"
FAKES = "/opt/fakes"  # where a test that wants them binds tests/fakes
MOM_PORT = 15002
# A user's image store is there to stay.
KEPT = ("file *: /home/*/.local/", "file *: /home/*/.local/share/", "file *: /home/*/.local/share/vse/*")
numbers = itertools.count(1)


def skip_unless(ssh=False, slurm=False):
    """Ends this test as skipped where there can be no such lab."""
    reason = client.why_not(ssh, slurm)
    if reason:
        print("1..0 # SKIP " + reason)
        sys.exit(0)


def wait_for(seconds, check):
    """What check gives at last, once that is something, or the time is over."""
    until = time.monotonic() + seconds
    while True:
        got = check()
        if got or time.monotonic() > until:
            return got
        time.sleep(0.05)


def status(lab):
    """The one cluster as 'vse ps --json' has it; None: there is none, or nobody answers."""
    r = lab.vse("ps", "--json", timeout=60)
    clusters = json.loads(r.out)["clusters"] if r.code == 0 else []
    return clusters[0] if clusters else None


class Process(harness.Process):
    """As harness.Process, with .node and .uid; .pid is that of this machine."""

    def __init__(self, p):
        super().__init__(p.pid, p.parent, p.argv, p.comm)
        self.node, self.uid = p.node, p.uid

    def role(self):
        # An agent that came by itself to a node need not be called exactly as in the build folder.
        return super().role() if self.comm in ("vse-reaper", "vse-keeper") or not self.program.startswith(
            "vse-agent") else "agent"

    def __str__(self):
        return "%s: %s" % (self.node, super().__str__())


class Lab:
    """A lab of one test: ends with it, whatever becomes of it.

    Takes the options of client.up: nodes, ssh, slurm, tmp, home, keys, rate, store, store_on, ... The built
    programs are in /opt/vse/bin of n0 (vse="all": of every node, None: nowhere), which is in everybody's PATH; the
    source and build folders are hidden on all nodes. With a store its images are n0's site store.
    """

    def __init__(self, vse="n0", **options):
        self.name = "t%d-%d" % (os.getpid(), next(numbers))
        self.env = {"VSE_SITE_STORE": STORE if options.get("store") else "/nonexistent"}
        binds = list(options.pop("binds", ()))
        if vse:
            binds += [(vse, harness.BUILD / p, "/opt/vse/bin/" + p) for p in PROGRAMS if (harness.BUILD / p).exists()]
        hide = [harness.TOP, harness.BUILD] + list(options.pop("hide", ()))
        self.lab = client.up(self.name, owner=os.getpid(), binds=binds, hide=hide, **options)
        self.uids = self.lab.uids

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.lab.down()

    # ---- commands ----

    def start(self, *argv, node="n0", user="labuser", env=None, **kw):
        """A process on a node (user=None: root), as the nsenter that waits for it: kill one and both are gone."""
        full = self.lab.argv(node, argv, user, dict(self.env, **(env or {})))
        kw.setdefault("stdin", subprocess.DEVNULL)
        self.lab.find_doors(node)
        return subprocess.Popen(full, preexec_fn=lambda: self.lab.join(node), cwd="/", **kw)

    call = harness.World.call  # (*argv, timeout=60, stdin=b"", and what start() takes) -> harness.Result

    def vse(self, *args, **kw):
        return self.call("vse", *args, **kw)

    def inner(self, process):
        """The process id on this machine of what a start()ed process runs; to send signals to it."""
        with open("/proc/%d/task/%d/children" % (process.pid, process.pid)) as f:
            return int(f.read().split()[0])

    def start_moms(self, nodes):
        """The daemons of the stand-ins for resource managers that start tasks on nodes (tests/fakes/mom)."""
        for node in nodes:
            p = self.start(FAKES + "/mom", MOM_PORT, node=node, stdout=subprocess.PIPE)
            if p.stdout.readline() != b"ready\n":
                raise LabError("no stand-in for a resource manager on " + node)

    # ---- files ----

    def home(self, node="n0", user="labuser"):
        """That folder, as a path of this machine."""
        return self.lab.root(node) / "home" / user

    def write(self, name, text, node="n0", user="labuser"):
        """A file in a user's home folder; the path as seen on the node."""
        path = self.home(node, user) / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        os.chown(path, self.uids[user], self.uids[user])
        return Path("/home") / user / name

    # ---- what is there ----

    def nodes(self):
        """The names of those that are on, n0 first."""
        return list(self.lab.nodes())

    def processes(self, node=None, role=None, user="labuser"):
        """user=None: everybody's."""
        found = [Process(p) for p in self.lab.processes(node, user)]
        agents = [p.pid for p in found if p.role() == "agent"]
        return [p for p in found if role is None or
                (p.role() == role and not (role == "agent" and p.parent in agents))]

    def await_process(self, node, role, seconds=30):
        until = time.monotonic() + seconds
        while True:
            found = self.processes(node, role)
            if found or time.monotonic() > until:
                return found
            time.sleep(0.02)

    def leftovers(self, user="labuser", ignore=KEPT):
        return self.lab.leftovers(user, ignore)

    def clean_within(self, seconds=harness.CLEAN_S, user="labuser", ignore=KEPT):
        """What is still there at the end of that time, on any node; []: all gone. ignore: patterns of fnmatch."""
        until = time.monotonic() + seconds
        while True:
            left = self.leftovers(user, ignore)
            if not left or time.monotonic() > until:
                return left
            time.sleep(0.1)

    def mark(self):
        """What is there now (say, a home folder that was filled) is not left over."""
        self.lab.mark()

    def cpu(self):
        return self.lab.cpu()

    # ---- what happens to nodes ----

    def off(self, node):
        """Power cut. What it had in /run and /dev/shm is gone, /tmp, /var/tmp and /home stay."""
        self.lab.ask("off", node=node)

    def boot(self, node):
        self.lab.ask("boot", node=node)

    def cut(self, node):
        """Packets to and from it vanish; it sees a link that is up."""
        self.lab.ask("cut", node=node)

    def heal(self, node):
        self.lab.ask("heal", node=node)

    def rate(self, rate, node=None):
        """Shapes the link of one node, or of all, both ways: "100mbit" or "off"."""
        self.lab.ask("rate", rate=rate, node=node)

    def kill(self, node, role="agent"):
        """SIGKILL to all of that role on the node; which they were."""
        found = self.processes(node, role)
        for p in found:
            p.kill()
        return found


@contextlib.contextmanager
def real_lab(binds=(), **options):
    """A lab whose n0 has the VSE bb.yaml of harness.real_world(), built, for VMs of QEMU: (lab, None), or (None, why not)."""
    world, file, why = harness.real_world()
    if why:
        yield None, why
        return
    try:
        with Lab(store=harness.shared_data() / "vse", binds=[("n0", world.dir / "root", "/opt/root"), *binds], **options) as lab:
            # The root that the image was built of lies at the same place on n0: then the image there is known to be it.
            lab.call("sh", "-c", "mkdir -p %s && ln -s /opt/root %s" % (world.dir, world.dir), user=None)
            lab.write("bb.yaml", file.read_text())
            lab.mark()
            yield lab, None
    finally:
        world.close()
