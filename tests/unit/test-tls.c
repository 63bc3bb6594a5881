/* SPDX-License-Identifier: Apache-2.0 */
/* TLS inside a stream: that members of a cluster meet, and that nobody else gets in, whatever he sends. */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include "base/alloc.h"
#include "base/path.h"
#include "io/tls_private.h"
#include "tap.h"
#include "tls-peers.h"

struct loop *loop;

static const uint8_t secret[TLS_SECRET_SIZE] = "0123456789abcdef0123456789abcde";
static const uint8_t other_secret[TLS_SECRET_SIZE] = "another one, also of 32 bytes..";
static struct tls_context *ts, *tc; /* the server's and the client's, of one cluster */

static struct tls_context *context(const uint8_t *s, const char *identity)
{
	struct err err = ERR_INIT;
	struct tls_context *t = tls_context_create(s, identity, &err);
	if (!t) {
		printf("Bail out! %s\n", err.text);
		exit(1);
	}
	return t;
}

static uint64_t refused(struct tls_context *t, enum tls_refusal r)
{
	struct tls_stats st;
	tls_context_stats(t, &st);
	return st.refused[r];
}

static uint64_t handshakes(struct tls_context *t)
{
	struct tls_stats st;
	tls_context_stats(t, &st);
	return st.handshakes;
}

/* ---- members ---- */

static void test_good(void)
{
	struct end s = {.hoard = true}, c = {.hoard = true};
	uint64_t before = handshakes(ts);
	struct relay *r = relay_pair(&s, ts, &c, tc);
	stream_write(c.s, "the question", 12); /* waits for the handshake */
	stream_write(s.s, "the answer", 10);
	is_int(stream_queued(s.s), 10, "the queue holds it");
	run_until(&s.reads);
	run_until(&c.reads);
	is_str(buf_cstr(&s.got), "the question", "what was written at once came");
	is_str(buf_cstr(&c.got), "the answer", "in both directions");
	ok(s.opens == 1 && c.opens == 1, "on_open once each");
	ok(c.drains >= 1 && !stream_queued(c.s), "the queue has drained, and said so");
	is_int(handshakes(ts) - before, 1, "counted");
	const struct buf *seen = relay_seen(r, UP);
	ok(memmem(buf_head(seen), buf_len(seen), "the question", 12) == NULL,
	   "it is not on the wire");
	ok(memmem(buf_head(seen), buf_len(seen), "vse:test", 8) != NULL, "the cluster's name is");
	stream_end(c.s);
	run_until(&s.closes);
	ok(s.closes == 1 && s.why.code == 0, "a proper end: %s", s.why.text);
	relay_destroy(r);
	end_finish(&s);
	end_finish(&c);
}

static void test_one_byte_at_a_time(void)
{
	struct end s = {.hoard = true}, c = {.hoard = true};
	struct relay *r = relay_pair(&s, ts, &c, tc);
	relay_piece(r, 1);
	stream_write(c.s, "slow", 4);
	run_until(&s.reads);
	is_str(buf_cstr(&s.got), "slow", "bytes that come one by one");
	relay_destroy(r);
	end_finish(&s);
	end_finish(&c);
}

/* Reads nothing for a while: the writer's queue stays what it has put there, and encrypted is only a little. */
static void test_large(void)
{
	struct end s = {.to_send = 24 << 20, .piece = 1 << 20},
		   c = {.to_send = 24 << 20, .piece = 300000};
	int never = 0;
	end_pair(&s, ts, &c, tc);
	tls_context_set_rekey(ts, 5 << 20);
	end_send(&s);
	end_send(&c);
	run_until(&s.opens);
	stream_pause(s.s, true);
	stream_pause(c.s, true);
	run_rounds(20);
	size_t s_had = s.bytes, c_had = c.bytes;
	ok(stream_queued(s.s) > 0 && stream_queued(c.s) > 0,
	   "readers that do not read stop the writers");
	ok(s.to_send > (12 << 20) && c.to_send > (12 << 20), "who hold the rest back");
	run_rounds(5);
	ok(s.bytes == s_had && c.bytes == c_had, "a paused stream gets nothing");
	stream_pause(s.s, false);
	stream_pause(c.s, false);
	while (!never && (s.bytes < 24 << 20 || c.bytes < 24 << 20) && s.s && c.s)
		loop_run_once(loop);
	ok(s.bytes == 24 << 20 && c.bytes == 24 << 20,
	   "then all came, both ways, over changes of keys");
	ok(s.most_queued <= (1 << 20) + (66 << 10), "at most %zu bytes were queued", s.most_queued);
	tls_context_set_rekey(ts, 16ull << 30);
	/* Destroyed with an empty queue: that is a proper end. */
	stream_destroy(TAKE_PTR(s.s));
	run_until(&c.closes);
	is_int(c.why.code, 0, "a destroyed stream that owes nothing has said so");
	end_finish(&s);
	end_finish(&c);
}

