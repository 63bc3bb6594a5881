# SPDX-License-Identifier: Apache-2.0
"""The table of bad inputs: what each gets. tests/system/bad-input.t runs it.

A row: name, command line, exit code, and a regular expression that the one line on stderr matches whole.
"vse" is the built one. In the words, {f} is a good VSE file, {d} the world's folder, {x} the options of a fake cluster.
Options of a row:
  file=TEXT      is written to {d}/in.yaml
  up=WORDS       a cluster of the fake back end is started before, so: it must be there after, whole
  env={}         changes of the environment (None: unset)
  stdin=BYTES    (default: empty)
  lines=N        lines on stderr, where it is not one; each must match
  out=REGEX      stdout, where it is not empty
  needs=WORD     root, user, namespace, build or image: skipped where that cannot be had
  shell=True     the command is a script for sh, in which $VSE is the built one
  gone=True      the cluster does not outlive this
"""

ROWS = []
HEAD = "vse: 1\nname: x\nbase: debian:bookworm\n"
FAKE = "--hypervisor fake"


def row(name, command, code, said, **kw):
    ROWS.append(dict(name=name, command=command, code=code, said=said, **kw))


# ---- VSE files (tests/spec/bad has 130 more, with every line and column) ----
def vse_file(name, text, said, lines=1):
    row("file: " + name, "vse up {x} in.yaml", 2, r"in\.yaml" + said, file=text, lines=lines)


vse_file("empty", "", r"(:\d+:\d+)?: .+")
vse_file("not YAML", HEAD + "packages: [a\n", r":\d+:\d+: .+")
vse_file("a tab for indentation", HEAD + "needs:\n\tmemory: 1G\n", r":5:1: .+")
vse_file("unknown field", HEAD + "pakages: [gcc]\n", r":4:1: pakages: .*packages.*")
vse_file("wrong type", HEAD + "packages: gcc\n", r":4:11: packages: .+")
vse_file("bad memory", HEAD + "needs: {memory: lots}\n", r":4:\d+: needs\.memory: .+")
vse_file("too little memory", HEAD + "needs: {memory: 1M}\n", r":4:\d+: needs\.memory: .+")
vse_file("no version", "name: x\nbase: debian:bookworm\n", r":\d+:\d+: vse: .+")
vse_file("a version of the future", "vse: 2\nname: x\nbase: debian:bookworm\n", r":1:6: vse: .+")
vse_file("unknown distribution", "vse: 1\nname: x\nbase: beos:r5\n", r":3:7: base: .+")
vse_file("a name with shell characters", "vse: 1\nname: \"x;touch $HOME/pwned\"\nbase: debian:bookworm\n", r":2:7: name: .+")
vse_file("a name that climbs", "vse: 1\nname: ../../etc\nbase: debian:bookworm\n", r":2:7: name: .+")
vse_file("a package with shell characters", HEAD + "packages: ['gcc; rm -rf /']\n", r":4:\d+: packages\[0\]: .+")
vse_file("a file that is not there", HEAD + "files: [{{path: /a, source: nowhere}}]\n", r":4:\d+: files\[0\].*: .+")
vse_file("an anchor that refers to itself", HEAD + "env: &a {{X: *a}}\n", r":4:\d+: .+")
vse_file("three mistakes at once", "vse: 1\nname: X\nbase: beos:r5\ncpu: 1\n", r":\d+:\d+: .+", lines=3)
row("file: is not there", "vse up {x} nowhere.yaml", 2, r"nowhere\.yaml: No such file or directory")
row("file: is a folder", "vse up {x} .", 2, r"\.: Is a directory")
row("file: is not text", "vse validate {d}/noise", 2, r".*noise:\d+:\d+: .+")
row("file: cannot be read", "vse up {x} {d}/secret.yaml", 2, r".*secret\.yaml: .*[Pp]ermission denied", needs="user")
row("file: has no end", "vse validate /dev/zero", 2, r"/dev/zero: larger than \d+ bytes")
row("file: larger than any", "vse validate {d}/large", 2, r".*large: larger than \d+ bytes")

