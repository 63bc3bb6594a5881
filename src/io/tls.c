/* SPDX-License-Identifier: Apache-2.0 */
#include "io/tls.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>

#include <openssl/err.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>

#include "base/alloc.h"
#include "io/layer.h"
#include "io/tls_private.h"

#define NONCE_SIZE 16 /* bytes; tells a context's own hellos from others' */
#define IDENTITY_SIZE (TLS_IDENTITY_MAX + 1 + 2 * NONCE_SIZE + 1)
/* AES-GCM may protect 2^24.5 full records under one key (RFC 8446, section 5.5). */
#define REKEY_BYTES (16ull << 30)

struct tls_context {
	SSL_CTX *ssl;
	BIO_METHOD *bio;
	uint8_t *secret; /* a page of its own */
	/* "vse:<cluster>:<nonce>": what this context's hellos say. */
	char identity[IDENTITY_SIZE];
	size_t prefix; /* bytes up to and with the second ':' */
	uint64_t handshake_ms;
	uint64_t rekey_bytes;
	struct tls_stats stats;
	char *scratch;
};

struct tls_layer {
	struct layer layer;
	struct tls_context *tls;
	enum tls_role role;
	SSL *ssl;
	struct stream *stream;
	struct evtimer *timer; /* during the handshake */
	/* What libssl reads from and writes to, while it runs. */
	const char *in;
	size_t n_in;
	struct buf *wire;
	size_t before; /* bytes read before the peer was authenticated */
	uint64_t sent; /* since the key was made */
	int refusal;   /* that a callback of libssl has found, or -1 */
};

static const struct {
	const char *name;
	int code;
	const char *text;
} refusals[] = {
#define TLS_REFUSAL_ROW(tag, name, code, text) {#name, code, text},
	TLS_REFUSALS(TLS_REFUSAL_ROW)
#undef TLS_REFUSAL_ROW
};

/* ---- counting ---- */

const char *tls_refusal_name(enum tls_refusal r)
{
	return refusals[r].name;
}

void tls_context_stats(const struct tls_context *t, struct tls_stats *ret)
{
	*ret = t->stats;
}

int tls_refuse(struct tls_context *t, enum tls_refusal r, struct err *err)
{
	t->stats.refused[r]++;
	return err_set(err, refusals[r].code, "TLS: %s", refusals[r].text);
}

/* ---- libssl's ends: bytes in memory ---- */

static int bio_read(BIO *b, char *p, size_t n, size_t *ret)
{
	struct tls_layer *y = BIO_get_data(b);
	BIO_clear_retry_flags(b);
	if (!y->layer.open && y->before >= TLS_HELLO_MAX) {
		y->refusal = TLS_REFUSED_OVERSIZE;
		return 0;
	}
	if (!y->n_in) {
		BIO_set_retry_read(b);
		return 0;
	}
	n = MIN(n, y->n_in);
	memcpy(p, y->in, n);
	y->in += n;
	y->n_in -= n;
	y->before += y->layer.open ? 0 : n;
	*ret = n;
	return 1;
}

static int bio_write(BIO *b, const char *p, size_t n, size_t *ret)
{
	struct tls_layer *y = BIO_get_data(b);
	buf_add(y->wire, p, n);
	*ret = n;
	return 1;
}

static long bio_ctrl(BIO *b _unused_, int cmd, long n _unused_, void *p _unused_)
{
	return cmd == BIO_CTRL_FLUSH;
}

static BIO_METHOD *bio_method(void)
{
	BIO_METHOD *m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "stream");
	if (!m)
		return NULL;
	BIO_meth_set_read_ex(m, bio_read);
	BIO_meth_set_write_ex(m, bio_write);
	BIO_meth_set_ctrl(m, bio_ctrl);
	return m;
}

/* ---- the shared key ---- */

static SSL_SESSION *make_psk(SSL *ssl)
{
	static const unsigned char aes_128_gcm_sha256[] = {0x13, 0x01}; /* only its hash matters */
	struct tls_layer *y = SSL_get_app_data(ssl);
	const SSL_CIPHER *cipher = SSL_CIPHER_find(ssl, aes_128_gcm_sha256);
	SSL_SESSION *s = SSL_SESSION_new();
	if (s && cipher && SSL_SESSION_set1_master_key(s, y->tls->secret, TLS_SECRET_SIZE) &&
	    SSL_SESSION_set_cipher(s, cipher) && SSL_SESSION_set_protocol_version(s, TLS1_3_VERSION))
		return s;
	SSL_SESSION_free(s);
	return NULL;
}

static int on_client_psk(SSL *ssl, const EVP_MD *md _unused_, const unsigned char **id,
			 size_t *id_len, SSL_SESSION **session)
{
	struct tls_layer *y = SSL_get_app_data(ssl);
	*session = make_psk(ssl);
	*id = (const unsigned char *)y->tls->identity;
	*id_len = strlen(y->tls->identity);
	return *session != NULL;
}

