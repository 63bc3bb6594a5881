#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Agents of nodes that are killed: their VMs run on, and the next agent takes them over."""
import sys
import time

sys.dont_write_bytecode = True
import harness  # noqa: E402
import labworld  # noqa: E402
from labworld import status, wait_for  # noqa: E402

CACHE = "*/vse-cache-*"  # files of images, kept on purpose (docs/staging.md)
BOUND_S = 15  # until all answer again; on a quiet machine it is less than a second


def vms_of(s, node):
    return [v for v in s["vms"] if v["node"] == node]


def agent_pid(lab, node):
    return [p.pid for p in lab.processes(node, "agent")]


def answers(lab, *args, seconds=BOUND_S):
    begun = time.monotonic()
    r = wait_for(seconds, lambda: (lambda r: r if r.code == 0 else None)(lab.vse("exec", *args, "--", "true", timeout=30)))
    return r and time.monotonic() - begun


def kill_agent(tap, lab, node):
    """SIGKILL; then another one is there. False: none came."""
    before = agent_pid(lab, node)
    lab.kill(node)
    new = wait_for(BOUND_S, lambda: [p for p in agent_pid(lab, node) if p not in before])
    tap.ok(len(before) == 1 and len(new or []) == 1, "%s: another agent follows the one that was killed" % node, before, new)
    return bool(new)


def same_vms(tap, before, after, seconds, what):
    was = {v["rank"]: v for v in before["vms"]}
    bad = [(was[v["rank"]], v) for v in after["vms"] if v["state"] != was[v["rank"]]["state"] or
           v["node"] != was[v["rank"]]["node"] or v["pid"] != was[v["rank"]]["pid"] or
           (v["state"] != "stopped" and v["uptime_ms"] < was[v["rank"]]["uptime_ms"] + 1000 * seconds - 500)]
    tap.ok(not bad, "%s: the same VMs, with state, process and uptime" % what, *bad)


def said(lab, text):
    return wait_for(BOUND_S, lambda: text in lab.vse("events").text)


def fake(tap, lab):
    file = lab.write("f.yaml", "vse: 1\nname: f\nbase: debian:bookworm\n")
    r = lab.vse("up", "--hypervisor", "fake", "-n", "8", "--fanout", "2", "--hosts", "n[1-4]", file, timeout=120)
    if not tap.ok(r.code == 0, "up: 8 VMs on 4 nodes", r):
        return
    lab.vse("pause", "3")
    lab.vse("stop", "2")
    keeper = [p.pid for p in lab.processes("n1", "keeper")]
    before, begun = status(lab), time.monotonic()
    for node in ("n1", "n2"):  # n1 has others below it
        kill_agent(tap, lab, node)
        took = answers(lab, "-r", "0,1,4-7")
        tap.ok(took, "all VMs answer again, also those of nodes below")
        tap.note("after %.2f s" % (took or 0))
    after = status(lab)
    same_vms(tap, before, after, time.monotonic() - begun, "fake")
    tap.ok([n["state"] for n in after["nodes"]] == ["up"] * 4, "no node was lost", after["nodes"])
    tap.ok(said(lab, "the agent on n1 was started again: 2 VMs adopted"), "events tell of n1", lab.vse("events"))
    tap.ok(said(lab, "the agent on n2 was started again: 1 VM adopted"), "and of n2, where one was stopped before",
           lab.vse("events"))
    tap.ok("is lost" not in lab.vse("events").text, "and of no loss", lab.vse("events"))
    tap.ok([p.pid for p in lab.processes("n1", "keeper")] == keeper, "the keeper is the same")
    r = lab.vse("resume", "3")
    tap.ok(r.code == 0 and answers(lab, "-r", "3"), "a VM that was paused is resumed", r)
    r = lab.vse("restart", "2")
    tap.ok(r.code == 0 and answers(lab, "-r", "2"), "one that was stopped is started", r)

    front = lab.start("vse", "exec", "--", "sleep", "6s", stdout=-1, stderr=-1)
    time.sleep(1)
    kill_agent(tap, lab, "n2")
    out, err = front.communicate(timeout=60)
    err = err.decode()
    tap.ok(front.returncode != 0 and "vm[2-3]" in err and "vm0" not in err and "n2" in err,
           "a program that ran over the dead agent ends with an error that names its VMs", err)
    tap.ok(answers(lab), "and all answer")

    for p in lab.processes("n3", "reaper"):
        p.kill()
    kill_agent(tap, lab, "n3")
    tap.ok(answers(lab) and wait_for(BOUND_S, lambda: lab.processes("n3", "reaper")), "agent and reaper killed: both follow")

    lab.kill("n2")
    tap.ok(wait_for(BOUND_S, lambda: vms_of(status(lab), "n2")[0]["state"] == "lost"),
           "killed three times in 30 s: it is given up, and the node is lost", status(lab))
    tap.ok(wait_for(BOUND_S, lambda: not lab.processes("n2")), "nothing runs there any more", lab.processes("n2"))
    lab.kill("n4", "keeper")
    tap.ok(wait_for(BOUND_S, lambda: vms_of(status(lab), "n4")[0]["state"] == "lost"), "its keeper killed: the node is lost",
           status(lab))
    tap.ok(wait_for(BOUND_S, lambda: not lab.processes("n4")), "and nothing runs there", lab.processes("n4"))
    tap.ok(answers(lab, "-r", "0-1,4-5"), "the others go on")
    r = lab.vse("down")
    tap.ok(r.code == 0, "down", r)
    left = lab.clean_within(10, ignore=[CACHE, *labworld.KEPT])
    tap.ok(not left, "nothing is left on any node", "\n".join(left[:20]))