# ---- command lines ----
USAGE = r" \(see 'vse [a-z]+ --help'\)"
row("words: none", "vse", 2, "", lines=0, out=r"(?s)vse - .*Commands:.*")
row("words: unknown command", "vse upp", 2, r"vse: no command 'upp'; did you mean 'up'\? \(see 'vse --help'\)")
row("words: unknown option of vse", "vse --frob", 2, r"vse: .*--frob.*")
row("words: help for what is not there", "vse help nothing", 2, r"vse: no command 'nothing'.*")
for command in ("up", "run", "cp", "exec", "build", "validate", "show", "console", "logs", "pause", "stop"):
    row("words: %s without operands" % command, "vse " + command, 2, r"vse %s: missing argument(: vse %s .*)?" % (command, command) + USAGE)
row("words: run without a command", "vse run {f}", 2, r"vse run: too few arguments: vse run .*" + USAGE)
row("words: cp with one operand", "vse cp a", 2, r"vse cp: too few arguments: vse cp .*" + USAGE)
row("words: up with two files", "vse up {f} {f}", 2, r"vse up: unexpected argument '.*'" + USAGE)
row("words: unknown option", "vse up --frob {f}", 2, r"vse up: unknown option '--frob'" + USAGE)
row("words: unknown letter", "vse ps -Z", 2, r"vse ps: unknown option '-Z'" + USAGE)
row("words: option without its value", "vse up {f} -n", 2, r"vse up: option '-n' needs N" + USAGE)
row("words: flag with a value", "vse ps --json=yes", 2, r"vse ps: option '--json' takes no value" + USAGE)
for n in ("0", "-1", "x", "", "1.5", "99999999999999999999", "1501", "0x10", " 4"):
    row("words: -n '%s'" % n, ["vse", "up", "{f}", "-n", n], 2, r"vse up: --count: .+" + USAGE)
row("words: --memory 1X", "vse up {x} {f} --memory 1X", 2, r"vse up: --memory: .+" + USAGE)
row("words: --memory 1K", "vse up {x} {f} --memory 1K", 2, r"vse up: --memory 1K: too small.*" + USAGE)
row("words: --memory 99999999T", "vse up {x} {f} --memory 99999999T", 2, r"vse up: --memory:? .+" + USAGE)
row("words: --scratch -5G", ["vse", "up", "{f}", "--scratch", "-5G"], 2, r"vse up: --scratch: .+" + USAGE)
row("words: --mount without a place", "vse up {x} {f} --mount /etc", 2, r"vse up: --mount: '/etc' is not HOST:GUEST or HOST:GUEST:MODE" + USAGE)
row("words: --mount over the system", "vse up {x} {f} --mount /home:/etc/x", 2, r"vse up: --mount: '/etc/x' is below /etc, .+" + USAGE)
row("words: --mount of the root", "vse up {x} {f} --mount //:/x", 2, r"vse up: --mount: '/' is the node's root itself.+" + USAGE)
row("words: --mount with a mode of its own", "vse up {x} {f} --mount /home:/x:rwx", 2, r"vse up: --mount: 'rwx' is neither ro nor rw" + USAGE)
row("words: --mount one over the other", "vse up {x} {f} --mount /home:/x --mount /home:/x/y", 2,
    r"vse up: --mount: '/x/y' and '/x' of mounts\[0\] lie one over the other" + USAGE)