static void test_owed(void)
{
	struct end s = {0}, c = {.to_send = 8 << 20, .piece = 8 << 20};
	uint64_t before = refused(ts, TLS_REFUSED_TRUNCATED);
	end_pair(&s, ts, &c, tc);
	run_until(&s.opens);
	end_send(&c);
	stream_destroy(TAKE_PTR(c.s));
	run_until(&s.closes);
	is_int(s.why.code, ECONNABORTED, "one that did owe: %s", s.why.text);
	is_int(refused(ts, TLS_REFUSED_TRUNCATED) - before, 1, "counted");
	end_finish(&s);
	end_finish(&c);
}

/* stream_end() before anything has happened, with bytes queued: both go out after the handshake. */
static void test_early_end(void)
{
	struct end s = {.hoard = true}, c = {0};
	end_pair(&s, ts, &c, tc);
	stream_write(c.s, "last words", 10);
	stream_end(c.s);
	run_until(&s.closes);
	is_str(buf_cstr(&s.got), "last words", "what was written before the end came");
	is_int(s.why.code, 0, "then the end");
	run_until(&c.closes);
	ok(c.closes == 1 && c.why.code == 0, "and that of the other side: %s", c.why.text);
	end_finish(&s);
	end_finish(&c);
	end_pair(&s, ts, &c, tc);
	stream_end(c.s);
	run_until(&s.closes);
	ok(s.why.code == 0 && s.opens == 1 && !s.reads, "an end with nothing before it");
	end_finish(&s);
	end_finish(&c);
}

/* The handshake does not wait for a user who does not read; bytes do. */
static void test_paused_from_start(void)
{
	struct end s = {.hoard = true}, c = {0};
	end_pair(&s, ts, &c, tc);
	stream_pause(s.s, true);
	stream_write(c.s, "x", 1);
	stream_end(c.s);
	run_until(&s.opens);
	run_until(&c.drains);
	run_rounds(3);
	ok(s.opens == 1 && !s.reads && !s.closes, "paused: authenticated, nothing else is told");
	stream_pause(s.s, false);
	run_until(&s.closes);
	ok(s.reads == 1 && s.why.code == 0 && s.bytes == 1, "then the bytes and the end");
	end_finish(&s);
	end_finish(&c);
}

static void test_owner_changes(void)
{
	struct end s = {.careless = true}, second = {.hoard = true}, third = {.hoard = true}, c = {0};
	end_pair(&s, ts, &c, tc);
	stream_write(c.s, "first frame", 11);
	run_until(&s.reads);
	stream_set_ops(s.s, &end_ops, &second);
	second.s = TAKE_PTR(s.s);
	run_until(&second.reads);
	is_str(buf_cstr(&second.got), "first frame", "unread bytes go to the new owner");
	is_int(s.reads, 1, "not to the old one");
	stream_write(c.s, "more", 4);
	second.reads = 0;
	run_until(&second.reads);
	is_str(buf_cstr(&second.got), "first framemore", "and what comes later");
	second.careless = true;
	second.reads = 0;
	stream_write(c.s, "unread", 6);
	run_until(&second.reads);
	stream_pause(second.s, true);
	stream_end(c.s);
	stream_set_ops(second.s, &end_ops, &third);
	third.s = TAKE_PTR(second.s);
	run_rounds(3);
	ok(!third.reads && !third.closes, "a paused stream keeps it");
	stream_pause(third.s, false);
	run_until(&third.closes);
	is_str(buf_cstr(&third.got), "unread", "until it is read");
	end_finish(&s);
	end_finish(&second);
	end_finish(&third);
	end_finish(&c);
}

