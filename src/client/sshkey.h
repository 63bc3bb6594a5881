/* SPDX-License-Identifier: Apache-2.0 */
/* A key pair for one cluster, made in memory: ECDSA P-256, since its private key has a form that every OpenSSH
 * reads and OpenSSL writes (SEC1 PEM, RFC 5915), while Ed25519 would need OpenSSH's own format. */
#ifndef VSE_CLIENT_SSHKEY_H
#define VSE_CLIENT_SSHKEY_H

#include "base/err.h"

/* *ret_private: PEM. *ret_public: one line as in authorized_keys (RFC 5656). Both malloc'ed. */
int sshkey_make(const char *comment, char **ret_private, char **ret_public, struct err *err);

#endif