row("words: --device without its kind", "vse up {x} {f} --device mlx5", 2, r"vse up: --device: 'mlx5' is neither pci:VENDOR:DEVICE nor .+" + USAGE)
row("words: --device with more behind it", "vse up {x} {f} --device pci:15b3:101e,rombar=0", 2, r"vse up: --device: .+ is neither .+" + USAGE)
row("mount: what is not there", "vse up {x} {f} --mount {d}/no-such:/x", 1, r"vse up: host directory .*/no-such on node \S+: .*No such file or directory")
row("mount: a file", "vse up {x} {f} --mount {f}:/x", 1, r"vse up: host directory .* on node \S+: .*Not a directory")
row("mount: the kernel's files", "vse up {x} {f} --mount /proc/self:/x", 1, r"vse up: host directory /proc/self on node \S+: it is the kernel's \(proc\).*")
row("mount: what holds the kernel's files", "vse up {x} {f} --mount /./dev/..:/x", 1, r"vse up: host directory .* on node \S+: it is the node's root itself.*")
vse_file("a mount over the system", HEAD + "mounts: [{{host: /h, guest: /proc}}]\n", r":4:\d+: mounts\[0\]\.guest: .+")
row("words: --cpus 0", "vse up {x} {f} --cpus 0", 2, r"vse up: --cpus: .+" + USAGE)
row("words: --timeout soon", "vse up {x} {f} --timeout soon", 2, r"vse up: --timeout: .+" + USAGE)
row("words: --timeout 0", "vse up {x} {f} --timeout 0", 2, r"vse up: --timeout 0: .+" + USAGE)
row("words: --name with shell characters", ["vse", "up", "{f}", "--name", "a;b"], 2, r"vse up: 'a;b': not a cluster name .*")
row("words: --name that climbs", ["vse", "up", "{f}", "--name", "../x"], 2, r"vse up: '\.\./x': not a cluster name .*")
row("words: --name too long", ["vse", "up", "{f}", "--name", "a" * 33], 2, r"vse up: 'a{33}': not a cluster name .*")
row("words: unknown launcher", "vse up {x} {f} --launcher teleport", 2, r"vse up: --launcher teleport: .+" + USAGE)
row("words: unknown hypervisor", "vse up --hypervisor bochs {f}", 2, r"vse up: --hypervisor bochs: not one of: auto qemu( \w+)+" + USAGE)
row("words: one of two hypervisors is unknown", "vse up --hypervisor qemu,bochs {f}", 2, r"vse up: --hypervisor qemu,bochs: not one of: auto qemu( \w+)+" + USAGE)
row("words: a hypervisor without a name", "vse up --hypervisor qemu, {f}", 2, r"vse up: --hypervisor qemu,: not one of: auto qemu( \w+)+" + USAGE)
row("words: unknown accelerator", "vse up {x} --accel gpu {f}", 2, r"vse up: --accel gpu: not one of: .*" + USAGE)
row("words: unknown word for the fake", "vse up {x} --hypervisor-arg frob {f}", 1, r"vse up: vm0: fake: script word frob: unknown")
row("words: clones and none", "vse up {x} --clone --no-clone {f}", 2, r"vse up: --no-clone: not together with --clone" + USAGE)
row("words: unknown machine type", "vse up {x} --machine pc {f}", 2, r"vse up: --machine pc: not one of: auto microvm q35 pv pvh hvm" + USAGE)
row("words: down of nothing", "vse down", 1, r"vse down: no cluster runs .*")
row("words: down of an unknown one", "vse down nobody", 1, r"vse down: no cluster 'nobody' runs .*")
row("words: down of one that climbs", "vse down ../../etc", 1, r"vse down: '\.\./\.\./etc': not a cluster name .*")
row("words: down --all of one", "vse down --all f", 2, r"vse down: --all and a name exclude each other" + USAGE)
row("words: image frob", "vse image frob", 2, r"vse image: .+" + USAGE)
row("words: image rm of an unknown one", "vse image rm nobody", 1, r"vse image: .*nobody.*")

# ---- words about a cluster that runs ----
UP = "-n 4"
for ranks in ("4", "0-4", "3-1", "x", "0,,1", "-", "1-", "", "0-99999999999", "-1"):
    row("ranks: '%s'" % ranks, ["vse", "exec", "-r", ranks, "true"], 2, r"vse exec: .+" + USAGE, up=UP)
