#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A node whose agent is being replaced in the very moment in which the VMs are to start has not heard of it: the start says
so, and no cluster counts as ready that lacks a VM."""
import os
import signal
import sys

sys.dont_write_bytecode = True
import harness  # noqa: E402
import labworld  # noqa: E402

UP = ("up", "--hypervisor", "fake", "-n", "3", "--hosts", "n[1-3]", "--node-timeout", "60s", "--lost-after", "20s",
      "--give-up-after", "40s", "f.yaml")


def main():
    labworld.skip_unless(ssh=True)
    tap = harness.Tap()
    with labworld.Lab(nodes=3, ssh=True) as lab:
        lab.write("f.yaml", "vse: 1\nname: f\nbase: debian:bookworm\n")
        lab.mark()
        lab.cut("n3")  # all wait for it
        front = lab.start("vse", *UP, stdout=-1, stderr=-1)
        agent = lab.await_process("n2", "agent")
        there = labworld.wait_for(30, lambda: "n2 is up" in lab.vse("events").text)
        tap.ok(agent and there, "n2 is up, n3 is waited for")
        keepers = lab.processes("n2", "keeper")
        for p in keepers:
            os.kill(p.pid, signal.SIGSTOP)  # nobody follows for now
        lab.kill("n2")
        lab.heal("n3")
        said = front.communicate(timeout=100)[1].decode()
        for p in keepers:
            os.kill(p.pid, signal.SIGCONT)
        tap.ok(front.returncode == 1 and "vm1: node n2 was out of reach" in said, "the start fails, and names VM and node",
               front.returncode, said)
        left = lab.clean_within(90, ignore=["*/vse-cache-*", *labworld.KEPT])
        tap.ok(not left, "nothing is left on any node", "\n".join(left[:20]))
    return tap.done()


if __name__ == "__main__":
    sys.exit(main())
