/* SPDX-License-Identifier: Apache-2.0 */
/* TLS 1.3 between the agents of one cluster. Both ends prove that they hold the cluster's secret (an external
 * pre-shared key, RFC 8446 section 4.2.11) and agree on fresh keys (psk_dhe_ke, X25519): who learns the secret later
 * cannot read what was recorded before. There are no certificates, tickets, early data or older versions.
 *
 * The secret tells members of the cluster from strangers. It does not tell one member from another: the first frame
 * on a link names its sender and whom it is meant for, and the receiver checks that (RFC 9257, section 4.1).
 *
 * Needs libssl: programs link tls_dep, not only io_dep. */
#ifndef VSE_IO_TLS_H
#define VSE_IO_TLS_H

#include "io/stream.h"

#define TLS_SECRET_SIZE 32     /* bytes; from a cryptographic random source */
#define TLS_IDENTITY_MAX 64    /* bytes */
#define TLS_HELLO_MAX 8192u    /* bytes a peer may send before it is authenticated */
#define TLS_HANDSHAKE_MS 10000 /* until a handshake counts as failed */

struct tls_context;

/* One for all links of a process. `secret` and `identity` ("vse:<cluster>"; travels in the clear) are copied; the
 * caller wipes its own copy. The secret is kept out of core dumps and swap where the system allows it. EINVAL: the
 * identity is empty or too long; ENOMEM, EIO: libssl cannot be set up (the text says why).
 * Each context is one party: it refuses a link that leads back to itself. Tests with both ends in one process make
 * two. */
struct tls_context *tls_context_create(const uint8_t secret[TLS_SECRET_SIZE], const char *identity,
				       struct err *err);
/* After every stream that was made with it; wipes the secret. NULL is fine. */
void tls_context_destroy(struct tls_context *t);
void tls_context_set_timeout(struct tls_context *t, uint64_t handshake_ms); /* for later streams */

/* Why a peer was refused or cut off; the codes are those that on_close() of the stream gets. */
#define TLS_REFUSALS(X)                                                                            \
	X(SECRET, secret, EACCES, "it does not hold the cluster's secret")                         \
	X(IDENTITY, identity, EACCES, "it belongs to another cluster")                             \
	X(REFUSED, refused, EACCES, "it refused us: other secret, other cluster, or no agent")     \
	X(REFLECTED, reflected, ELOOP, "the link leads back to this agent")                        \
	X(PLAIN, plain, EPROTO, "it does not speak TLS")                                           \
	X(VERSION, version, EPROTO, "it offers no TLS 1.3")                                        \
	X(MALFORMED, malformed, EPROTO, "what it sent is no valid TLS")                            \
	X(OVERSIZE, oversize, EMSGSIZE,                                                            \
	  "it sent an oversized record, or too much before it was authenticated")                  \
	X(CORRUPT, corrupt, EBADMSG, "a record was forged, corrupted or replayed")                 \
	X(TIMEOUT, timeout, ETIMEDOUT, "it did not finish the handshake in time")                  \
	X(ABANDONED, abandoned, ECONNABORTED, "it left during the handshake")                      \
	X(TRUNCATED, truncated, ECONNABORTED,                                                      \
	  "the connection was cut off: it ended without TLS's closing record")                     \
	X(CROWDED, crowded, EBUSY, "too many unauthenticated connections: it gave way to others")

enum tls_refusal {
#define TLS_REFUSAL_ENUM(tag, name, code, text) TLS_REFUSED_##tag,
	TLS_REFUSALS(TLS_REFUSAL_ENUM)
#undef TLS_REFUSAL_ENUM
		TLS_REFUSAL_COUNT,
};

struct tls_stats {
	uint64_t handshakes; /* that succeeded */
	uint64_t refused[TLS_REFUSAL_COUNT];
};

void tls_context_stats(const struct tls_context *t, struct tls_stats *ret);
const char *tls_refusal_name(enum tls_refusal r); /* "secret", "truncated"... */

/* A stream (io/stream.h) with TLS inside. Users do not see it, but for this:
 * - What is written before the handshake has succeeded waits in the queue; on_data() only sees bytes of an
 *   authenticated peer. ops->on_open, if there, runs once the peer is authenticated.
 * - on_close() with code 0 means that the peer closed properly (TLS's closing record: stream_end(), or
 *   stream_destroy() with an empty queue). Everything else, a connection that just ends too, is an error of the
 *   table above, or that of the socket. Its text is one line for the log and does not name the peer.
 * - stream_queued() counts the encrypted bytes too; at most 64 KiB + one record of them exist.
 * The client is who has connected. `fd` is taken; `t` is borrowed. */
enum tls_role { TLS_CLIENT, TLS_SERVER };
struct stream *stream_create_tls(struct loop *l, int fd, struct tls_context *t, enum tls_role role,
				 const struct stream_ops *ops, void *arg, struct err *err);

#endif