row("ranks: stop of vm9", "vse stop vm9", 2, r"vse stop: no VM of rank 9 .*", up=UP)
row("ranks: logs of vm9", "vse logs vm9", 2, r"vse logs: no VM of rank 9 .*", up=UP)
row("ranks: logs of a word", "vse logs vmx", 2, r"vse logs: vmx: not a VM .*", up=UP)
row("words: exec in an unknown cluster", "vse exec -c nobody true", 1, r"vse exec: no cluster 'nobody' runs .*", up=UP)
row("words: exec --env without =", "vse exec -e FOO true", 2, r"vse exec: --env FOO: not NAME=VALUE" + USAGE, up=UP)
row("words: exec --tty on four VMs", "vse exec -t true", 2, r"vse exec: --tty goes with one VM.*", up=UP)
row("words: exec --tty without a terminal", "vse exec -t -r 0 true", 2, r"vse exec: --tty: stdin is no terminal" + USAGE, up=UP)
row("words: exec --label never ever", "vse exec -l maybe true", 2, r"vse exec: --label maybe: .*" + USAGE, up=UP)
row("words: exec of bytes that are no text", [b"vse", b"exec", b"echo", b"\xff\xfe"], 2, r"vse exec: an argument is not UTF-8 text" + USAGE, up=UP)
row("words: exec of what is not there", "vse exec -r 0 nothing", 127, r"nothing: no such program", up=UP)
row("words: exec of too much", "shell:$VSE exec -- echo $(seq 1 100000) >/dev/null", 1, r"(vse exec: .*|vm\[0-3\]: .*|.*too long.*)", up=UP, shell=True)
row("words: up of what runs already", "vse up {x} {f}", 1, r"vse up: cluster 'f' runs already .*", up=UP)
row("words: cp from VM to VM", "vse cp vm0:/a vm1:/b", 2, r"vse cp: from VM to VM .*" + USAGE, up=UP)
row("words: cp of neither side", "vse cp a b", 2, r"vse cp: neither side is in a VM .*" + USAGE, up=UP)
row("words: cp to vm9", "vse cp {f} vm9:/a", 2, r"vse cp: .+" + USAGE, up=UP)
row("words: cp of what is not there", "vse cp {d}/nowhere vm0:/a", 1, r"vse cp: .*nowhere: .*[Nn]o such file.*", up=UP)
row("words: cp out to where nothing is", "vse cp vm0:/a {d}/no/where/a", 1, r"vse cp: .*no/where.*", up=UP)
row("words: pause of what is paused", "shell:$VSE pause 0 && $VSE exec -r 0 true; code=$?; $VSE resume 0; exit $code", 1,
    r"vse exec: vm0: is paused, not ready", up=UP, shell=True)
row("words: resume of what runs", "vse resume 0", 0, "", lines=0, up=UP)

# ---- output and input that fail ----
row("output: ps to a full disk", "shell:$VSE ps >/dev/full", 1, r"vse ps: write output: No space left on device", up=UP, shell=True)
row("output: exec to a full disk", "shell:$VSE exec yes 1M >/dev/full", 1, r"vse exec: write output: No space left on device", up=UP, shell=True)
row("output: logs to a full disk", "shell:$VSE logs vm0 >/dev/full", 1, r"vse logs: write output: No space left on device", up=UP, shell=True)
row("output: events to a full disk", "shell:$VSE events >/dev/full", 1, r"vse events: write output: No space left on device", up=UP, shell=True)
row("output: help to a full disk", "shell:$VSE up --help >/dev/full", 1, r"vse up: write output: No space left on device", shell=True)
row("output: stdout is closed", "shell:$VSE ps >&-", 1, r"vse ps: write output: Bad file descriptor", up=UP, shell=True)
row("output: exec, stdout is closed", "shell:$VSE exec -r 0 echo hello >&-", 1, r"vse exec: write output: Bad file descriptor", up=UP, shell=True)
row("output: a reader that leaves", "shell:($VSE exec yes 50M; echo $? >code) | head -n 1 >/dev/null; exit $(cat code)", 141, "", lines=0, up=UP, shell=True)
row("output: stderr is closed", "shell:$VSE exec -r 0 echo hello 2>&-", 0, "", lines=0, out="hello\n", up=UP, shell=True)
row("input: stdin is closed", "shell:$VSE exec -r 0 cat <&-", 0, "", lines=0, up=UP, shell=True)
row("input: stdin is a folder", "shell:$VSE exec -r 0 cat </", 0, "", lines=0, up=UP, shell=True)
row("output: all three are closed", "shell:$VSE exec -r 0 true <&- >&- 2>&-", 0, "", lines=0, up=UP, shell=True)
row("terminal: none, TERM unset", "vse exec -r 0 echo hi", 0, "", lines=0, out="hi\n", env={"TERM": None}, up=UP)

