#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A cluster in a job of Torque and in one of OpenPBS, its agents started through TM. Both managers are STAND-INS
(tests/fakes/tm.c, mom, qstat): what passes here was not tested on either."""
import json
import sys
import time

sys.dont_write_bytecode = True
import harness  # noqa: E402
import labworld  # noqa: E402

LIBRARY = harness.BUILD / "tests/contract/libtm-stand-in.so"
COMPUTE = ["n1", "n2", "n3", "n4"]
JOB = ["n3", "n3", "n1", "n1", "n4", "n2", "n2"]  # one line a slot, not in order, as Torque wrote it; n1 is the first node
HOSTS = ["n3", "n1", "n4", "n2"]
KEPT = ["*/vse-cache-*", "process*%s/mom*" % labworld.FAKES, "socket*:%04X*" % labworld.MOM_PORT]
UP = "vse up --hypervisor fake -n 8 /home/labuser/f.yaml"
TORQUE = {"PBS_VERSION": "TORQUE-6.1.3", "PBS_NUM_NODES": "4", "PBS_NUM_PPN": "2"}
OPENPBS = {"NCPUS": "2"}


def in_job(lab, flavour, script, **kw):
    """On the job's first node, with what the script of a job finds there."""
    env = {"PBS_ENVIRONMENT": "PBS_BATCH", "PBS_JOBID": "17.n0", "PBS_JOBCOOKIE": "0F1E2D3C", "PBS_TASKNUM": "1",
           "PBS_NODENUM": "0", "PBS_NODEFILE": "/var/tmp/nodefile", "PBS_MOMPORT": "15003", "TM_LIBRARY": "/opt/tm/lib.so",
           "STAND_IN_ON_NODE": labworld.FAKES + "/on-node", "STAND_IN_MOM_PORT": str(labworld.MOM_PORT),
           "PATH": "/opt/vse/bin:%s:/usr/bin:/bin" % labworld.FAKES, **flavour}
    return lab.call(labworld.FAKES + "/on-node", "go-on", "n1", "bash", "-c", script, node="n1", env=env, **kw)


def end_job(lab):
    """The end of its time, or qdel: SIGTERM on the first node, a second later SIGKILL there; SIGKILL alone elsewhere."""
    enders = [lab.start("bash", "-c", "echo end %s >/dev/tcp/%s/%d" % ("first" if n == "n1" else "", n, labworld.MOM_PORT),
                        node="n1") for n in COMPUTE]
    for p in enders:
        p.wait()


def part(text, begin, end):
    return text.split(begin, 1)[-1].rsplit(end, 1)[0]


def nothing_left(tap, lab, what, more=()):
    left = lab.clean_within(10, ignore=KEPT + list(more))
    tap.ok(not left, "nothing is left on any node " + what, "\n".join(left[:20]))


def whole_life(tap, lab, name, flavour):
    r = in_job(lab, flavour, UP + " && echo '<<' && vse nodes --json && echo '>>' && vse exec -- echo hello && vse down")
    if not tap.ok(r.code == 0 and "vm[0-7]: hello\n" in r.text, "%s: up, nodes, exec and down in a job" % name, r):
        return
    n = json.loads(part(r.text, "<<", ">>"))
    tap.ok((n["launcher"], n["job"]) == (name, "17.n0"), name + ": the launcher and the job are told", n)
    tap.ok([(x["name"], x["state"], x["vms"]) for x in n["nodes"]] == [(h, "up", 2) for h in HOSTS],
           name + ": two VMs on each of the job's nodes", n)
    nothing_left(tap, lab, "after down (%s)" % name)


def secret(tap, lab, flavour):
    """The bootstrap goes by a file in the home that all nodes see."""
    r = in_job(lab, flavour, "umask 0; %s 2>/dev/null; find ~ -name '*bootstrap*' -o -name '.vse*'" % UP)
    tap.ok(r.code == 0 and r.text.startswith("f: 8 VMs ready") and r.text.count("\n") == 1, "no file with a secret is in the home once the agents have read it", r)


def job_ends(tap, lab, name, flavour):
    r = in_job(lab, flavour, "vse exec -- true || " + UP)
    tap.ok(r.code == 0 and len(lab.processes(role="agent")) == 5, "%s: a cluster is left in the job" % name, r)
    end_job(lab)
    nothing_left(tap, lab, "after the end of the job (%s)" % name)


def root_dies(tap, lab, flavour):
    up = in_job(lab, flavour, UP)
    root = [p for p in lab.processes("n1", "agent") if "--node" not in p.argv]
    for p in root:
        p.kill()
    tap.ok(up.code == 0 and len(root) == 1, "the root agent is killed", up, root)

    def answer():
        return in_job(lab, flavour, "vse exec -- echo hello")
    until = time.monotonic() + 30
    r = answer()
    while r.text != "vm[0-7]: hello\n" and time.monotonic() < until:
        time.sleep(0.2)
        r = answer()
    tap.ok(r.text == "vm[0-7]: hello\n", "its VMs go on and answer", r, "\n".join(map(str, lab.processes())))
    again = answer()
    tap.ok(again.text == r.text, "and again", again)
    r = in_job(lab, flavour, "vse down")
    tap.ok(r.code == 0, "down", r)
    nothing_left(tap, lab, "after that")


def node_dies(tap, lab, flavour):
    """TM never tells of it."""
    up = in_job(lab, flavour, UP)
    lab.off("n4")
    r = in_job(lab, flavour, "vse exec -- echo hello", timeout=30)
    tap.ok(r.code != 0 and "vm[0-3,6-7]: hello\n" in r.text and "n4" in r.text, "a node without power is named, the others answer",
           up, r)
    r = in_job(lab, flavour, "vse down", timeout=30)
    tap.ok(r.code == 0, "down", r)
    nothing_left(tap, lab, "after that", ["process*/on-node go-on n4 *", "file n4: /tmp/*", "socket*"])


def main():
    labworld.skip_unless()
    tap = harness.Tap()
    binds = [("all", harness.TOP / "tests/fakes", labworld.FAKES), ("all", LIBRARY, "/opt/tm/lib.so")]
    with labworld.Lab(nodes=4, vse="all", home="shared", binds=binds) as lab:
        lab.write("f.yaml", "vse: 1\nname: f\nbase: debian:bookworm\n")
        lab.start_moms(COMPUTE)
        (lab.lab.root("n1") / "var/tmp/nodefile").write_text("\n".join(JOB) + "\n\n")
        lab.mark()
        whole_life(tap, lab, "torque", TORQUE)
        secret(tap, lab, TORQUE)
        job_ends(tap, lab, "torque", TORQUE)
        whole_life(tap, lab, "pbs", OPENPBS)
        root_dies(tap, lab, OPENPBS)
        job_ends(tap, lab, "pbs", OPENPBS)
        node_dies(tap, lab, OPENPBS)
    return tap.done()


if __name__ == "__main__":
    sys.exit(main())
