# SPDX-License-Identifier: Apache-2.0
"""The control groups of a lab: <hierarchy>/vse-lab-NAME/NODE wherever this machine lets us make them.

Processes of a node are put there when the node boots, or when they enter it from outside; they serve three
ends: CPU seconds of the whole lab, a tree of the node's own (Slurm's proctrack/cgroup), and nothing more: the
lab limits nothing.
"""
import os
import time
from pathlib import Path

WANTED = {"cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "pids"}
SLURM_NEEDS = {"freezer", "cpuset", "devices"}


class Hierarchy:
    def __init__(self, top, version, controllers):
        self.top, self.version, self.controllers = Path(top), version, controllers

    def group(self, lab, node=None):
        group = self.top / ("vse-lab-" + lab)
        return group / node if node else group

    def options(self):
        return ",".join(sorted(self.controllers)) if self.version == 1 else None


def hierarchies():
    """Those that are mounted here and whose groups the lab could use."""
    found = []
    with open("/proc/self/mounts") as f:
        for line in f:
            _, top, fstype, options = line.split()[:4]
            if fstype == "cgroup2":
                found.append(Hierarchy(top, 2, set()))
            elif fstype == "cgroup":
                with open("/proc/cgroups") as g:
                    known = {row.split()[0] for row in g if not row.startswith("#")}
                controllers = known & set(options.split(","))
                if controllers & WANTED:
                    found.append(Hierarchy(top, 1, controllers))
    return found


def make(lab, node, usable):
    """Groups for a node in each of these hierarchies; those that refuse are left out of the answer."""
    made = []
    for h in usable:
        try:
            for group in (h.group(lab), h.group(lab, node)):
                group.mkdir(exist_ok=True)
                for name in ("cpus", "mems") if "cpuset" in h.controllers else ():
                    file = "cpuset." + name
                    (group / file).write_text((h.top / file).read_text())
            made.append(h)
        except OSError:
            pass
    return made


def doors(lab, node):
    """The files to write a process id to so that it is counted and held with the others of the node."""
    found = (h.group(lab, node) / "cgroup.procs" for h in hierarchies())
    return [str(path) for path in found if path.exists()]


def remove_tree(group):
    for folder, names, _ in os.walk(group, topdown=False):
        for name in names:
            try:
                os.rmdir(os.path.join(folder, name))
            except OSError:
                pass
    try:
        os.rmdir(group)
    except FileNotFoundError:
        pass


def remove(lab, seconds=5):
    """Takes the groups of a lab away, whose processes have ended or are about to."""
    until = time.monotonic() + seconds
    for h in hierarchies():
        group = h.group(lab)
        while group.is_dir():
            try:
                remove_tree(group)
            except OSError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.02)


def cpu_seconds(lab):
    """(CPU seconds that all processes of the lab have used, which counter says so), or (None, why not)."""
    for h in hierarchies():
        group = h.group(lab)
        if "cpuacct" in h.controllers and (group / "cpuacct.usage").is_file():
            return int((group / "cpuacct.usage").read_text()) / 1e9, "cpuacct"
    for h in hierarchies():
        stat = h.group(lab) / "cpu.stat"
        if h.version == 2 and stat.is_file():
            for line in stat.read_text().splitlines():
                if line.startswith("usage_usec "):
                    return int(line.split()[1]) / 1e6, "cgroup2 cpu.stat"
    return None, "no cpuacct or cgroup2 group"
