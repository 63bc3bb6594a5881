#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# setup.sh [run|build|test|lab|bench]...   installs the Debian packages that are missing for these purposes
# (default: run, build and test). lab: for tests over several nodes, which need root (docs/testing.md); bench: what
# bench/launch and bench/stage measure against. The services among these are neither started nor switched on.
# Asks for no privilege when everything is there. Exit 1: something is missing and cannot be installed from here;
# what to do is said.
set -u

# purpose package why
packages() {
	cat <<'LIST'
build gcc               compiles vse
build libc6-dev         C library, also for static linking
build linux-libc-dev    kernel headers for the guest agent
build meson             build system
build ninja-build       build system
build pkg-config        finds the libraries
build libuv1-dev        event loop
build libjansson-dev    JSON
build libyaml-dev       YAML
build libssl-dev        TLS and SHA-256
build libxxhash-dev     fast checksums
build libzstd-dev       compression
build musl-tools        the small static guest agent
build scdoc             man pages
run   qemu-system-x86   runs virtual machines
run   seabios           firmware of virtual machines
run   mmdebstrap        makes root file systems of Debian and Ubuntu
run   uidmap            image builds by ordinary users, containers
run   bubblewrap        containers, where no hypervisor is
run   squashfs-tools    compressed root images, unpacked for containers
run   erofs-utils       compressed root images
run   lz4               unpacks kernels
run   zstd              unpacks kernels
run   xz-utils          unpacks kernels
run   kmod              finds kernel modules
run   bzip2             unpacks archives
run   e2fsprogs         scratch disks
run   openssh-client    ssh between nodes
run   xorriso           boot disks for Palacios
run   isolinux          boot disks for Palacios
run   syslinux-common   boot disks for Palacios
test  perl              prove, the test runner
test  sharness          shell tests
test  busybox-static    root file system of small test images
test  cpio              makes small test images
test  libcap2-bin       file capabilities in test images
test  clang             second compiler
test  clang-format      format check
test  shellcheck        checks the scripts
test  codespell         spelling
test  procps            process checks
lab   iproute2          links between the nodes
lab   openssh-server    nodes that ssh reaches
lab   openssl           TLS of strangers
lab   slurmctld         nodes that Slurm manages
lab   slurmd            nodes that Slurm manages
lab   slurm-client      srun, salloc, sbatch
lab   munge             Slurm's credentials
bench pdsh              commands on many hosts
bench clustershell      clush: commands on many hosts, files to many
bench taktuk            commands on many hosts, by a tree
bench openmpi-bin       mpirun
bench mpich             mpiexec.hydra
bench udpcast           files to many hosts, by multicast
bench netcat-openbsd    files along a chain
LIST
}

list() { # purposes, as "package why" lines
	for purpose; do
		packages | sed -n "s/^$purpose  *//p"
	done
}

installed() {
	dpkg-query -W -f '${db:Status-Abbrev}' "$1" 2>/dev/null | grep -q '^ii'
}

missing() {
	list "$@" | while read -r package why; do
		installed "$package" || echo "$package $why"
	done
}

root() {
	if [ "$(id -u)" = 0 ]; then
		env DEBIAN_FRONTEND=noninteractive "$@"
	else
		sudo env DEBIAN_FRONTEND=noninteractive "$@"
	fi
}

can_be_root() {
	[ "$(id -u)" = 0 ] && return 0
	command -v sudo >/dev/null || return 1
	sudo -n true 2>/dev/null || [ -t 0 ]
}

# For as long as something is installed, no service is started: Debian's policy-rc.d says so, where there is none.
policy=/usr/sbin/policy-rc.d
hold_services() {
	[ ! -e $policy ] || return 0
	# shellcheck disable=SC2016 # nothing is to be expanded here
	root sh -c 'printf "#!/bin/sh\nexit 101\n" >"$1" && chmod 755 "$1"' sh $policy || return 1
	held=1
	trap release_services EXIT
	trap 'exit 130' INT TERM HUP
}
release_services() {
	[ -z "$held" ] || root rm -f $policy
	held=''
}
held=''

# Nor at the next boot: the tests start their own, in namespaces.
switch_off() { # packages that were just installed
	for package; do
		case $package in
		openssh-server) unit=ssh.service ;;
		slurmctld | slurmd | munge) unit=$package.service ;;
		*) continue ;;
		esac
		! command -v systemctl >/dev/null || root systemctl -q disable "$unit" >/dev/null 2>&1
	done
	return 0
}

install_missing() {
	wanted=$(missing "$@")
	[ -n "$wanted" ] || return 0
	echo "These packages are missing:"
	echo "$wanted" | while read -r package why; do printf '  %-18s %s\n' "$package" "$why"; done
	names=$(echo "$wanted" | cut -d' ' -f1 | tr '\n' ' ')
	if ! can_be_root; then
		echo "This user may not install them. Ask an administrator to run:" >&2
		echo "  apt-get install --no-install-recommends $names" >&2
		return 1
	fi
	echo "Installing them (apt-get update, apt-get install)."
	log=$(mktemp)
	# shellcheck disable=SC2086 # a list of words
	if hold_services && root apt-get -q update >"$log" 2>&1 &&
		root apt-get -qy install --no-install-recommends $names >>"$log" 2>&1 </dev/null; then
		# shellcheck disable=SC2086
		switch_off $names
		release_services
		rm -f "$log"
		return 0
	fi
	release_services
	tail -n 20 "$log" >&2
	rm -f "$log"
	echo "setup: apt-get could not install: $names" >&2
	return 1
}

# The small test images take their kernel from apt, which needs its lists for that.
check_lists() {
	apt-cache policy "linux-image-cloud-$(dpkg --print-architecture)" 2>/dev/null | grep -q 'Candidate: [0-9]' && return 0
	if [ "$(id -u)" = 0 ]; then
		echo "apt has no list of kernels (apt-get update)."
		apt-get -q update >/dev/null && return 0
	fi
	echo "Note: apt knows no kernel package, so tests that boot one are skipped. An administrator can run:"
	echo "  apt-get update"
}

# An ordinary user builds images in a user namespace with a range of subordinate ids.
check_user() {
	[ "$(id -u)" != 0 ] || return 0
	# First without --map-auto: where the kernel refuses, that leaves a process of its own hanging.
	unshare --user true 2>/dev/null && timeout 5 unshare --map-auto --map-root-user true 2>/dev/null && return 0
	user=$(id -un)
	if ! grep -q "^$user:" /etc/subuid 2>/dev/null || ! grep -q "^$user:" /etc/subgid 2>/dev/null; then
		echo "Note: $user has no subordinate ids, so 'vse build' will not work. An administrator can run:"
		echo "  usermod --add-subuids 300000-365535 --add-subgids 300000-365535 $user"
	else
		echo "Note: this kernel does not let $user make user namespaces, so 'vse build' will not work."
	fi
}

[ $# -gt 0 ] || set -- build run test
if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
	echo "setup: this is not a Debian system; install the counterparts of:" >&2
	list "$@" | while read -r package why; do printf '  %-18s %s\n' "$package" "$why"; done >&2
	exit 1
fi
install_missing "$@" || exit 1
for purpose; do
	[ "$purpose" != run ] || check_user
	[ "$purpose" != test ] || check_lists
done
exit 0