def told_again(tap, lab):
    """What the next agent tells a guest once more may fail, and one that is paused does not hear it: both stay as they are."""
    r = lab.vse("up", "--hypervisor", "fake", "--hypervisor-arg", "fail-again", "-n", "3", "--timeout", "4s", "--hosts", "n1", "f.yaml",
                timeout=120)
    if not tap.ok(r.code == 0, "up: 3 VMs on a node", r):
        return
    lab.vse("pause", "1")
    kill_agent(tap, lab, "n1")
    tap.ok(said(lab, "guest set-up: told to fail by its script"), "a VM fails to be told who it is", lab.vse("events"))
    time.sleep(5)  # longer than a VM may take to be ready
    tap.ok([v["state"] for v in status(lab)["vms"]] == ["ready", "paused", "ready"], "and is ready; the paused one stays so",
           status(lab))
    tap.ok(answers(lab, "-r", "0,2"), "it runs programs")
    r = lab.vse("resume", "1")
    tap.ok(r.code == 0 and answers(lab), "the paused one is resumed", r)
    r = lab.vse("down")
    tap.ok(r.code == 0, "down", r)


COUNT = "setsid sh -c 'i=0; while :; do i=$((i+1)); echo $i >/tmp/n; sleep 0.2; done' </dev/null >/dev/null 2>&1 &"


def counter(lab):
    r = lab.vse("exec", "-r", "0", "--", "cat", "/tmp/n", timeout=60)
    return int(r.text.strip() or 0) if r.code == 0 else None


def counts_on(tap, lab, before):
    got = wait_for(BOUND_S, lambda: (lambda n: n if n and n > before + 2 else None)(counter(lab)))
    tap.ok(got, "a program in the VM has gone on counting", before, got)


def identity(lab):
    return lab.vse("exec", "--", "cat", "/proc/sys/kernel/random/boot_id", "/etc/machine-id", timeout=60).text


def reach(lab):
    r = lab.vse("exec", "--", "sh", "-c", "ping -c 1 -W 2 vm0 && ping -c 1 -W 2 vm1", timeout=60)
    return r.code == 0


def exchanged(tap, lab, who):
    """VMs with a scratch disk that second agents have adopted are moved: each to the other's node."""
    n = counter(lab)
    for vm, node in (("0", "n2"), ("1", "n1")):
        r = lab.vse("migrate", "-q", vm, "--to", node, timeout=300)
        tap.ok(r.code == 0 and [v["node"] for v in status(lab)["vms"] if v["rank"] == int(vm)] == [node],
               "an adopted VM with a scratch disk is moved", r)
    counts_on(tap, lab, n)
    r = lab.vse("exec", "-r", "0", "--", "sh", "-c", "sync; echo 3 >/proc/sys/vm/drop_caches; cat /tmp/kept", timeout=60)
    tap.ok(r.code == 0 and r.text == "kept\n" and identity(lab) == who, "with what was on its disk", r)


