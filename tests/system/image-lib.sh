# shellcheck shell=sh
# SPDX-License-Identifier: Apache-2.0
# Small inputs for the image tests: built in a fraction of a second, with no network.

# A file that is a bzImage to its reader (boot protocol 2.15, set-up of one sector) and holds an ELF file with a
# PVH note, and nothing that would run.
make_kernel() { # FILE
	{
		printf '\177ELF\002\001\001' && head -c 25 /dev/zero &&
			printf '\100\0\0\0\0\0\0\0' && head -c 14 /dev/zero &&
			printf '\070\0\001\0' && head -c 6 /dev/zero &&
			printf '\004\0\0\0\0\0\0\0\170\0\0\0\0\0\0\0' && head -c 16 /dev/zero &&
			printf '\024\0\0\0\0\0\0\0' && head -c 16 /dev/zero &&
			printf '\004\0\0\0\004\0\0\0\022\0\0\0Xen\0\0\0\020\0'
	} >elf
	gzip -nc elf >payload
	len=$(wc -c <payload)
	head -c 1024 /dev/zero >"$1"
	poke "$1" 497 '\001'
	poke "$1" 514 'HdrS\017\002'
	poke "$1" 588 "\\$(printf %03o $((len % 256)))\\$(printf %03o $((len / 256)))"
	cat payload >>"$1"
}
poke() { # FILE OFFSET BYTES
	# shellcheck disable=SC2059
	printf "$3" | dd of="$1" bs=1 seek="$2" conv=notrunc 2>/dev/null
}

# A root file system with a shell and nothing else.
make_root() { # FOLDER
	mkdir -p "$1/bin" "$1/etc" &&
		cp /bin/sh "$1/bin/sh" &&
		ldd /bin/sh | grep -o '/[^ ]*' | while read -r lib; do
			mkdir -p "$1${lib%/*}" && cp "$lib" "$1$lib" || exit 1
		done &&
		echo one >"$1/etc/file"
}

# A VSE file of NAME from BASE (a line of YAML); more lines on stdin.
make_vse() { # NAME BASE
	printf 'vse: 1\nname: %s\nbase: %s\nkernel: %s\n' "$1" "$2" "$PWD/kernel" >"$1.yaml"
	cat >>"$1.yaml"
}

image_of() { # FILE
	id=$(vse build -q "$1") && echo "$XDG_DATA_HOME/vse/images/$id"
}

one_line() { # FILE
	[ "$(wc -l <"$1")" -eq 1 ]
}

# Can this user build at all? Otherwise the test is of no use here.
need_builder() {
	if [ "$(id -u)" != 0 ] && ! unshare --map-auto --map-root-user true 2>/dev/null; then
		skip_all='needs root, or user namespaces and subordinate ids'
		test_done
	fi
}

# What must be gone within 5 s of any end of a build.
store_is_clean() {
	[ -z "$(ls "$XDG_DATA_HOME/vse/tmp")" ] && ! grep -q "$XDG_DATA_HOME" /proc/self/mounts && nothing_left
}
