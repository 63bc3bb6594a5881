# SPDX-License-Identifier: Apache-2.0
# The house's layers (docs/design.md, section 2), from the includes. Run in the tree's top folder over src/.
# Prints "file:line: what is wrong".
BEGIN {
	allow("base", "")
	allow("io", "base")
	allow("wire", "base io")
	allow("spec", "base io wire")
	n = split("image overlay launcher hypervisor net stage", sibling)
	for (i = 1; i <= n; i++)
		allow(sibling[i], "base io wire spec")
	vm = "base io wire spec image overlay launcher hypervisor net stage"
	allow("vm", vm)
	allow("cluster", vm " vm")
	allow("agent", vm " vm cluster")
	allow("client", "base io wire spec image launcher")
	allow("commands", "base io wire spec image launcher client")
	allow("guest", "base wire")
	allow("main.c", "base commands")
	allow("agentd.c", vm " vm cluster agent")
	# Libraries that only one room knows.
	only["uv.h"] = "io"
	only["yaml.h"] = "spec"
}

function allow(room, rooms,    words, n, i) {
	known[room] = 1
	n = split(rooms, words)
	for (i = 1; i <= n; i++)
		may[room, words[i]] = 1
}

FNR == 1 {
	split(FILENAME, part, "/")
	room = part[2]
	if (!(room in known))
		printf "%s:1: %s is no room of the house\n", FILENAME, room
}

/^[ \t]*#[ \t]*include[ \t]*"/ {
	split($0, quoted, "\"")
	n = split(quoted[2], path, "/")
	target = path[1]
	if (n == 1 && target == "vse.h")
		next # the public header of libvse
	if (n == 1)
		printf "%s:%d: \"%s\": write it as \"room/file.h\"\n", FILENAME, FNR, quoted[2]
	else if (target != room && !((room, target) in may))
		printf "%s:%d: %s may not include %s\n", FILENAME, FNR, room, target
}

/^[ \t]*#[ \t]*include[ \t]*</ {
	split($0, angle, /[<>]/)
	if (angle[2] in only && only[angle[2]] != room)
		printf "%s:%d: only %s knows <%s>\n", FILENAME, FNR, only[angle[2]], angle[2]
	if (room == "guest" && angle[2] ~ /^(jansson|uv|yaml|zstd|xxhash|openssl\/.*)(\.h)?$/)
		printf "%s:%d: the guest links nothing but libc, not <%s>\n", FILENAME, FNR, angle[2]
}
