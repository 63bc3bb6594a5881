/* SPDX-License-Identifier: Apache-2.0 */
/* What a guest is told of itself: a machine id once, randomness always. */
#include "base/alloc.h"
#include "cluster/setup.h"
#include "tap.h"
#include "wire/kv.h"

static const struct cluster_spec spec = {.name = (char *)"c", .vse = (char *)"v", .size = 300, .cpus = 1};
static struct setup_texts texts;

static void write_setup(struct buf *kv, bool again)
{
	setup_write(kv, &spec, &texts, 1, false, again);
}

static char *written(const char *key, uint32_t rank, bool again)
{
	_cleanup_buf_ struct buf kv = BUF_INIT;
	setup_write(&kv, &spec, &texts, rank, false, again);
	return kv_dup(buf_head(&kv), buf_len(&kv), key);
}

static bool all_differ(void)
{
	_cleanup_strvec_ struct strvec ids = STRVEC_INIT;
	for (uint32_t r = 0; r < spec.size; r++) {
		_cleanup_free_ char *id = written("machine_id", r, false);
		if (strvec_has(&ids, id))
			return false;
		strvec_add(&ids, id);
	}
	return true;
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
	setup_texts_init(&texts, &spec);
	_cleanup_free_ char *id = written("machine_id", 1, false),
			    *twice = written("machine_id", 1, false),
			    *again = written("machine_id", 1, true),
			    *name = written("hostname", 1, true);
	ok(id && strlen(id) == 32 && id[12] == '4' && strspn(id, "0123456789abcdef") == 32,
	   "a machine id");
	is_str(twice, id, "the same for one that is told twice before it is ready");
	ok(all_differ(), "each guest gets its own");
	ok(!again, "one that was ready with one keeps it");
	is_str(name, "vm1", "and is told the rest");
	ok(fresh_seeds(false) && fresh_seeds(true), "fresh randomness comes in each time");
	setup_texts_finish(&texts);
	setup_texts_init(&texts, &spec);
	_cleanup_free_ char *other = written("machine_id", 1, false);
	ok(other && id && strcmp(other, id) != 0, "another cluster's has another one");
	setup_texts_finish(&texts);
	return done();
}