static void test_destroyed_in_callbacks(void)
{
	static const char *const at[] = {"open", "data", "drain"};
	for (size_t i = 0; i < ARRAY_SIZE(at) * 2; i++) {
		struct end s = {0}, c = {0}, *one = i & 1 ? &s : &c, *two = i & 1 ? &c : &s;
		one->destroy_at = at[i / 2];
		one->to_send = two->to_send = 2 << 20;
		one->piece = two->piece = 1 << 20;
		end_pair(&s, ts, &c, tc);
		end_send(&s);
		end_send(&c);
		run_until(&two->closes);
		ok(!one->s && !one->closes && two->closes == 1, "destroyed in on_%s of the %s",
		   at[i / 2], i & 1 ? "server" : "client");
		end_finish(&s);
		end_finish(&c);
	}
}

/* ---- not members ---- */

static void is_refused(const struct end *e, struct tls_context *t, enum tls_refusal r, int code,
		       uint64_t before, const char *what)
{
	ok(e->closes == 1 && !e->reads && e->why.code == code, "%s: %s", what, e->why.text);
	is_int(refused(t, r) - before, 1, "counted as %s", tls_refusal_name(r));
}

/* Whoever holds another secret, is of another cluster, or is ourselves. */
static void test_strangers(void)
{
	struct tls_context *wrong = context(other_secret, "vse:test"),
			   *foreign = context(secret, "vse:tesT");
	const struct {
		struct tls_context *client;
		enum tls_refusal r;
		int code;
		const char *what;
	} rows[] = {
		{wrong, TLS_REFUSED_SECRET, EACCES, "another secret"},
		{foreign, TLS_REFUSED_IDENTITY, EACCES, "another cluster with our secret"},
		{ts, TLS_REFUSED_REFLECTED, ELOOP, "our own hello, sent back to us"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct end s = {0}, c = {0};
		uint64_t before = refused(ts, rows[i].r), hands = handshakes(ts);
		uint64_t told = refused(rows[i].client, TLS_REFUSED_REFUSED);
		end_pair(&s, ts, &c, rows[i].client);
		stream_write(c.s, "let me in", 9);
		run_until(&s.closes);
		run_until(&c.closes);
		is_refused(&s, ts, rows[i].r, rows[i].code, before, rows[i].what);
		is_refused(&c, rows[i].client, TLS_REFUSED_REFUSED, EACCES, told, "the client is told");
		ok(!s.opens && !c.opens && handshakes(ts) == hands, "and neither was open");
		end_finish(&s);
		end_finish(&c);
	}
	tls_context_destroy(wrong);
	tls_context_destroy(foreign);
}

/* What libssl itself would say as a client of this version, without our key. */
static void foreign_hello(int version, struct buf *out)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
	SSL_CTX_set_max_proto_version(ctx, version);
	SSL *ssl = SSL_new(ctx);
	BIO *in = BIO_new(BIO_s_mem()), *wire = BIO_new(BIO_s_mem());
	SSL_set_bio(ssl, in, wire);
	SSL_connect(ssl);
	char *p;
	long n = BIO_get_mem_data(wire, &p);
	buf_add(out, p, (size_t)n);
	SSL_free(ssl);
	SSL_CTX_free(ctx);
}

/* Gives these bytes to a stream in that role, and then nothing. */
static void feed(struct end *e, struct tls_context *t, enum tls_role role, const void *p, size_t n,
		 bool close_it)
{
	int pair[2];
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		abort();
	e->s = stream_create_tls(loop, pair[0], t, role, &end_ops, e, NULL);
	ok(fd_write_all(pair[1], p, n) == 0, "%zu bytes", n);
	if (close_it)
		close(pair[1]);
	run_until(&e->closes);
	if (!close_it)
		close(pair[1]);
}

