#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Runs the table of bad inputs (tests/bad-input/table.py): each gets its exit code, one line that names the cause,
and nothing is lost by it: no process, file or mount stays, a cluster that ran is as it was.
  bad-input.t [NAME...]    only rows whose name holds one of these
"""
import io
import json
import os
import pwd
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import time

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "../bad-input")]
import harness  # noqa: E402
from harness import VSE, Tap, World, busybox_root, shared_data  # noqa: E402
from table import ROWS  # noqa: E402

CLUSTER = ["--hypervisor", "fake"]
INSIDE = """i=0
while [ $i -lt 50 ] && [ -n "$(ls -A "$XDG_RUNTIME_DIR")" ]; do i=$((i + 1)); sleep 0.1; done
find "$XDG_RUNTIME_DIR" -mindepth 1 >&2"""


def tar(path, members):
    with tarfile.open(path, "w") as t:
        for name, kind, text in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            if kind == tarfile.SYMTYPE:
                info.linkname = text
                t.addfile(info)
            else:
                info.size = len(text)
                t.addfile(info, io.BytesIO(text.encode()))


def tools_without(world, name):
    """A folder of links to every program there is, but those that begin with name."""
    folder = world.dir / ("no-" + name)
    folder.mkdir()
    for place in ("/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"):
        for program in os.listdir(place) if os.path.isdir(place) else []:
            link = folder / program
            if not program.startswith(name) and not link.is_symlink():
                link.symlink_to(os.path.join(place, program))


def may_build():
    """An ordinary user builds with the subordinate ids that the machine gives him."""
    try:
        name = pwd.getpwuid(os.geteuid()).pw_name
        with open("/etc/subuid") as f:
            return any(line.split(":")[0] in (name, str(os.geteuid())) for line in f)
    except (KeyError, OSError):
        return False


class Table:
    def __init__(self, world):
        w = self.world = world
        self.names = {"d": str(w.dir), "f": str(w.fake_vse()), "x": "-q --hypervisor fake"}
        (w.dir / "noise").write_bytes(b"\x00\xff\x80noise" * 100)
        (w.dir / "large").write_bytes(b"#" * (64 << 20))
        (w.dir / "secret.yaml").write_text("vse: 1\n")
        (w.dir / "secret.yaml").chmod(0)
        self.names["long"] = str(w.dir / ("l" * 90))
        os.mkdir(self.names["long"], 0o700)
        (w.dir / "alone").mkdir()
        shutil.copy(VSE, w.dir / "alone/vse")
        (w.dir / "empty").mkdir()
        tar(w.dir / "empty.tar", [])
        tar(w.dir / "climbs.tar", [("bin/../../../climbed", tarfile.REGTYPE, "x")])
        tar(w.dir / "link.tar", [("bin", tarfile.SYMTYPE, str(w.dir)), ("bin/climbed", tarfile.REGTYPE, "x")])
        tar(w.dir / "short.tar", [("bin/a", tarfile.REGTYPE, "x" * 4000)])
        os.truncate(w.dir / "short.tar", 1500)
        for tool in ("qemu", "mmdebstrap", "mksquashfs"):
            tools_without(w, tool)
        busybox_root(w.dir / "root")
        self.names["bb"] = str(w.write("bb.yaml", harness.BUSYBOX_VSE % (w.dir / "root")))
        cache = shared_data() / "vse/cache"
        if cache.exists():
            shutil.copytree(cache, w.data / "vse/cache")

    def fill(self, text):
        for name, value in self.names.items():
            text = text.replace("{%s}" % name, value)
        return text

    def lacking(self, row):
        need = row.get("needs")
        if need == "root" and os.geteuid():
            return "needs root"
        if need == "user" and not os.geteuid():
            return "root may read everything"
        if need == "namespace":
            p = subprocess.run(["unshare", "-m", *(["-r"] if os.geteuid() else []), "true"], capture_output=True)
            return "no mount namespace here" if p.returncode else None
        if need in ("image", "build") and os.geteuid() and not may_build():
            return "this user has no subordinate ids to build with"
        if need == "image" and not os.path.isdir(self.world.data / "vse/cache/debs"):
            return "no kernel at hand"
        return None

    def environment(self, row):
        env = dict(self.world.env, VSE=str(VSE))
        for name, value in row.get("env", {}).items():
            if value is None:
                env.pop(name, None)
            else:
                env[name] = self.fill(value)
        return env

    def argv(self, row):
        command = row["command"]
        if isinstance(command, list):
            return [self.fill(a) if isinstance(a, str) else a for a in command]
        return shlex.split(self.fill(command))

    def execute(self, row):
        w, env, command = self.world, self.environment(row), row["command"]
        kill = isinstance(command, str) and command.startswith("kill-agent: ")
        if row.get("shell"):
            argv = ["/bin/sh", "-c", self.fill(command.removeprefix("shell:"))]
        else:
            argv = self.argv(dict(row, command=command.removeprefix("kill-agent: ") if kill else command))
            if argv[0] in ("vse", b"vse"):
                argv[0] = str(VSE) if isinstance(argv[0], str) else str(VSE).encode()
        if "before" in row:
            # In a mount namespace of its own; what is left in there is looked for there too.
            script = "%s && \"$@\"; code=$?; %s; exit $code" % (row["before"], INSIDE if row.get("inside") else ":")
            argv = ["unshare", "-m", *(["-r"] if os.geteuid() else []), "/bin/sh", "-c", script, "sh", *argv]
        if not kill:
            return self.call(argv, env)
        front = w.start(*argv, env=env, stdout=-1, stderr=-1)
        time.sleep(0.3)
        for p in w.processes("agent"):
            p.kill()
        try:
            out, err = front.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            front.kill()
            out, err = b"", b"did not end within 10 s"
        return harness.Result(argv, front.returncode, out, err, 0)

    def call(self, argv, env):
        return CallBytes.call(self.world, argv, env)

    def problems(self, row):
        w = self.world
        up = row.get("up")
        if "file" in row:
            w.write("in.yaml", self.fill(row["file"]).replace("{{", "{").replace("}}", "}"))
        if up:
            r = w.vse("up", "-q", *CLUSTER, *up.split(), self.names["f"])
            if r.code:
                return ["up: %s" % r]
        before = self.cluster() if up and not row.get("gone") else None
        climbed = os.path.join(os.path.dirname(str(w.dir)), "climbed")
        r = self.execute(row)
        found = []
        said = [line for line in r.said.splitlines() if line]
        wanted = row.get("lines", 1)
        if r.code != row["code"]:
            found.append("exit %s, not %d" % (r.code, row["code"]))
        if wanted is not None and len(said) != wanted:
            found.append("%d lines on stderr, not %d" % (len(said), wanted))
        for line in said if wanted is not None else said[-1:]:
            if not re.fullmatch(row["said"], line):
                found.append("said: %r" % line)
            if len(line) > 700:
                found.append("a line of %d bytes" % len(line))
        if not re.fullmatch(row.get("out", ""), r.text):
            found.append("stdout: %r" % r.text[:300])
        if os.path.lexists(climbed) or os.path.lexists(w.home / "pwned") or os.path.lexists(w.dir / "climbed"):
            found.append("something was written outside")
        if before is not None and self.cluster() != before:
            found.append("the cluster is not as it was: %s" % self.cluster())
        if up or row.get("leaves"):
            w.vse("down", "--all")
        left = w.clean_within()
        if left:
            found += ["left: " + x for x in left]
            for p in w.processes():
                p.kill()
            for entry in w.run.iterdir():
                shutil.rmtree(entry, ignore_errors=True)
        if found:
            found.append(str(r))
        return found

    def cluster(self):
        """What must not change: who there is and in which state."""
        r = self.world.vse("ps", "--json")
        if r.code:
            return str(r)
        return [[c["name"], c["phase"], [[v["name"], v["state"], v["reason"]] for v in c["vms"]]]
                for c in json.loads(r.out)["clusters"]]


class CallBytes:
    @staticmethod
    def call(world, argv, env):
        """As World.call, for argv of bytes too."""
        begun = time.monotonic()
        p = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env,
                             cwd=world.dir)
        try:
            out, err = p.communicate(b"", timeout=90)
            code = p.returncode
        except subprocess.TimeoutExpired:
            p.kill()
            code, out, err = None, b"", b"did not end within 90 s"
        return harness.Result(argv, code, out, err, time.monotonic() - begun)


def main():
    tap = Tap()
    with World() as world:
        table = Table(world)
        for row in ROWS:
            if sys.argv[1:] and not any(a in row["name"] for a in sys.argv[1:]):
                continue
            why = table.lacking(row)
            if why:
                tap.skip(row["name"], why)
                continue
            found = table.problems(row)
            tap.ok(not found, row["name"], *found)
        tap.note("%d rows" % len(ROWS))
    return tap.done()


if __name__ == "__main__":
    sys.exit(main())
