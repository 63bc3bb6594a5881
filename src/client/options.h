/* SPDX-License-Identifier: Apache-2.0 */
/* The options of libvse by key: one table says which there are, of what kind, and for which call.
 *
 * To add one: a row in the table of options.c, a line in man/libvse.3.scd, and whoever reads it. */
#ifndef VSE_CLIENT_OPTIONS_H
#define VSE_CLIENT_OPTIONS_H

#include "client/library.h"

enum { FOR_UP = 1, FOR_EXEC = 2, FOR_FOLLOW = 4, FOR_NODES = 8 };

/* There is such a key for one of these calls. */
bool option_known(const char *key, int calls);
/* Every key that is set is one for this call; else -EINVAL. o NULL: fine. */
int options_check(const struct vse_options *o, int call, struct vse_error *e);

/* All take o == NULL as nothing set. The values were checked when they were set. */
const char *options_text(const struct vse_options *o, const char *key); /* the last, or NULL */
const struct strvec *options_all(const struct vse_options *o, const char *key); /* never NULL */
int64_t options_int(const struct vse_options *o, const char *key, int64_t otherwise);
uint64_t options_size(const struct vse_options *o, const char *key, uint64_t otherwise); /* bytes */
uint64_t options_ms(const struct vse_options *o, const char *key, uint64_t otherwise);
bool options_flag(const struct vse_options *o, const char *key);

#endif