/* 0 ends the handshake: there is no other way in. */
static int on_server_psk(SSL *ssl, const unsigned char *id, size_t len, SSL_SESSION **session)
{
	struct tls_layer *y = SSL_get_app_data(ssl);
	const struct tls_context *t = y->tls;
	*session = NULL;
	if (len != strlen(t->identity) || memcmp(id, t->identity, t->prefix) != 0)
		y->refusal = TLS_REFUSED_IDENTITY;
	else if (memcmp(id, t->identity, len) == 0)
		y->refusal = TLS_REFUSED_REFLECTED;
	if (y->refusal >= 0)
		return 0;
	*session = make_psk(ssl);
	return *session != NULL;
}

/* libssl keeps the session, which holds a copy of the secret and is of no use any more. */
static void wipe_psk(SSL *ssl)
{
	static const unsigned char zeros[TLS_SECRET_SIZE];
	SSL_SESSION *s = SSL_get_session(ssl);
	if (s)
		SSL_SESSION_set1_master_key(s, zeros, sizeof(zeros));
}

/* ---- the context ---- */

static int ssl_failed(struct err *err, const char *what)
{
	unsigned long code = ERR_peek_last_error();
	ERR_clear_error();
	return err_set(err, ERR_GET_REASON(code) == ERR_R_MALLOC_FAILURE ? ENOMEM : EIO,
		       "TLS: %s (libssl's error %#lx)", what, code);
}

static int set_up(struct tls_context *t)
{
	t->bio = bio_method();
	t->ssl = SSL_CTX_new(TLS_method());
	if (!t->bio || !t->ssl)
		return -1;
	/* No records of a fictitious TLS 1.2: nothing stands between our agents that would want them. */
	SSL_CTX_clear_options(t->ssl, SSL_OP_ENABLE_MIDDLEBOX_COMPAT);
	SSL_CTX_set_options(t->ssl, SSL_OP_NO_TICKET | SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION);
	SSL_CTX_set_mode(t->ssl, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_AUTO_RETRY);
	SSL_CTX_set_session_cache_mode(t->ssl, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_psk_use_session_callback(t->ssl, on_client_psk);
	SSL_CTX_set_psk_find_session_callback(t->ssl, on_server_psk);
	return SSL_CTX_set_min_proto_version(t->ssl, TLS1_3_VERSION) &&
			       SSL_CTX_set_max_proto_version(t->ssl, TLS1_3_VERSION) &&
			       SSL_CTX_set_ciphersuites(t->ssl, "TLS_AES_128_GCM_SHA256:"
								"TLS_CHACHA20_POLY1305_SHA256") &&
			       SSL_CTX_set1_groups_list(t->ssl, "X25519") &&
			       SSL_CTX_set_num_tickets(t->ssl, 0) &&
			       SSL_CTX_set_max_early_data(t->ssl, 0)
		       ? 0
		       : -1;
}

static int take_secret(struct tls_context *t, const uint8_t *secret, struct err *err)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	void *p = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		return err_errno(err, errno, "TLS: memory for the secret");
	t->secret = p;
	madvise(p, page, MADV_DONTDUMP); /* both as far as they go */
	mlock(p, page);
	memcpy(p, secret, TLS_SECRET_SIZE);
	return 0;
}

static int take_identity(struct tls_context *t, const char *identity, struct err *err)
{
	uint8_t nonce[NONCE_SIZE];
	if (!*identity || strlen(identity) > TLS_IDENTITY_MAX)
		return err_set(err, EINVAL, "TLS: the identity '%.80s' has not 1 to %d bytes",
			       identity, TLS_IDENTITY_MAX);
	if (RAND_bytes(nonce, sizeof(nonce)) != 1)
		return ssl_failed(err, "no random bytes");
	int n = snprintf(t->identity, sizeof(t->identity), "%s:", identity);
	t->prefix = (size_t)n;
	for (size_t i = 0; i < sizeof(nonce); i++)
		n += snprintf(t->identity + n, sizeof(t->identity) - (size_t)n, "%02x", nonce[i]);
	return 0;
}

struct tls_context *tls_context_create(const uint8_t secret[TLS_SECRET_SIZE], const char *identity,
				       struct err *err)
{
	/* The host's openssl.cnf is for others: nothing of it may change, weaken or break our links. The tables of error
	 * texts are large, and ours say more. */
	OPENSSL_init_ssl(OPENSSL_INIT_NO_LOAD_CONFIG | OPENSSL_INIT_NO_LOAD_SSL_STRINGS |
				 OPENSSL_INIT_NO_LOAD_CRYPTO_STRINGS,
			 NULL);
	struct tls_context *t = xcalloc(1, sizeof(*t));
	t->handshake_ms = TLS_HANDSHAKE_MS;
	t->rekey_bytes = REKEY_BYTES;
	if (take_identity(t, identity, err) < 0 || take_secret(t, secret, err) < 0)
		goto fail;
	if (set_up(t) < 0) {
		ssl_failed(err, "libssl cannot be set up");
		goto fail;
	}
	t->scratch = xmalloc(LAYER_SCRATCH);
	return t;
fail:
	tls_context_destroy(t);
	return NULL;
}

