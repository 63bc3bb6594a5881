# SPDX-License-Identifier: Apache-2.0
"""What runs on the nodes: sshd, munged, slurmctld, slurmd; their configuration, made once for a lab."""
import os
import shutil
import subprocess
from pathlib import Path

USERS = ("labuser", "labother")
SSHD, SLURMD, SLURMCTLD, MUNGED = "/usr/sbin/sshd", "/usr/sbin/slurmd", "/usr/sbin/slurmctld", "/usr/sbin/munged"
SLURMCTLD_PORT, SLURMD_PORT = 6817, 6818

SSHD_CONFIG = """
Port 22
AddressFamily inet
HostKey /etc/ssh/lab/host_key
PidFile /run/sshd.pid
AuthorizedKeysFile /etc/ssh/lab/keys/%u
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin no
UsePAM no
UseDNS no
PrintMotd no
PrintLastLog no
AcceptEnv LANG LC_*
LogLevel VERBOSE
Subsystem sftp internal-sftp
"""

SLURM_CONF = """
ClusterName=lab
SlurmctldHost=n0
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
MpiDefault=none
ReturnToService=2
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
StateSaveLocation=/var/tmp/slurmctld
SlurmdSpoolDir=/run/slurmd
SlurmctldLogFile=/run/log/slurmctld.log
SlurmdLogFile=/run/log/slurmd.log
ProctrackType=proctrack/%(proctrack)s
TaskPlugin=%(task)s
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=%(mem_per_cpu)d
SlurmdParameters=config_overrides
SlurmctldTimeout=10
SlurmdTimeout=10
InactiveLimit=0
KillWait=5
MinJobAge=300
MailProg=/bin/true
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=n[1-%(nodes)d] CPUs=%(cpus)d RealMemory=%(memory)d State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
PartitionName=scav Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=5
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=100 PreemptMode=OFF
"""

CGROUP_CONF = """
CgroupPlugin=cgroup/v1
CgroupMountpoint=/sys/fs/cgroup
CgroupAutomount=no
ConstrainCores=no
ConstrainRAMSpace=no
ConstrainDevices=no
"""


def missing(spec):
    """The packages that this lab needs and that are not here."""
    wanted = [("ip", "iproute2"), ("nsenter", "util-linux"), ("setpriv", "util-linux")]
    if spec["ssh"]:
        wanted += [(SSHD, "openssh-server"), ("ssh", "openssh-client")]
    if spec["slurm"]:
        wanted += [(SLURMCTLD, "slurmctld"), (SLURMD, "slurmd"), ("srun", "slurm-client"), (MUNGED, "munge")]
    path = "%s:/usr/sbin:/sbin" % os.environ.get("PATH", "/usr/bin:/bin")
    return sorted({package for program, package in wanted if not shutil.which(program, path=path)})


def users(spec, etc):
    """The lab's own users, in the copy of /etc only. "*": no password fits, yet sshd does not call it locked."""
    rows = {"passwd": "{0}:x:{1}:{1}:{0}:/home/{0}:/bin/bash\n", "shadow": "{0}:*:19000:0:99999:7:::\n",
            "group": "{0}:x:{1}:\n", "gshadow": "{0}:*::\n"}
    for file, row in rows.items():
        path = etc / file
        if not path.exists():
            continue
        kept = [line for line in path.read_text().splitlines(True) if line.split(":")[0] not in USERS]
        path.write_text("".join(kept) + "".join(row.format(u, spec["uids"][u]) for u in USERS))


def names(spec, etc):
    (etc / "resolv.conf").unlink(missing_ok=True)  # it may be a link to where no node looks
    (etc / "resolv.conf").write_text("")
    hosts = ["127.0.0.1 localhost"] + ["%s %s %s.lab" % (a, n, n) for n, a in spec["addresses"].items()]
    (etc / "hosts").write_text("\n".join(hosts) + "\n")
    switch = etc / "nsswitch.conf"
    kept = [line for line in switch.read_text().splitlines() if not line.startswith("hosts:")] if switch.exists() else []
    switch.write_text("\n".join(kept + ["hosts: files"]) + "\n")


def key(path, comment):
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)], check=True)


def ssh(spec, etc, homes):
    """homes: the folders where labuser's private key belongs."""
    folder = etc / "ssh/lab"
    shutil.rmtree(etc / "ssh/ssh_config.d", ignore_errors=True)
    (etc / "ssh/ssh_config").write_text("Host *\n    SendEnv LANG LC_*\n")
    (folder / "keys").mkdir(parents=True)
    key(folder / "host_key", "lab")
    key(folder / "labuser", "labuser")
    (folder / "sshd_config").write_text(SSHD_CONFIG)
    public = (folder / "host_key.pub").read_text().split()[:2]
    (etc / "ssh/ssh_known_hosts").write_text("".join(
        "%s,%s.lab,%s %s\n" % (n, n, a, " ".join(public)) for n, a in spec["addresses"].items()))
    shutil.copy(folder / "labuser.pub", folder / "keys/labuser")
    uid = spec["uids"]["labuser"]
    for home in homes:
        dot = home / "labuser/.ssh"
        dot.mkdir(mode=0o700)
        shutil.copy(folder / "labuser", dot / "id_ed25519")
        (dot / "id_ed25519").chmod(0o600)
        for path in (dot, dot / "id_ed25519"):
            os.chown(path, uid, uid)
    (folder / "labuser").unlink()


def slurm(spec, etc, proctrack):
    folder = etc / "slurm"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    cgroup = proctrack == "cgroup"
    (folder / "slurm.conf").write_text(SLURM_CONF % {
        "proctrack": proctrack, "task": "task/cgroup,task/affinity" if cgroup else "task/none",
        "nodes": spec["nodes"], "cpus": spec["cpus"], "memory": spec["memory"],
        "mem_per_cpu": max(1, spec["memory"] // spec["cpus"] // 2)} + "\n".join(spec["slurm_conf"]) + "\n")
    # Without this file slurmd looks by itself for what there is, and may find nothing it likes.
    (folder / "cgroup.conf").write_text(CGROUP_CONF)
    shutil.rmtree(etc / "munge", ignore_errors=True)
    (etc / "munge").mkdir(mode=0o700)
    secret = etc / "munge/munge.key"
    secret.write_bytes(os.urandom(1024))
    secret.chmod(0o400)
    for path in (etc / "munge", secret):
        shutil.chown(path, "munge", "munge")


def of_node(spec, name):
    """[(argv, port it will listen on or None)] in the order to start them; each goes into the background."""
    found = []
    if spec["ssh"]:
        os.mkdir("/run/sshd", 0o755)
        found.append(([SSHD, "-f", "/etc/ssh/lab/sshd_config", "-E", "/run/log/sshd.log"], 22))
    if spec["slurm"]:
        os.mkdir("/run/munge", 0o755)
        shutil.chown("/run/munge", "munge", "munge")
        found.append((["setpriv", "--reuid", "munge", "--regid", "munge", "--clear-groups", MUNGED,
                       "--key-file=/etc/munge/munge.key", "--log-file=/run/munge/munged.log",
                       "--seed-file=/run/munge/seed", "--pid-file=/run/munge/munged.pid"], None))
        if name == "n0":
            Path("/var/tmp/slurmctld").mkdir(mode=0o700, exist_ok=True)
            found.append(([SLURMCTLD], SLURMCTLD_PORT))
        else:
            os.mkdir("/run/slurmd", 0o755)
            found.append(([SLURMD, "-N", name], SLURMD_PORT))
    return found
