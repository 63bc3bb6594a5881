#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
test_description='images from folders and archives: owners, files, steps, identity, hostile archives'
. "$(dirname "$0")/lib.sh"
. "$TOP/tests/system/image-lib.sh"
need_builder
own_store

test_expect_success 'set up' '
	make_kernel kernel && make_root root && echo from-host >hostfile && chmod 640 hostfile &&
	mkdir -p root/var/odd root/dev root/etc/ssh && : >root/dev/leftover && : >root/etc/ssh/ssh_host_rsa_key &&
	mkdir -p hosttree/sub && echo inner >hosttree/sub/f && chmod 4750 hosttree/sub/f && ln -s f hosttree/sub/link &&
	make_vse dir "dir:$PWD/root" <<-EOF
	files:
	  - {path: /etc/inline, content: "text", mode: 0600}
	  - {path: /opt/deep/er/file, source: $PWD/hostfile}
	  - {path: /opt/tree, source: $PWD/hosttree, owner: "5:6"}
	env: {COLOUR: blue}
	build:
	  - "echo \$COLOUR >/etc/colour"
	  - |
	    read -r x </etc/inline || :
	    echo "\$x" >/etc/copied
	EOF
'

test_expect_success 'a folder becomes an image' '
	dir=$(image_of dir.yaml) && test -f "$dir/kernel" && test -f "$dir/vmlinux" && cmp elf "$dir/vmlinux" &&
	unsquashfs -lln "$dir/root.squashfs" >list &&
	grep -E "^-rw------- 0/0 .*/etc/inline$" list &&
	grep -E "^-rw-r----- 0/0 .*/opt/deep/er/file$" list &&
	grep -E "^-rwxr-x--- 5/6 .*/opt/tree/sub/f$" list && grep -E " 5/6 .*/opt/tree/sub/link -> f$" list &&
	grep -E "^drwxrwxrwt 0/0 .*/tmp$" list && ! grep leftover list && ! grep ssh_host list &&
	test "$(unsquashfs -cat "$dir/root.squashfs" etc/colour)" = blue &&
	test "$(unsquashfs -cat "$dir/root.squashfs" etc/copied)" = text &&
	test "$(unsquashfs -cat "$dir/root.squashfs" etc/hostname)" = vse
'

test_expect_success 'an unchanged input is found; rebuilt, it is the same byte for byte' '
	vse build --json dir.yaml >json && grep "\"cached\": true" json &&
	cp -r "$dir" first && vse image rm dir && test ! -e "$dir" &&
	vse build --json dir.yaml >json && grep "\"cached\": false" json && diff -r first "$dir"
'

test_expect_success 'a damaged image is built again: a short file when it is found, any by --rebuild' '
	: >"$dir/modules.cpio" && vse build --json dir.yaml >json && grep "\"cached\": false" json &&
	diff -r first "$dir" && rm "$dir/kernel" && vse build --json dir.yaml >json &&
	grep "\"cached\": false" json && diff -r first "$dir" && chmod u+w "$dir/root.squashfs" &&
	printf x | dd of="$dir/root.squashfs" bs=1 seek=2000 conv=notrunc && ! cmp first/root.squashfs "$dir/root.squashfs" &&
	vse build -q --rebuild dir.yaml && diff -r first "$dir"
'

test_expect_success 'a changed file of the folder, a changed source: another image' '
	a=$(vse build -q dir.yaml) && echo two >root/etc/file && b=$(vse build -q dir.yaml) &&
	echo other >hostfile && c=$(vse build -q dir.yaml) &&
	test "$a" != "$b" && test "$b" != "$c" && test "$a" != "$c" &&
	echo one >root/etc/file && test "$(vse build -q dir.yaml)" != "$a"
'