# ---- VMs and agents that die in the middle ----
row("dies: exec, the VM crashes", "vse exec sleep 20", 1, r"vse exec: vm[0-3]: .+", lines=4, up="-n 4 --hypervisor-arg crash-after=1s", gone=True)
row("dies: cp, the VM crashes", "shell:dd if=/dev/zero bs=1M count=4096 2>/dev/null of={d}/sparse seek=4096; $VSE cp {d}/sparse vm0:/tmp/", 1,
    r"vse cp: vm0: .+", up="-n 1 --hypervisor-arg crash-after=500ms", gone=True, shell=True)
row("dies: exec, the agent is killed", "kill-agent: vse exec sleep 20", 1, r"vse exec: the agent of cluster 'f' is gone.*", up=UP, gone=True)
row("dies: logs -f, the agent is killed", "kill-agent: vse logs -f vm0", 1, r"vse logs: the agent of cluster 'f' is gone.*", out="(?s).*", up=UP, gone=True)
row("dies: events -f, the agent is killed", "kill-agent: vse events -f", 1, r"vse events: the agent of cluster 'f' is gone.*", out="(?s).*", up=UP, gone=True)
row("dies: the VMM fails to start", "vse up {x} --hypervisor-arg fail-start {f}", 1, r"vse up: vm0: .*told to fail.*")
row("dies: the VMM refuses", "vse up {x} --hypervisor-arg refuse-start {f}", 1, r"vse up: vm0: .*told to refuse.*")
row("dies: 16 VMs refuse", "vse up {x} -n 16 --hypervisor-arg refuse-start {f}", 1, r"vse up: vm(\[[0-9,-]+\] failed; vm)?0: .*told to refuse.*")
row("guest: never says hello", "vse up {x} --timeout 1s --hypervisor-arg never-hello {f}", 1, r"vse up: vm0: not ready within 1 s: no sign of the guest agent; the console's last line: \".*boots\"")
row("guest: never ready", "vse up {x} --timeout 1s --hypervisor-arg never-ready {f}", 1, r"vse up: vm0: not ready within 1 s: the guest agent came up.*")
row("guest: set-up fails", "vse up {x} --hypervisor-arg fail-setup {f}", 1, r"vse up: vm0: .+")
row("guest: speaks nonsense", "vse up {x} --timeout 2s --hypervisor-arg garbage {f}", 1, r"vse up: vm0: .+")
row("guest: powers off at once", "vse up {x} --hypervisor-arg boot=2s --hypervisor-arg poweroff-after=100ms {f}", 1, r"vse up: vm0: .+")

