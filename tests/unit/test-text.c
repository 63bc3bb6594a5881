/* SPDX-License-Identifier: Apache-2.0 */
/* Text from elsewhere: what is UTF-8, and what a terminal is shown of it. */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/text.h"
#include "tap.h"

static const struct {
	const char *what, *text, *clean;
	bool utf8;
} cases[] = {
	{"nothing", "", "", true},
	{"ASCII", "vm0: it works", "vm0: it works", true},
	{"two, three and four bytes", "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80",
	 "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", true},
	{"the last character", "\xf4\x8f\xbf\xbf", "\xf4\x8f\xbf\xbf", true},
	{"one beyond it", "\xf4\x90\x80\x80", "????", false},
	{"a byte of no character",
	 "a\xff"
	 "b",
	 "a?b", false},
	{"a stray continuation",
	 "a\x80"
	 "b",
	 "a?b", false},
	{"a character cut at the end", "gr\xc3", "gr?", false},
	{"one of three bytes cut at the end", "5 \xe2\x82", "5 ??", false},
	{"one cut in the middle", "\xe2\x82 x", "?? x", false},
	{"an overlong slash", "\xc0\xaf", "??", false},
	{"an overlong of three bytes", "\xe0\x80\xaf", "???", false},
	{"a surrogate", "\xed\xa0\x80", "???", false},
	{"an escape sequence", "\x1b[2Jx", "?[2Jx", true},
	{"an operating system command", "\x1b]0;x\x07y", "?]0;x?y", true},
	{"C1 controls",
	 "a\xc2\x9b"
	 "1mb",
	 "a??1mb", true},
	{"DEL", "a\x7f", "a?", true},
	{"white space", "a\tb\nc\r", "a b c ", true},
	{"a no-break space",
	 "a\xc2\xa0"
	 "b",
	 "a\xc2\xa0"
	 "b",
	 true},
};

int main(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_free_ char *clean = text_cleaned(cases[i].text);
		ok(text_is_utf8(cases[i].text) == cases[i].utf8, "%s: %s UTF-8", cases[i].what,
		   cases[i].utf8 ? "is" : "is not");
		is_str(clean, cases[i].clean, "%s: made clean", cases[i].what);
		ok(text_is_utf8(clean), "%s: which is UTF-8", cases[i].what);
	}
	_cleanup_free_ char *none = text_cleaned(NULL);
	is_str(none, "", "no text is an empty one");
	return done();
}