static void test_foreign_bytes(void)
{
	struct buf old = BUF_INIT, certless = BUF_INIT, flood = BUF_INIT;
	foreign_hello(TLS1_2_VERSION, &old);
	foreign_hello(TLS1_3_VERSION, &certless);
	/* A hello of 60000 bytes that never ends, in good records. */
	buf_add(&flood, "\x16\x03\x01\x40\x00\x01\x00\xea\x60\x03\x03", 11);
	buf_reserve(&flood, 17000);
	memset(flood.data + flood.end, 0, 17000);
	flood.end += 17000;
	const struct {
		enum tls_role role;
		const char *bytes;
		size_t n;
		bool close_it;
		enum tls_refusal r;
		int code;
		const char *what;
	} rows[] = {
		{TLS_SERVER, "GET / HTTP/1.0\r\n\r\n", 18, false, TLS_REFUSED_PLAIN, EPROTO, "plain text"},
		{TLS_SERVER, "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 16, false, TLS_REFUSED_PLAIN,
		 EPROTO, "a plain frame"},
		{TLS_CLIENT, "SSH-2.0-OpenSSH_9.2\r\n", 21, false, TLS_REFUSED_PLAIN, EPROTO,
		 "a server of another kind"},
		{TLS_SERVER, "\x16garbage garbage garbage", 24, false, TLS_REFUSED_MALFORMED,
		 EPROTO, "garbage"},
		{TLS_SERVER, "\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", 10, false,
		 TLS_REFUSED_MALFORMED, EPROTO, "a short hello"},
		{TLS_SERVER, "\x16\x03\x01\xff\xff", 5, false, TLS_REFUSED_OVERSIZE, EMSGSIZE,
		 "an oversized record"},
		{TLS_SERVER, buf_head(&flood), buf_len(&flood), false, TLS_REFUSED_OVERSIZE,
		 EMSGSIZE, "a hello without end"},
		{TLS_SERVER, buf_head(&old), buf_len(&old), false, TLS_REFUSED_VERSION, EPROTO, "TLS 1.2"},
		{TLS_SERVER, buf_head(&certless), buf_len(&certless), false, TLS_REFUSED_SECRET,
		 EACCES, "TLS 1.3 without a key"},
		{TLS_SERVER, buf_head(&certless), 40, true, TLS_REFUSED_ABANDONED, ECONNABORTED,
		 "half a hello"},
		{TLS_CLIENT, "", 0, true, TLS_REFUSED_ABANDONED, ECONNABORTED, "a server that leaves"},
		{TLS_CLIENT, "\x15\x03\x03\x00\x02\x02\x28", 7, true, TLS_REFUSED_REFUSED, EACCES,
		 "an alert"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct end e = {0};
		uint64_t before = refused(ts, rows[i].r);
		feed(&e, ts, rows[i].role, rows[i].bytes, rows[i].n, rows[i].close_it);
		is_refused(&e, ts, rows[i].r, rows[i].code, before, rows[i].what);
		end_finish(&e);
	}
	buf_finish(&old);
	buf_finish(&certless);
	buf_finish(&flood);
}

static void self_signed(SSL_CTX *ctx)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *cert = X509_new();
	ASN1_INTEGER_set(X509_get_serialNumber(cert), 1);
	X509_gmtime_adj(X509_getm_notBefore(cert), -3600);
	X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
	X509_set_pubkey(cert, key);
	X509_sign(cert, key, EVP_sha256());
	SSL_CTX_use_certificate(ctx, cert);
	SSL_CTX_use_PrivateKey(ctx, key);
	X509_free(cert);
	EVP_PKEY_free(key);
}

/* A server that answers every client with a certificate and without the key. */
static void test_certificate(void)
{
	int pair[2];
	struct end c = {0};
	SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
	self_signed(ctx);
	SSL *ssl = SSL_new(ctx);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) < 0)
		abort();
	SSL_set_fd(ssl, pair[0]);
	uint64_t before = refused(tc, TLS_REFUSED_SECRET);
	c.s = stream_create_tls(loop, pair[1], tc, TLS_CLIENT, &end_ops, &c, NULL);
	stream_write(c.s, "a secret", 8);
	for (int i = 0; i < 100 && !c.closes; i++) {
		SSL_accept(ssl);
		run_rounds(1);
	}
	is_refused(&c, tc, TLS_REFUSED_SECRET, EACCES, before, "a certificate is no proof");
	ok(!c.opens, "it was never open");
	SSL_free(ssl);
	SSL_CTX_free(ctx);
	close(pair[0]);
	end_finish(&c);
}

