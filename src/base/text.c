/* SPDX-License-Identifier: Apache-2.0 */
#include "base/text.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/alloc.h"

/* The bytes of the character at s, which is not NUL; 0: there is none. */
static size_t character(const unsigned char *s, uint32_t *ret)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	size_t n = *s < 0x80 ? 1 : *s >> 5 == 6 ? 2 : *s >> 4 == 14 ? 3 : *s >> 3 == 30 ? 4 : 0;
	if (!n)
		return 0;
	uint32_t c = n == 1 ? *s : *s & (0x7fu >> n);
	for (size_t i = 1; i < n; i++) { /* a NUL is no such byte: it goes never past the end */
		if (s[i] >> 6 != 2)
			return 0;
		c = c << 6 | (s[i] & 0x3f);
	}
	if (c < least[n] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
		return 0;
	*ret = c;
	return n;
}

bool text_is_utf8(const char *text)
{
	uint32_t c;
	size_t n;
	for (const unsigned char *s = (const unsigned char *)text; *s; s += n)
		if (!(n = character(s, &c)))
			return false;
	return true;
}

void text_clean(char *text)
{
	uint32_t c;
	size_t n;
	for (unsigned char *s = (unsigned char *)text; *s; s += n) {
		n = character(s, &c);
		if (n == 1 && c >= '\t' && c <= '\r')
			*s = ' ';
		else if (n && (c < 0x20 || (c >= 0x7f && c < 0xa0)))
			memset(s, '?', n);
		else if (!n)
			*s = '?';
		n = n ? n : 1;
	}
}

char *text_cleaned(const char *s)
{
	char *copy = xstrdup(s ? s : "");
	text_clean(copy);
	return copy;
}
