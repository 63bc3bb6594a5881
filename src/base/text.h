/* SPDX-License-Identifier: Apache-2.0 */
/* Text that came from elsewhere: a guest, a file name, a command line. */
#ifndef VSE_BASE_TEXT_H
#define VSE_BASE_TEXT_H

#include <stdbool.h>

/* Well-formed UTF-8 as RFC 3629 has it: no overlong form, no surrogate, nothing beyond U+10FFFF. */
bool text_is_utf8(const char *s);
/* Makes s, in place, UTF-8 that a terminal only shows: a byte that is part of no character and each byte of a control
 * character (C0, DEL, C1) becomes '?', white space other than a blank becomes a blank. The length stays. */
void text_clean(char *s);
/* A clean copy, malloc'ed; of NULL "". */
char *text_cleaned(const char *s);

#endif
