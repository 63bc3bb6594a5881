/* SPDX-License-Identifier: Apache-2.0 */
/* What a guest is told of itself: a machine id once, randomness always. */
#include "base/alloc.h"
#include "cluster/setup.h"
#include "tap.h"
#include "wire/kv.h"

static void write_setup(struct buf *kv, bool again)
{
	struct cluster_spec s = {.name = (char *)"c", .vse = (char *)"v", .size = 2, .cpus = 1};
	struct setup_texts t;
	setup_texts_init(&t, &s);
	setup_write(kv, &s, &t, 1, false, again);
	setup_texts_finish(&t);
}

static char *written(const char *key, bool again)
{
	_cleanup_buf_ struct buf kv = BUF_INIT;
	write_setup(&kv, again);
	return kv_dup(buf_head(&kv), buf_len(&kv), key);
}

static bool fresh_seeds(bool again)
{
	_cleanup_buf_ struct buf a = BUF_INIT, b = BUF_INIT;
	struct kv x, y;
	write_setup(&a, again);
	write_setup(&b, again);
	return kv_find(buf_head(&a), buf_len(&a), "seed", &x) &&
	       kv_find(buf_head(&b), buf_len(&b), "seed", &y) && x.value_len == 64 &&
	       y.value_len == 64 && memcmp(x.value, y.value, 64) != 0;
}

int main(void)
{
	_cleanup_free_ char *id = written("machine_id", false), *other = written("machine_id", false),
			    *again = written("machine_id", true), *name = written("hostname", true);
	ok(id && strlen(id) == 32 && id[12] == '4' && strspn(id, "0123456789abcdef") == 32,
	   "a machine id");
	ok(other && id && strcmp(id, other) != 0, "each guest gets its own");
	ok(!again, "one that has had one keeps it");
	is_str(name, "vm1", "and is told the rest");
	ok(fresh_seeds(false) && fresh_seeds(true), "fresh randomness comes in each time");
	return done();
}