PATH=$PATH:/usr/sbin:/sbin
if command -v setcap >/dev/null && cp /bin/sh capable && setcap cap_net_raw+ep capable 2>/dev/null; then
	capable() { # FILE: the file capabilities of bin/capable in the image of this VSE
		dir=$(image_of "$1") && rm -rf out && unsquashfs -q -n -d out "$dir/root.squashfs" >/dev/null &&
			getcap out/bin/capable
	}
	test_expect_success 'file capabilities of a folder and of an archive stay' '
		make_root caproot && cp capable caproot/bin/ && setcap cap_net_raw+ep caproot/bin/capable &&
		make_vse capdir "dir:$PWD/caproot" </dev/null && capable capdir.yaml >have &&
		grep "cap_net_raw=ep" have &&
		tar -C caproot --xattrs --xattrs-include=security.capability -cf cap.tar . &&
		make_vse captar "tar:$PWD/cap.tar" </dev/null && capable captar.yaml >have && grep "cap_net_raw=ep" have
	'
	test_expect_success 'and make another image; built again it is the same byte for byte' '
		a=$(vse build -q capdir.yaml) && cp -r "$XDG_DATA_HOME/vse/images/$a" firstcap && vse image rm capdir &&
		test "$(vse build -q capdir.yaml)" = "$a" && diff -r firstcap "$XDG_DATA_HOME/vse/images/$a" &&
		setcap -r caproot/bin/capable && test "$(vse build -q capdir.yaml)" != "$a"
	'
fi

for z in "" gz xz zst bz2; do
	test_expect_success "a tar archive, compressed: ${z:-no}" '
		tar -C root --sort=name --owner=7 --group=42 --mtime=@1000000000 -caf "root.tar${z:+.$z}" . &&
		make_vse tarred "tar:$PWD/root.tar${z:+.$z}" </dev/null && dir=$(image_of tarred.yaml) &&
		unsquashfs -lln "$dir/root.squashfs" >list && grep -E " 7/42 .*/etc/file$" list &&
		echo "${dir##*/}" >>ids
	'
done
test_expect_success 'the same content has one identity however it is packed' '
	sort -u ids >unique && one_line unique
'

refused() { # WORDS: the build of bad.tar fails with one line that has them
	make_vse bad "tar:$PWD/bad.tar" </dev/null
	test_expect_code 1 vse build -q bad.yaml 2>err && cat err && one_line err && grep -e "$1" err &&
		store_is_clean
}
test_expect_success 'an archive that leaves its root is refused' '
	mkdir -p x/y && echo evil >evil && (cd x/y && tar -P -cf ../../bad.tar ../../evil) && refused "member ../../evil" &&
	tar -P -cf bad.tar "$PWD/evil" && refused "absolute" && test "$(cat evil)" = evil
'
test_expect_success 'a cut, a damaged and no archive are refused' '
	head -c 100000 root.tar >bad.tar && refused "cut off" &&
	head -c 20000 root.tar.gz >bad.tar && refused "gzip: " &&
	echo text >bad.tar && refused "not a tar archive" &&
	(mkdir -p nothing/here && tar -C nothing -cf bad.tar .) && refused "no root file system"
'
test_expect_success 'a link in a folder does not lead a file out of the root' '
	make_root evilroot && mkdir victim && ln -s "$PWD/victim" evilroot/opt && ln -s "$PWD/victim" evilroot/run &&
	make_vse evil "dir:$PWD/evilroot" <<-EOF &&
	files: [{path: /opt/x, content: out}]
	build: ["echo out >/run/y"]
	EOF
	{ vse build -q evil.yaml || :; } && test -z "$(ls victim)"
'

test_expect_success 'a folder goes into a link to a folder that the base has' '
	make_root linkroot && mkdir -p linkroot/opt linkroot/var/real && ln -s /var/real linkroot/opt/lib &&
	mkdir -p optsource/lib && echo through >optsource/lib/f &&
	make_vse linked "dir:$PWD/linkroot" <<-EOF &&
	files: [{path: /opt, source: $PWD/optsource}]
	EOF
	dir=$(image_of linked.yaml) && test "$(unsquashfs -cat "$dir/root.squashfs" var/real/f)" = through
'
test_expect_success 'what the VSE gives is kept where the rest is removed' '
	mkdir -p sshsource && echo key >sshsource/ssh_host_given && mkdir -p linkroot/etc/ssh &&
	: >linkroot/etc/ssh/ssh_host_base && make_vse kept "dir:$PWD/linkroot" <<-EOF &&
	files:
	  - {path: /etc/ssh/ssh_host_inline, content: key}
	  - {path: /etc/ssh, source: $PWD/sshsource}
	EOF
	dir=$(image_of kept.yaml) && unsquashfs -ll "$dir/root.squashfs" >list && grep "ssh_host_inline$" list &&
	grep "ssh_host_given$" list && ! grep ssh_host_base list
