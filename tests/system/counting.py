# SPDX-License-Identifier: Apache-2.0
"""A program that counts in VMs, in memory and on the disk: whoever is put back in time as a whole does not notice, whose
memory and disk are of two moments has a gap."""

# Record i of /counter is the number i, on the disk before the next one begins. Asked, it writes the i that it has in its
# memory to a file that is in memory, and ends.
COUNTER = rb"""
trap 'echo $i >/run/mem; exit 0' USR1
i=0
while :; do
	i=$((i + 1))
	printf '%08d\n' $i | dd of=/counter bs=9 seek=$((i - 1)) conv=notrunc,fsync 2>/dev/null
done
"""
BEGIN = """
rm -f /run/mem /counter
cat >/run/counter.sh
setsid sh /run/counter.sh </dev/null >/dev/null 2>&1 &
echo $! >/run/counter.pid
"""
# Only what is on the disk: what the page cache has and the disk not is thrown away (a clean page) or written (a dirty one:
# at most the last record).
READ = """
kill -USR1 $(cat /run/counter.pid)
while [ ! -e /run/mem ]; do sleep 0.1; done
echo 3 >/proc/sys/vm/drop_caches
cat /run/mem /counter
"""


def begin(w, ranks="all"):
    """In VMs of w (a World or Lab) with a scratch disk."""
    return w.vse("exec", "-r", str(ranks), "sh", "-c", BEGIN, stdin=COUNTER, timeout=60)


def seen(w, rank):
    """What it has counted to, by its disk; 0: nothing yet. It goes on."""
    r = w.vse("exec", "-r", str(rank), "tail", "-c", "9", "/counter", timeout=60)
    return int(r.text) if r.code == 0 and len(r.text) == 9 else 0


def verify(w, rank, least=1):
    """Ends it: (whether none of what it counted is missing, and all that was seen() is there; that in words; details)."""
    r = w.vse("exec", "-r", str(rank), "sh", "-c", READ, timeout=300)
    lines = [int(x) for x in r.text.split()] if r.code == 0 else []
    memory, disk = lines[0] if lines else 0, lines[1:]
    good = memory >= least and disk == list(range(1, len(disk) + 1)) and memory - len(disk) in (0, 1)
    return good, "vm%d: memory has %d, the disk %d, none is missing" % (rank, memory, len(disk)), r


def check(tap, w, vms):
    """Ends it in all VMs, and looks at what they have counted."""
    for rank in range(vms):
        good, text, r = verify(w, rank)
        tap.ok(good, text, r)