static void test_silence(void)
{
	struct end s = {0}, c = {0};
	int pair[2];
	uint64_t before_s = refused(ts, TLS_REFUSED_TIMEOUT),
		 before_c = refused(tc, TLS_REFUSED_TIMEOUT);
	tls_context_set_timeout(ts, 30);
	tls_context_set_timeout(tc, 30);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		abort();
	s.s = stream_create_tls(loop, pair[0], ts, TLS_SERVER, &end_ops, &s, NULL);
	run_until(&s.closes);
	close(pair[1]);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		abort();
	c.s = stream_create_tls(loop, pair[0], tc, TLS_CLIENT, &end_ops, &c, NULL);
	run_until(&c.closes);
	close(pair[1]);
	is_refused(&s, ts, TLS_REFUSED_TIMEOUT, ETIMEDOUT, before_s, "a client that says nothing");
	is_refused(&c, tc, TLS_REFUSED_TIMEOUT, ETIMEDOUT, before_c, "a server that says nothing");
	tls_context_set_timeout(ts, TLS_HANDSHAKE_MS);
	tls_context_set_timeout(tc, TLS_HANDSHAKE_MS);
	end_finish(&s);
	end_finish(&c);
	end_pair(&s, ts, &c, tc);
	run_until(&s.opens);
	run_rounds(3);
	ok(!s.closes && !c.closes, "an open link has no such bound");
	end_finish(&s);
	end_finish(&c);
}

/* ---- who sits between ---- */

static void test_cut(void)
{
	struct end s = {0}, c = {0};
	uint64_t before = refused(ts, TLS_REFUSED_TRUNCATED);
	struct relay *r = relay_pair(&s, ts, &c, tc);
	stream_write(c.s, "half of what I ", 15);
	run_until(&s.reads);
	relay_cut(r);
	run_until(&s.closes);
	ok(s.why.code == ECONNABORTED && s.bytes == 15, "a cut is no end: %s", s.why.text);
	is_int(refused(ts, TLS_REFUSED_TRUNCATED) - before, 1, "counted");
	run_until(&c.closes);
	is_int(c.why.code, ECONNABORTED, "the other side, too");
	relay_destroy(r);
	end_finish(&s);
	end_finish(&c);
}

static void test_spoilt(void)
{
	struct end s = {.hoard = true}, c = {0};
	uint64_t before = refused(ts, TLS_REFUSED_CORRUPT);
	struct relay *r = relay_pair(&s, ts, &c, tc);
	stream_write(c.s, "good", 4);
	run_until(&s.reads);
	relay_spoil(r, UP, relay_seen(r, UP)->end + 8);
	stream_write(c.s, "spoilt", 6);
	run_until(&s.closes);
	ok(s.why.code == EBADMSG, "a flipped bit: %s", s.why.text);
	is_str(buf_cstr(&s.got), "good", "nothing of it is passed on");
	is_int(refused(ts, TLS_REFUSED_CORRUPT) - before, 1, "counted");
	run_until(&c.closes);
	is_int(c.why.code, EBADMSG, "the sender is told: %s", c.why.text);
	relay_destroy(r);
	end_finish(&s);
	end_finish(&c);
}

/* Each byte of a handshake in turn, either way: nobody ever opens a link on which the other end heard other things. */
static void test_spoilt_handshake(void)
{
	int opened = 0, closed = 0, tries = 0;
	for (int dir = UP; dir <= DOWN; dir++) {
		for (size_t at = 0; at < 420; at += 7) {
			struct end s = {0}, c = {0};
			struct relay *r = relay_pair(&s, ts, &c, tc);
			relay_spoil(r, dir, at);
			tls_context_set_timeout(ts, 40); /* a spoilt length: the rest never comes */
			tls_context_set_timeout(tc, 40);
			stream_write(c.s, "x", 1);
			while (!s.reads && !s.closes && loop_run_once(loop))
				;
			if (buf_len(relay_seen(r, dir)) > at) {
				tries++;
				opened += s.reads;
				closed += s.closes;
			}
			relay_destroy(r);
			end_finish(&s);
			end_finish(&c);
		}
	}
	tls_context_set_timeout(ts, TLS_HANDSHAKE_MS);
	tls_context_set_timeout(tc, TLS_HANDSHAKE_MS);
	ok(tries > 60, "%d bytes of handshakes spoilt", tries);
	is_int(opened, 0, "no link came of one");
	is_int(closed, tries, "every one was refused");
}