'
test_expect_success 'a step that makes /tmp and /var/tmp links empties nothing else' '
	cp /bin/ln /bin/rmdir linkroot/bin/ && make_vse tmplink "dir:$PWD/linkroot" <<-EOF &&
	build: ["rmdir /tmp && ln -s /etc /tmp && ln -s /opt /var/tmp"]
	EOF
	dir=$(image_of tmplink.yaml) && test "$(unsquashfs -cat "$dir/root.squashfs" etc/file)" = one &&
	unsquashfs -ll "$dir/root.squashfs" >list && grep "^drwxrwxrwt .*/tmp$" list && grep "/opt/lib ->" list
'
test_expect_success 'a pipe in the base or as a source is not waited for' '
	make_root piped && mkdir -p piped/var/lib/dpkg && mkfifo piped/var/lib/dpkg/status piped/bin/pipe &&
	make_vse piped "dir:$PWD/piped" </dev/null && timeout 120 vse build -q piped.yaml &&
	make_vse source "dir:$PWD/piped" <<-EOF &&
	files: [{path: /etc/x, source: $PWD/piped/bin/pipe}]
	EOF
	test_must_fail timeout 120 vse build -q source.yaml 2>err && cat err && grep "pipe" err
'

test_expect_success 'a failing step: its number, text, exit code and last words' '
	make_vse step "dir:$PWD/root" <<-EOF &&
	build:
	  - "true"
	  - "echo last words >&2; exit 7"
	EOF
	test_expect_code 1 vse build -q step.yaml 2>err && one_line err &&
	grep "build step 2 (echo last words.*): exit 7: last words" err && store_is_clean
'
test_expect_success 'what a step leaves running is ended' '
	make_vse daemon "dir:$PWD/root" <<-EOF &&
	build: ["while :; do :; done & echo started"]
	EOF
	vse build -q daemon.yaml && wait_for 5 store_is_clean
'
test_expect_success 'two builds of one input at once: one works, both have it' '
	make_vse twin "dir:$PWD/root" <<-EOF &&
	build: ["n=0; while [ \$n -lt 300000 ]; do n=\$((n+1)); done"]
	EOF
	{ vse build --json twin.yaml >a & } && vse build --json twin.yaml >b && wait $! &&
	cat a b | grep -c "\"cached\": false" >n && echo 1 | test_cmp - n &&
	grep "\"id\"" a >ida && grep "\"id\"" b >idb && test_cmp ida idb
'
test_expect_success 'images are listed, shown, removed and collected' '
	vse images >list && grep "^twin  *[0-9a-f]* " list && vse images --json >json && grep "\"name\": \"twin\"" json &&
	vse image show twin | grep "^name  *twin" && vse image show --json twin | grep "\"order\"" &&
	test_expect_code 1 vse image show nosuch && vse image rm twin daemon && vse images >list && ! grep twin list &&
	vse image gc --keep 0 | grep "^freed " && store_is_clean
'
# Other modules and other repositories of the host, in a mount namespace of its own.
[ "$(id -u)" = 0 ] && unshare -m true 2>/dev/null && test_set_prereq ROOT_MOUNTS
with_modules() { # COMMAND...
	mkdir -p real shadow/modules
	for f in /usr/lib/*; do
		[ "$f" = /usr/lib/modules ] || ln -sfn "$PWD/real/${f##*/}" "shadow/${f##*/}"
	done
	# shellcheck disable=SC2016
	unshare -m sh -c 'mount --bind /usr/lib real && mount --bind shadow /usr/lib && exec "$@"' sh "$@"
}
make_modules() { # FOLDER
	mkdir -p "$1" && : >"$1/modules.order" &&
		printf 'kernel/%s.ko\n' virtio_console virtio_blk virtio_net squashfs overlay >"$1/modules.builtin"
}
test_expect_success ROOT_MOUNTS 'the modules of this host count for a kernel that is a file' '
	cp kernel vkernel && poke vkernel 526 "\200\0" && poke vkernel 640 "9.9-own \0" &&
	printf "vse: 1\nname: hostmods\nbase: dir:%s\nkernel: %s\n" "$PWD/root" "$PWD/vkernel" >hostmods.yaml &&
	make_modules shadow/modules/9.9-own &&
	with_modules vse build --json hostmods.yaml >json && grep "\"cached\": false" json &&
	with_modules vse build --json hostmods.yaml >json && grep "\"cached\": true" json &&
	echo more >shadow/modules/9.9-own/modules.order &&
	with_modules vse build --json hostmods.yaml >json && grep "\"cached\": false" json