def without_note(tap, lab):
    """An agent dies while the disk of its node is full: the next one finds an empty note of a VM that runs."""
    notes = lab.call("find", "/", "-path", "*/vm0/vm", "-type", "f", "-size", "+0", "-print", "-exec", "truncate", "-s", "0", "{}", "+",
                     node="n2")
    tap.ok(len(notes.text.split()) == 1, "the note of vm0 is empty", notes)
    was, n = [p.pid for p in lab.processes("n2", "vmm")], counter(lab)
    kill_agent(tap, lab, "n2")
    tap.ok(answers(lab, seconds=60), "all VMs answer")
    now = [p.pid for p in lab.processes("n2", "vmm")]
    tap.ok(len(was) == 1 and now == was, "it is the same one, and the only one", was, now)
    counts_on(tap, lab, n)


def real(tap, lab):
    """The VMs of QEMU: one counts, and each reaches the other."""
    r = lab.vse("up", "-q", "-n", "2", "--accel", "tcg", "--oversubscribe", "--scratch", "32M", "--lost-after", "10s", "--hosts", "n[1-2]",
                "bb.yaml", timeout=300)
    if not tap.ok(r.code == 0, "up: 2 VMs of QEMU on 2 nodes", r):
        return
    lab.vse("exec", "-r", "0", "--", "sh", "-c", "echo said before >/dev/console; echo kept >/tmp/kept", timeout=60)
    r = lab.vse("exec", "-r", "0", "--", "sh", "-c", COUNT, timeout=60)
    tap.ok(r.code == 0 and wait_for(BOUND_S, lambda: counter(lab)), "a program counts in vm0", r)
    who = identity(lab)
    tap.ok(wait_for(BOUND_S, lambda: reach(lab)), "the VMs reach one another")
    for node in ("n1", "n2"):
        before, begun, n = status(lab), time.monotonic(), counter(lab)
        kill_agent(tap, lab, node)
        took = answers(lab, seconds=60)
        tap.ok(took, "all VMs answer")
        tap.note("%.2f s after the kill" % (took or 0))
        same_vms(tap, before, status(lab), time.monotonic() - begun, "qemu")
        counts_on(tap, lab, n)
        tap.ok(wait_for(BOUND_S, lambda: reach(lab)), "they reach one another again")
        tap.ok(said(lab, "the agent on %s was started again: 1 VM adopted" % node), "events tell of it", lab.vse("events"))
    tap.ok(identity(lab) == who, "no guest has rebooted, or become another machine", who, identity(lab))
    lab.vse("exec", "-r", "0", "--", "sh", "-c", "echo said after >/dev/console", timeout=60)
    tap.ok(wait_for(BOUND_S, lambda: "said after" in lab.vse("logs", "vm0").text) and
           "said before" in lab.vse("logs", "vm0").text, "the console's log goes on", lab.vse("logs", "vm0"))
    r = lab.vse("exec", "-r", "0", "--", "sh", "-c", "cat /tmp/kept && df /tmp", timeout=60)
    tap.ok(r.code == 0 and r.text.startswith("kept"), "the scratch disk is the same", r)
    exchanged(tap, lab, who)
    without_note(tap, lab)
    vmm = lab.processes("n1", "vmm")
    lab.kill("n1", "keeper")
    tap.ok(wait_for(BOUND_S, lambda: not lab.processes("n1")) and vmm, "a killed keeper leaves nothing on its node",
           lab.processes("n1"))
    tap.ok(answers(lab, "-r", "0"), "the other VM answers")
    r = lab.vse("down")
    tap.ok(r.code == 0, "down", r)
    left = lab.clean_within(10, ignore=[CACHE, *labworld.KEPT])
    tap.ok(not left, "nothing is left on any node", "\n".join(left[:20]))


def with_qemu(tap):
    with labworld.real_lab(nodes=2, ssh=True) as (lab, why):
        if lab:
            real(tap, lab)
        else:
            tap.note("no VMs of QEMU: " + why)


def main():
    labworld.skip_unless(ssh=True)
    tap = harness.Tap()
    with labworld.Lab(nodes=4, ssh=True) as lab:
        lab.write("f.yaml", "vse: 1\nname: f\nbase: debian:bookworm\n")
        lab.mark()
        fake(tap, lab)
        told_again(tap, lab)
    with_qemu(tap)
    return tap.done()


if __name__ == "__main__":
    sys.exit(main())
