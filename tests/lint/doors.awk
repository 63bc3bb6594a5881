# SPDX-License-Identifier: Apache-2.0
# Who may do what, beyond the includes: ops are called in one place, libraries do not print or exit, nothing
# goes through a shell. Over src/*/*.c and src/*.c; prints "file:line: what is wrong".
FNR == 1 {
	split(FILENAME, part, "/")
	room = part[2]
	file = part[3]
	front = room == "commands" || room == "main.c" || room == "agentd.c" || room == "guest"
	in_comment = 0
}

{
	line = $0
	gsub(/"([^"\\]|\\.)*"/, "\"\"", line)
	gsub(/\/\*.*\*\//, "", line)
	if (in_comment) {
		if (!sub(/^.*\*\//, "", line))
			next
		in_comment = 0
	}
	if (sub(/\/\*.*/, "", line))
		in_comment = 1
}

function wrong(what) {
	printf "%s:%d: %s\n", FILENAME, FNR, what
}

line ~ /(^|[^a-zA-Z_])(h|hv|hypervisor|ops)->(probe|start|stop|pause|resume|reset|stats|release)\(/ \
&& !(room == "hypervisor" && file == "hypervisor.c") && room != "launcher" {
	wrong("only hypervisor.c calls hypervisor ops")
}

line ~ /(^|[^a-zA-Z_])(l|launcher|ops)->(inside_job|nodes|launch|cancel)\(/ && !(room == "launcher" && file == "launcher.c") {
	wrong("only launcher.c calls launcher ops")
}

line ~ /(^|[^a-zA-Z_])qmp_[a-z_]+\(/ && !(room == "hypervisor" && file ~ /^qemu/) {
	wrong("only qemu*.c knows QMP")
}

!front && line ~ /(^|[^a-zA-Z_])(printf|puts|putchar|perror|vprintf)\(|fprintf\(std(out|err)/ \
&& !(room == "base" && file == "log.c") {
	wrong("library code does not print")
}

!front && line ~ /(^|[^a-zA-Z_])exit\(/ {
	wrong("library code does not exit")
}

line ~ /(^|[^a-zA-Z_])(system|popen)\(/ {
	wrong("programs are run with an argv, never through a shell")
}

# strcpy of a literal is bounded by what the compiler sees.
line ~ /(^|[^a-zA-Z_])(strcat|sprintf|gets|vsprintf|strtok|mktemp|tmpnam)\(/ || \
(line ~ /(^|[^a-zA-Z_])strcpy\(/ && line !~ /strcpy\([^"]*, ""\)/) {
	wrong("unbounded or unsafe call")
}
