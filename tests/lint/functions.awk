# SPDX-License-Identifier: Apache-2.0
# Lengths, from C in the house's style (a function's braces stand in the first column).
# -v max_file=N -v max_function=N; prints "file:line: ... N lines".
FNR == 1 {
	if (previous != "" && last > max_file)
		printf "%s:1: file of %d lines\n", previous, last
	previous = FILENAME
	header = ""
	inside = 0
}

{ last = FNR }

/^[a-z].*\(/ && !inside { header = $0 }

/^\{$/ {
	inside = 1
	start = FNR
}

/^\}$/ && inside {
	inside = 0
	if (FNR - start - 1 > max_function) {
		name = header
		sub(/\(.*/, "", name)
		sub(/.*[ *]/, "", name)
		printf "%s:%d: %s(): function of %d lines\n", FILENAME, start, name, FNR - start - 1
	}
}

END {
	if (last > max_file)
		printf "%s:1: file of %d lines\n", previous, last
}