'
test_expect_success ROOT_MOUNTS 'the repositories of this host count where a kernel may come from them' '
	cp -r root booted && mkdir -p booted/boot && make_modules booted/lib/modules/9.9-own && cp kernel booted/boot/vmlinuz-9.9-own &&
	printf "vse: 1\nname: booted\nbase: dir:%s\n" "$PWD/booted" >booted.yaml &&
	suite=$(. /etc/os-release && echo "$VERSION_CODENAME") &&
	mkdir apt && echo "deb http://localhost:1/a $suite main" >apt/sources.list &&
	in_apt="mount --bind apt /etc/apt && vse build --json booted.yaml" &&
	unshare -m sh -c "$in_apt" >json && grep "\"cached\": false" json &&
	unshare -m sh -c "$in_apt" >json && grep "\"cached\": true" json &&
	echo "deb http://localhost:1/b $suite main" >apt/sources.list &&
	unshare -m sh -c "$in_apt" >json && grep "\"cached\": false" json
'
# An ordinary user with subordinate ids, in a folder of his own that is /mnt to him.
[ "$(id -u)" = 0 ] && unshare -m true 2>/dev/null && command -v setpriv >/dev/null &&
	command -v newuidmap >/dev/null &&
	test -e /etc/subuid && test -e /etc/subgid && test -d /mnt && test_set_prereq USER
as_user() { # SCRIPT
	cat >user/script
	# shellcheck disable=SC2016
	unshare -m sh -c '
		for f in passwd group subuid subgid; do mount --bind "user/etc/$f" "/etc/$f" || exit 1; done
		mount --bind user /mnt && cd /mnt && exec setpriv --reuid 54321 --regid 54321 --clear-groups env -i \
			PATH="/mnt:$PATH" HOME=/mnt XDG_DATA_HOME=/mnt/data XDG_RUNTIME_DIR=/mnt/run sh -e ./script'
}
test_expect_success USER 'a change where only subordinate ids may look is seen' '
	mkdir -p user/etc user/run && cp -r root user/root && cp kernel user/ &&
	cp "$(command -v vse)" "$(command -v vse-guest)" user/ &&
	for f in passwd group; do cp /etc/$f user/etc/ || return 1; done &&
	echo "tester:x:54321:54321::/nonexistent:/bin/sh" >>user/etc/passwd && echo "tester:x:54321:" >>user/etc/group &&
	echo "tester:700000:65536" | tee user/etc/subuid >user/etc/subgid &&
	printf "vse: 1\nname: closed\nbase: dir:%s\nkernel: %s\n" /mnt/root /mnt/kernel >user/closed.yaml &&
	chown -R 54321:54321 user && chmod 700 user/run &&
	mkdir user/root/secret && echo one >user/root/secret/file && chown -R 700041:700041 user/root/secret &&
	chmod 700 user/root/secret && as_user <<-\EOF &&
	! ls root/secret
	vse build --json closed.yaml >json && grep "\"cached\": false" json
	vse build --json closed.yaml >json && grep "\"cached\": true" json
	EOF
	echo two >user/root/secret/file && as_user <<-\EOF
	vse build --json closed.yaml >json && grep "\"cached\": false" json
	test -z "$(ls data/vse/tmp)"
	EOF
'
test_expect_success 'a site image is found, shown and used without a home to write to' '
	id=$(vse build -q dir.yaml) && : >nohome &&
	(
		export VSE_SITE_STORE="$XDG_DATA_HOME/vse" XDG_DATA_HOME="$PWD/nohome/data" &&
		vse images >list && grep "^dir " list && vse image show dir >/dev/null &&
		test "$(vse build -q dir.yaml)" = "$id" &&
		vse build --json dir.yaml >json && grep "\"initrd\": \"$XDG_RUNTIME_DIR/vse/.initrd/" json &&
		test_must_fail vse build --rebuild dir.yaml 2>err && one_line err && grep XDG_DATA_HOME err
	) && rm -r "$XDG_RUNTIME_DIR/vse/.initrd"
'
test_nothing_left
test_done
