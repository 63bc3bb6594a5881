#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Directories of the node inside VMs: `mounts:` and --mount, from the file to what lies on the node afterwards. What a guest
cannot do by them is the contract's (tests/contract/dir-cases.c), which runs as root and as an ordinary user."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
sys.dont_write_bytecode = True
from harness import NIGHTLY, Tap, World, real_world, shared_data  # noqa: E402

MOUNTS = "mounts:\n  - {host: in, guest: /in}\n"


def one_line(r, *parts):
    said = r.said.strip().splitlines()
    return len(said) == 1 and all(p in said[0] for p in parts)


def fake(tap, w):
    file = w.write("f.yaml", "vse: 1\nname: f\nbase: debian:bookworm\n" + MOUNTS)
    other, run = w.dir / "other", ["-q", "--hypervisor", "fake"]
    r = w.vse("up", *run, file)
    tap.ok(r.code == 1 and one_line(r, "host directory %s/in on node " % w.dir, "No such file"), "one that is not there", r)
    (w.dir / "in").mkdir()
    r = w.vse("up", *run, "-n", "2", "--mount", "other:/out:rw", file)
    tap.ok(r.code == 1 and one_line(r, str(other)), "of the command line, too", r)
    other.mkdir()
    r = w.vse("up", *run, "-n", "2", "--mount", "other:/out:rw", file)
    got = w.vse("exec", "mounts").text
    tap.ok(r.code == 0 and "%s/in on /in ro\n" % w.dir in got and "%s on /out rw\n" % other in got, "the file's and the command line's", r, got)
    r = w.vse("save", "--to", w.dir / "saved")
    tap.ok(r.code == 1 and one_line(r, "save: not supported", "/in") and not (w.dir / "saved").exists(), "no save", r)
    r = w.vse("ps")
    tap.ok(r.text.count("ready") == 2, "and nothing was touched", r)
    w.vse("down")
    r = w.vse("restore", "--mount", "other:/out", w.dir)
    tap.ok(r.code == 2 and "mount" in r.said, "nothing new for what was saved", r)


def real(tap, w, file):
    inside, out = w.dir / "in", w.dir / "out"
    for path in (inside, out):
        path.mkdir()
    out.chmod(0o777)
    (inside / "words").write_text("of the node\n")
    (inside / "passwd").symlink_to("/etc/passwd")
    (inside / "tool").write_text("#!/bin/sh\necho it runs\n")
    (inside / "tool").chmod(0o755)
    file = w.write("with.yaml", file.read_text() + MOUNTS)
    built = w.vse("build", file, timeout=900, env=dict(w.env, XDG_DATA_HOME=str(shared_data())))
    if not tap.ok(built.code == 0, "with mounts another kernel is taken", built):
        return
    r = w.vse("up", "-q", "--clone", "-n", "2", "--mount", "out:/out/deep:rw", file, timeout=300)
    if not tap.ok(r.code == 0, "two VMs, one a clone", r):
        return

    def sh(script, rank=0):
        return w.vse("exec", "-r", str(rank), "sh", "-c", script, timeout=60)
    for rank in (0, 1):
        r = sh("cat /in/words; /in/tool; echo from $VSE_RANK >/out/deep/r$VSE_RANK", rank)
        tap.ok(r.code == 0 and r.text == "of the node\nit runs\n", "vm%d reads, and executes" % rank, r)
    tap.ok(sorted(p.read_text() for p in out.iterdir()) == ["from 0\n", "from 1\n"], "what they wrote is here", list(out.iterdir()))
    tap.ok(sh("cat /in/passwd").text == sh("cat /etc/passwd").text, "a link leads where it leads in the VM")
    r = sh("echo x >/in/words; rm /in/words; mount -o remount,rw /in; echo x >/in/words")
    tap.ok(r.code != 0 and (inside / "words").read_text() == "of the node\n", "read-only stays that, whatever the guest does", r)
    r = sh("dd if=/dev/zero of=/out/deep/big bs=1M count=8 && cmp -n 8388608 /out/deep/big /dev/zero && rm /out/deep/big")
    tap.ok(r.code == 0 and not (out / "big").exists(), "some MB", r)
    a = sh("echo one >/out/deep/turn; cat /out/deep/turn", 0)
    b = sh("cat /out/deep/turn; rm /out/deep/turn; echo two >/out/deep/turn", 1)
    c = sh("cat /out/deep/turn; rm /out/deep/turn", 1), sh("echo three >/out/deep/turn; cat /out/deep/turn", 0)
    tap.ok((a.text, b.text, c[0].text, c[1].text) == ("one\n", "one\n", "two\n", "three\n"), "VMs see at once what others do", a, b, *c)
    me = os.getuid()
    who = str(me) if me else "1000"
    r = w.vse("exec", "-r", "0", "--user", who, "sh", "-c", "umask 027; echo mine >/out/deep/mine; ls -ln /out/deep/mine")
    st = (out / "mine").stat()
    tap.ok(r.code == 0 and st.st_uid == int(who) and st.st_mode & 0o7777 == 0o640 and who in r.text.split()[2],
           "a user writes as himself", r, st)
    r = w.vse("restart", "1", timeout=120)
    tap.ok(r.code == 0 and sh("cat /in/words /out/deep/r0", 1).text == "of the node\nfrom 0\n", "after a restart", r)
    os.rename(inside, w.dir / "away")
    r = w.vse("restart", "1", timeout=120)
    tap.ok(r.code == 1 and "host directory %s on node " % inside in r.said, "one that is gone by then", r)
    os.rename(w.dir / "away", inside)
    r = w.vse("restart", "1", timeout=120)
    tap.ok(r.code == 0 and sh("cat /in/words", 1).code == 0, "and is back", r)
    r = w.vse("save", "--to", w.dir / "saved")
    tap.ok(r.code == 1 and one_line(r, "save: not supported", "/in") and sh("true").code == 0, "no save, and they run on", r)
    w.vse("down")
    if NIGHTLY:  # one more image
        no_9p(tap, w, (w.dir / "bb.yaml").read_text() + "kernel: linux-image-cloud-amd64\n")
    tap.ok(w.clean_within(10) == [], "nothing is left", w.leftovers())


def no_9p(tap, w, text):
    file = w.write("no9p.yaml", text)
    built = w.vse("build", file, timeout=900, env=dict(w.env, XDG_DATA_HOME=str(shared_data())))
    r = w.vse("up", "-q", "--mount", "in:/in2", file, timeout=300)
    tap.ok(built.code == 0 and r.code == 1 and one_line(r, "no 9p file system", "linux-image-"), "a kernel without 9p", built, r)


def main():
    tap = Tap()
    with World() as w:
        fake(tap, w)
    w, file, why = real_world()
    if not w:
        tap.skip("real VMs", why)
        return tap.done()
    with w:
        real(tap, w, file)
    return tap.done()


if __name__ == "__main__":
    sys.exit(main())