/* All that a client once said, said again to the same server. */
static void test_replay(void)
{
	struct end s = {.hoard = true}, c = {0}, again = {0};
	struct relay *r = relay_pair(&s, ts, &c, tc);
	stream_write(c.s, "stop all machines", 17);
	run_until(&s.reads);
	is_str(buf_cstr(&s.got), "stop all machines", "said once");
	const struct buf *seen = relay_seen(r, UP);
	uint64_t before = refused(ts, TLS_REFUSED_CORRUPT);
	feed(&again, ts, TLS_SERVER, buf_head(seen), buf_len(seen), false);
	is_refused(&again, ts, TLS_REFUSED_CORRUPT, EBADMSG, before, "a recorded session");
	ok(!again.opens, "it was never open");
	/* A record of a living link, sent a second time into it. */
	before = refused(ts, TLS_REFUSED_CORRUPT);
	struct end live = {0}, lc = {0};
	int pair[2], up[2];
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0 || pipe(up) < 0)
		abort();
	live.s = stream_create_tls(loop, pair[0], ts, TLS_SERVER, &end_ops, &live, NULL);
	int inject = dup(pair[1]);
	lc.s = stream_create_tls(loop, pair[1], tc, TLS_CLIENT, &end_ops, &lc, NULL);
	run_until(&live.opens);
	size_t n = buf_len(seen);
	ok(fd_write_all(inject, buf_head(seen) + n - 39, 39) == 0,
	   "a record of another link, injected");
	run_until(&live.closes);
	is_refused(&live, ts, TLS_REFUSED_CORRUPT, EBADMSG, before, "into a living one");
	close(inject);
	close(up[0]);
	close(up[1]);
	relay_destroy(r);
	end_finish(&again);
	end_finish(&live);
	end_finish(&lc);
	end_finish(&s);
	end_finish(&c);
}

/* ---- */

/* KiB of this process that a core dump leaves out. */
static int undumped(void)
{
	char line[512];
	int kib = 0, last = 0;
	FILE *f = fopen("/proc/self/smaps", "re");
	while (f && fgets(line, sizeof(line), f)) {
		sscanf(line, "Size: %d kB", &last);
		kib += strncmp(line, "VmFlags:", 8) == 0 && strstr(line, " dd") ? last : 0;
	}
	if (f)
		fclose(f);
	return kib;
}

static void test_context(void)
{
	int before = undumped();
	struct tls_context *t = context(secret, "vse:test");
	is_int(undumped() - before, (int)sysconf(_SC_PAGESIZE) >> 10,
	       "the secret is no part of a core dump");
	tls_context_destroy(t);
	is_int(undumped() - before, 0, "and not there any more afterwards");
	struct err err = ERR_INIT;
	char lengthy[TLS_IDENTITY_MAX + 2];
	memset(lengthy, 'x', sizeof(lengthy) - 1);
	lengthy[sizeof(lengthy) - 1] = '\0';
	ok(!tls_context_create(secret, "", &err) && err.code == EINVAL, "no identity: %s", err.text);
	ok(!tls_context_create(secret, lengthy, &err) && err.code == EINVAL, "one too long");
	lengthy[TLS_IDENTITY_MAX] = '\0';
	tls_context_destroy(context(secret, lengthy));
	tls_context_destroy(NULL);
	is_str(tls_refusal_name(TLS_REFUSED_CROWDED), "crowded", "refusals have names");
}

int main(void)
{
	signal(SIGPIPE, SIG_IGN);
	loop = loop_create();
	ts = context(secret, "vse:test");
	tc = context(secret, "vse:test");
	test_context();
	test_good();
	test_one_byte_at_a_time();
	test_large();
	test_owed();
	test_early_end();
	test_paused_from_start();
	test_owner_changes();
	test_destroyed_in_callbacks();
	test_strangers();
	test_foreign_bytes();
	test_certificate();
	test_silence();
	test_cut();
	test_spoilt();
	test_spoilt_handshake();
	test_replay();
	tls_context_destroy(ts);
	tls_context_destroy(tc);
	loop_destroy(loop);
	return done();
}
