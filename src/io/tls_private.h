/* SPDX-License-Identifier: Apache-2.0 */
/* What only io/ and the tests do with a TLS context. */
#ifndef VSE_IO_TLS_PRIVATE_H
#define VSE_IO_TLS_PRIVATE_H

#include "io/tls.h"

/* Counts and says it; always -1. */
int tls_refuse(struct tls_context *t, enum tls_refusal r, struct err *err);
/* Keys are changed after so many bytes; before what libssl is asked to write next. */
void tls_context_set_rekey(struct tls_context *t, uint64_t bytes);

#endif