# ---- missing tools and places ----
row("missing: mksquashfs", "vse build -q {bb}", 1, r"vse build: .*mksquashfs.*", env={"PATH": "{d}/no-mksquashfs"}, needs="build")
row("missing: qemu", "vse up -q {bb}", 1, r"vse up: qemu: qemu-system-x86_64: not in PATH .*", env={"PATH": "{d}/no-qemu"}, needs="image")
row("missing: mmdebstrap", "vse build -q {f}", 1, r"vse build: .*mmdebstrap.*", env={"PATH": "{d}/no-mmdebstrap"}, needs="build")
row("missing: vse-agent", "shell:{d}/alone/vse up {x} {f}", 1, r"vse up: vse-agent is not beside vse .*", shell=True)
row("missing: every folder of PATH", "vse up {x} {f}", 0, "", lines=0, env={"PATH": "/nowhere"}, leaves=True)
row("place: no HOME at all", "vse build -q {bb}", 1, r"vse build: store: neither XDG_DATA_HOME nor HOME .*", env={"HOME": None, "XDG_DATA_HOME": None})
row("place: HOME is not there", "vse images", 1, r"vse images?: store: .*", env={"HOME": "/proc/nowhere", "XDG_DATA_HOME": None})
row("place: the store is a file", "vse build -q {bb}", 1, r"vse build: store: .*", env={"XDG_DATA_HOME": "{f}"})
row("place: read-only home", "vse build -q {bb}", 1, r"vse build: store: .*", needs="namespace",
    before="mount -t tmpfs -o ro none $HOME", env={"XDG_DATA_HOME": None})
row("place: the run directory's path is too long", "vse up {x} {f}", 1, r"vse up: .*sock.*(too long|at most|107).*", env={"XDG_RUNTIME_DIR": "{long}"})
row("full: run directory", "vse up {x} -n 8 {f}", 1, r"vse up: .*(No space left on device|no space left).*", needs="namespace",
    before="mount -t tmpfs -o size=4k,nr_inodes=6,mode=700 none $XDG_RUNTIME_DIR", inside=True)
row("full: scratch folder", "vse up {x} --scratch 1G {f}", 1, r"vse up: vm0: scratch disk in .*: 1 GiB wanted, .* free; set VSE_SCRATCH.*",
    needs="namespace", before="mkdir $HOME/s; mount -t tmpfs -o size=1m none $HOME/s", env={"VSE_SCRATCH": "{d}/home/s"}, inside=True)
row("full: store", "vse build -q {bb}", 1, r"vse build: .*(No space left on device|no space|free).*", needs="namespace",
    before="mount -t tmpfs -o size=1m none $XDG_DATA_HOME")
row("place: no scratch folder", "vse up {x} --scratch 1G {f}", 1, r"vse up: .*scratch disk in /nowhere.*", env={"VSE_SCRATCH": "/nowhere"})

# ---- roots ----
row("root: of another architecture", "vse build -q in.yaml", 2, r"in\.yaml:4:7: arch: .+", file=HEAD + "arch: sparc\n")
row("root: an archive with ../", "vse build -q in.yaml", 1, r"vse build: .*\.\..*", file="vse: 1\nname: x\nbase: tar:{d}/climbs.tar\n", needs="build")
row("root: an archive with an absolute link out", "vse build -q in.yaml", 1, r"vse build: base .*link\.tar: .*bin/climbed: Cannot open: .*", file="vse: 1\nname: x\nbase: tar:{d}/link.tar\n", needs="build")
row("root: an archive that is none", "vse build -q in.yaml", 1, r"vse build: base .*noise: not a tar archive .*", file="vse: 1\nname: x\nbase: tar:{d}/noise\n", needs="build")
row("root: an archive cut short", "vse build -q in.yaml", 1, r"vse build: .*archive is cut off at byte [0-9]+.*", file="vse: 1\nname: x\nbase: tar:{d}/short.tar\n", needs="build")
row("root: an empty archive", "vse build -q in.yaml", 1, r"vse build: base .*empty\.tar: not a tar archive .*", file="vse: 1\nname: x\nbase: tar:{d}/empty.tar\n", needs="build")
row("root: an empty folder", "vse build -q in.yaml", 1, r"vse build: base: no root file system.*", file="vse: 1\nname: x\nbase: dir:{d}/empty\n", needs="build")
row("root: a build step that fails", "vse build -q in.yaml", 1, r"vse build: .*exit (code )?7.*", file="vse: 1\nname: x\nbase: dir:{d}/root\nbuild: ['exit 7']\n", lines=None, needs="build")