void tls_context_destroy(struct tls_context *t)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	if (!t)
		return;
	SSL_CTX_free(t->ssl);
	BIO_meth_free(t->bio);
	if (t->secret) {
		explicit_bzero(t->secret, page);
		munmap(t->secret, page);
	}
	if (t->scratch)
		explicit_bzero(t->scratch, LAYER_SCRATCH);
	free(t->scratch);
	free(t);
}

void tls_context_set_timeout(struct tls_context *t, uint64_t handshake_ms)
{
	t->handshake_ms = handshake_ms;
}

void tls_context_set_rekey(struct tls_context *t, uint64_t bytes)
{
	t->rekey_bytes = bytes;
}

/* ---- one stream ---- */

static struct tls_layer *tls_layer(struct layer *y)
{
	return CONTAINER_OF(y, struct tls_layer, layer);
}

static void on_timeout(void *arg)
{
	struct tls_layer *y = arg;
	struct err err = ERR_INIT;
	tls_refuse(y->tls, TLS_REFUSED_TIMEOUT, &err);
	evtimer_stop(y->timer);
	stream_fail(y->stream, &err);
}

static void layer_begin(struct layer *base, struct stream *s, struct buf *wire)
{
	struct tls_layer *y = tls_layer(base);
	y->stream = s;
	evtimer_start(y->timer, y->tls->handshake_ms, 0);
	y->wire = wire;
	ERR_clear_error();
	SSL_do_handshake(y->ssl); /* what fails here fails again, and is told, with the first bytes that come */
}

/* What libssl's reason means to us. */
static enum tls_refusal refusal_of(const struct tls_layer *y, int reason)
{
	switch (reason) {
	case SSL_R_BINDER_DOES_NOT_VERIFY:
	case SSL_R_NO_SUITABLE_SIGNATURE_ALGORITHM: /* a hello without a pre-shared key */
	case SSL_R_NO_SHARED_CIPHER:
	case SSL_R_NO_CERTIFICATE_SET:
	case SSL_R_CERTIFICATE_VERIFY_FAILED:
	case SSL_R_MISSING_PSK_KEX_MODES_EXTENSION:
	case SSL_R_BAD_PSK: return TLS_REFUSED_SECRET;
	case SSL_R_UNSUPPORTED_PROTOCOL:
	case SSL_R_VERSION_TOO_LOW:
	case SSL_R_WRONG_SSL_VERSION:
	case SSL_R_NO_PROTOCOLS_AVAILABLE: return TLS_REFUSED_VERSION;
	case SSL_R_PACKET_LENGTH_TOO_LONG:
	case SSL_R_ENCRYPTED_LENGTH_TOO_LONG:
	case SSL_R_DATA_LENGTH_TOO_LONG:
	case SSL_R_EXCESSIVE_MESSAGE_SIZE: return TLS_REFUSED_OVERSIZE;
	case SSL_R_DECRYPTION_FAILED_OR_BAD_RECORD_MAC:
	case SSL_R_BAD_RECORD_TYPE:
	case SSL_R_DIGEST_CHECK_FAILED: return TLS_REFUSED_CORRUPT;
	default: break;
	}
	if (reason > SSL_AD_REASON_OFFSET && reason <= SSL_AD_REASON_OFFSET + 255) /* the peer's alert */
		return y->layer.open ? TLS_REFUSED_CORRUPT : TLS_REFUSED_REFUSED;
	return y->layer.open ? TLS_REFUSED_CORRUPT : TLS_REFUSED_MALFORMED;
}

static int failed(struct tls_layer *y, struct err *err)
{
	int reason = ERR_GET_REASON(ERR_peek_error());
	enum tls_refusal r = y->refusal >= 0 ? (enum tls_refusal)y->refusal : refusal_of(y, reason);
	ERR_clear_error();
	return tls_refuse(y->tls, r, err);
}

static void opened(struct tls_layer *y)
{
	y->layer.open = true;
	y->tls->stats.handshakes++;
	evtimer_destroy(y->timer);
	y->timer = NULL;
	wipe_psk(y->ssl);
}

