/* SPDX-License-Identifier: Apache-2.0 */
#include "launcher/ssh_script.h"

#include <ctype.h>
#include <inttypes.h>
#include <string.h>
#include <sys/utsname.h>

#include "base/alloc.h"
#include "base/buf.h"

/* Between single quotes for the login shell: so no single quote in it, no newline and no exclamation mark (csh), no
 * backslash (fish). Words are in double quotes, which the sh of the node reads. */
static const char script[] =
	/* may it be kept, mark, processor, path; size, sha256 and cksum of the file there; the same of what would be
	   sent */
	"h=$1; shift; m=$1 u=$2 p=$3 f=$4 F=$5 g=$6 n=$7 N=$8 k=$9; shift 9; "
	"b() { echo \"$m fail $*\"; exit 1; }; "
	/* Is file $1 of size $2, sha256 $3, cksum $4? */
	"q() { [ $(wc -c <\"$1\") -eq \"$2\" ] || return 1; "
	"if command -v sha256sum >/dev/null 2>&1; then set -- \"$3\" $(sha256sum <\"$1\"); "
	"else set -- \"$4\" $(cksum <\"$1\"); fi; [ \"$1\" = \"$2\" ]; }; "
	"a=$(uname -m); [ \"$a\" = \"$u\" ] || b \"its processor is $a, the agent is for $u\"; "
	/* The one that an earlier launch left in the cache. Folders are looked at once each, and are no links: nobody
	   else can write to ours, nor put another in its place where the one above it is ours or sticky. */
	"U() { [ \"$(find \"$@\" 2>/dev/null)\" ]; }; "
	"if [ \"$h\" = 1 ]; then i=$(id -u); case ${VSE_CACHE:-} in /*) C=$VSE_CACHE;; *) "
	"C=/var/tmp/vse-cache-$i; "
	"[ -d \"$C\" ] || mkdir -m 700 \"$C\" 2>/dev/null;; esac; "
	"U \"$C\" -prune -type d \"(\" -user $i \"(\" -perm 700 -o -perm 755 \")\" -o -user 0 "
	"-perm -1000 \")\" || h=0; "
	"C=$C/$i A=$C/vse-agent-$N; if [ $h = 1 ] && U \"$C\" -prune -type d -user $i -perm 700 && "
	"[ -x \"$A\" ] && "
	"[ \"$(cksum <\"$A\")\" = \"$k $n\" ]; then echo \"$m run\"; exec \"$A\" \"$@\"; fi; fi; "
	"if [ -f \"$p\" ] && [ -x \"$p\" ] && q \"$p\" \"$f\" \"$F\" \"$g\"; then echo \"$m run\"; "
	"exec \"$p\" \"$@\"; fi; "
	"[ \"$n\" -gt 0 ] || b \"it has no such agent at $p\"; "
	"umask 077; d=; z() { [ -z \"$d\" ] || rm -rf \"$d\"; }; trap z EXIT; trap \"exit 1\" HUP "
	"INT TERM; "
	/* test -x knows of file systems mounted noexec */
	"for t in \"${TMPDIR:-/tmp}\" /tmp /dev/shm /var/tmp \"$HOME\"; do "
	"d=$(mktemp -d \"$t/vse-XXXXXXXXXX\" 2>/dev/null) || continue; "
	"true >\"$d/a\" && chmod 700 \"$d/a\" && [ -x \"$d/a\" ] && break; rm -rf \"$d\"; d=; "
	"done; "
	"[ -n \"$d\" ] || b \"it has no folder from which a program may run\"; "
	"exec 8>\"$d/a\" 9<\"$d/a\"; rm -rf \"$d\"; d=; w=/proc/self/fd/9; "
	/* Packed, it carries a checksum that zstd looks at: ssh has seen to it that nobody changed it on the way. */
	"if command -v zstd >/dev/null 2>&1; then echo \"$m pack\"; read z; "
	"head -c \"$z\" | zstd -qdc >&8 && [ $(wc -c <$w) -eq \"$n\" ]; "
	"else echo \"$m send\"; head -c \"$n\" >&8 && q $w \"$n\" \"$N\" \"$k\"; fi || "
	"b \"the agent did not arrive whole\"; exec 8>&-; "
	/* Kept for the next launch, in the place of the one before it; if that fails nothing is lost. */
	"[ \"$h\" = 0 ] || { T=$C/vse-agent-$m.$$; { [ -d \"$C\" ] || mkdir -m 700 \"$C\"; } && "
	"U \"$C\" -prune -type d -user $i -perm 700 && rm -f \"$C\"/vse-agent-* && cp $w \"$T\" && "
	"chmod 700 \"$T\" && mv -f \"$T\" \"$A\" || rm -f \"$T\"; } 2>/dev/null; "
	"echo \"$m run\"; exec /proc/self/fd/9 \"$@\"";

bool ssh_script_safe(const char *word)
{
	for (size_t i = 0; word[i]; i++)
		if (!isalnum((unsigned char)word[i]) && !strchr("_/.=:,+@%-", word[i]))
			return false;
	return word[0] != '\0';
}

static void add_digest(struct buf *b, const struct digest *d)
{
	buf_addf(b, " %zu %s %" PRIu32, d->size, d->sha256, d->cksum);
}

char *ssh_script(const char *mark, const char *shared, bool stage, bool keep,
		 const struct payload *p, char *const *args, size_t n_args)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct utsname u = {0};
	bool known = uname(&u) == 0 && ssh_script_safe(u.machine);
	buf_addf(&b, "exec sh -c '%s' vse %d %s %s %s", script, stage && keep, mark,
		 known ? u.machine : "unknown", shared && ssh_script_safe(shared) ? shared : "-");
	add_digest(&b, &p->whole);
	if (stage)
		add_digest(&b, &p->sent);
	else
		buf_adds(&b, " 0 - 0");
	for (size_t i = 0; i < n_args; i++)
		buf_addf(&b, " %s", args[i]);
	return buf_take(&b);
}
