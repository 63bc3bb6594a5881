# SPDX-License-Identifier: Apache-2.0
"""Which labs there are: one folder each below LABS, which itself is only there while there is one."""
import fcntl
import json
import os
import shutil
from pathlib import Path

import cgroups

LABS = Path("/run/vse-lab")


class Locked:
    def __enter__(self):
        while True:
            LABS.mkdir(mode=0o700, exist_ok=True)
            self.fd = os.open(LABS, os.O_RDONLY | os.O_CLOEXEC)
            fcntl.flock(self.fd, fcntl.LOCK_EX)
            try:
                if os.stat(LABS).st_ino == os.fstat(self.fd).st_ino:
                    return self
            except FileNotFoundError:
                pass  # somebody has just taken away the last lab
            os.close(self.fd)

    def __exit__(self, *_):
        try:
            os.rmdir(LABS)
        except OSError:
            pass  # there are labs
        os.close(self.fd)


def names():
    return sorted(p.name for p in LABS.iterdir() if p.is_dir()) if LABS.is_dir() else []


def starttime(pid):
    """With the process id it names a process for ever; None: it is not there."""
    try:
        with open("/proc/%d/stat" % pid) as f:
            return f.read().rsplit(")", 1)[1].split()[19]
    except OSError:
        return None


def note(name):
    return json.loads((LABS / name / "note").read_text())


def remove(name):
    """What the machine has of a lab, once its processes are gone or going."""
    cgroups.remove(name)
    shutil.rmtree(LABS / name, ignore_errors=True)


def sweep():
    """Takes away what labs left whose keeper was killed. Under the lock."""
    for name in names():
        try:
            said = note(name)
        except (OSError, ValueError):
            said = {"pid": 0, "starttime": ""}  # killed before it could be noted
        if starttime(said["pid"]) != said["starttime"]:
            remove(name)