/* 1: done, 0: more is needed, -1: refused. */
static int handshake(struct tls_layer *y, struct err *err)
{
	/* Other protocols begin otherwise: 22 is a handshake record, 21 an alert. */
	if (!y->before && y->n_in && *y->in != 22 && *y->in != 21)
		return tls_refuse(y->tls, TLS_REFUSED_PLAIN, err);
	int rc = SSL_do_handshake(y->ssl);
	if (rc != 1)
		return y->refusal < 0 && SSL_get_error(y->ssl, rc) == SSL_ERROR_WANT_READ
			       ? 0
			       : failed(y, err);
	/* libssl could have authenticated a server by a certificate. */
	if (!SSL_session_reused(y->ssl))
		return tls_refuse(y->tls, TLS_REFUSED_SECRET, err);
	opened(y);
	return 1;
}

static int layer_in(struct layer *base, const char *p, size_t n, struct buf *plain,
		    struct buf *wire, struct err *err)
{
	struct tls_layer *y = tls_layer(base);
	int rc;
	y->in = p;
	y->n_in = n;
	y->wire = wire;
	ERR_clear_error();
	if (!base->open && (rc = handshake(y, err)) <= 0)
		return rc;
	for (;;) {
		size_t got = 0;
		buf_reserve(plain, SSL3_RT_MAX_PLAIN_LENGTH);
		rc = SSL_read_ex(y->ssl, plain->data + plain->end, plain->cap - plain->end, &got);
		plain->end += rc == 1 ? got : 0;
		if (rc == 1)
			continue;
		switch (SSL_get_error(y->ssl, rc)) {
		case SSL_ERROR_WANT_READ: return 0;
		case SSL_ERROR_ZERO_RETURN: base->ended = true; return 0;
		default: return failed(y, err);
		}
	}
}

static void layer_cut(struct layer *base, int code, struct err *err)
{
	struct tls_layer *y = tls_layer(base);
	if (code && code != ECONNRESET && code != EPIPE)
		err_errno(err, code, "connection");
	else
		tls_refuse(y->tls, base->open ? TLS_REFUSED_TRUNCATED : TLS_REFUSED_ABANDONED, err);
}

static void layer_out(struct layer *base, const char *p, size_t n, struct buf *wire)
{
	struct tls_layer *y = tls_layer(base);
	size_t done = 0;
	y->wire = wire;
	y->n_in = 0;
	ERR_clear_error();
	y->sent += n;
	if (y->sent >= y->tls->rekey_bytes) {
		y->sent = 0;
		SSL_key_update(y->ssl, SSL_KEY_UPDATE_NOT_REQUESTED);
	}
	SSL_write_ex(y->ssl, p, n, &done); /* fails only after a fatal alert: then the stream is closed */
}

static void layer_end(struct layer *base, struct buf *wire)
{
	struct tls_layer *y = tls_layer(base);
	y->wire = wire;
	y->n_in = 0;
	ERR_clear_error();
	SSL_shutdown(y->ssl);
}

static void layer_destroy(struct layer *base)
{
	struct tls_layer *y = tls_layer(base);
	evtimer_destroy(y->timer);
	SSL_free(y->ssl);
	free(y);
}

static const struct layer_ops layer_ops = {
	.begin = layer_begin,
	.in = layer_in,
	.cut = layer_cut,
	.out = layer_out,
	.end = layer_end,
	.destroy = layer_destroy,
};

static struct tls_layer *layer_create(struct loop *l, struct tls_context *t, enum tls_role role)
{
	struct tls_layer *y = xcalloc(1, sizeof(*y));
	*y = (struct tls_layer){
		.layer = {.ops = &layer_ops, .scratch = t->scratch},
		.tls = t,
		.role = role,
		.refusal = -1,
		.timer = evtimer_create(l, on_timeout, y),
		.ssl = SSL_new(t->ssl),
	};
	BIO *bio = y->ssl ? BIO_new(t->bio) : NULL;
	if (!bio) {
		layer_destroy(&y->layer);
		return NULL;
	}
	BIO_set_data(bio, y);
	BIO_set_init(bio, 1);
	SSL_set_bio(y->ssl, bio, bio);
	SSL_set_app_data(y->ssl, y);
	if (role == TLS_SERVER) {
		SSL_set_accept_state(y->ssl);
	} else {
		SSL_set_connect_state(y->ssl);
		/* There is no authority to trust: whatever certificate a server shows, it fails. */
		SSL_set_verify(y->ssl, SSL_VERIFY_PEER, NULL);
	}
	return y;
}

struct stream *stream_create_tls(struct loop *l, int fd, struct tls_context *t, enum tls_role role,
				 const struct stream_ops *ops, void *arg, struct err *err)
{
	struct tls_layer *y = layer_create(l, t, role);
	if (!y) {
		ssl_failed(err, "no memory for a link");
		close(fd);
		return NULL;
	}
	return stream_create_layered(l, fd, &y->layer, ops, arg, err);
}
