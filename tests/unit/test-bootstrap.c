/* SPDX-License-Identifier: Apache-2.0 */
/* What the agent of a node is told at its start. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/bootstrap.h"
#include "base/alloc.h"
#include "base/path.h"
#include "tap.h"

static struct bootstrap sample(void)
{
	struct bootstrap b = {.name = xstrdup("c"),
			      .home = xstrdup("here"),
			      .root = xstrdup("10.0.0.1:4000,[fd00::1]:4000"),
			      .fanout = 4,
			      .beat_ms = 100,
			      .lost_ms = 500,
			      .give_up_ms = 3000};
	for (size_t i = 0; i < sizeof(b.secret); i++)
		b.secret[i] = (uint8_t)(i * 7);
	b.id[0] = 0xab;
	strvec_add(&b.nodes, "n1");
	strvec_add(&b.nodes, "n2");
	return b;
}

static void test_round(void)
{
	struct err err = ERR_INIT;
	struct bootstrap b = sample(), got = {0};
	_cleanup_free_ char *line = bootstrap_write(&b, &err);
	ok(line && strchr(line, '\n') == line + strlen(line) - 1, "one line");
	ok(line && bootstrap_parse(line, strlen(line), &got, &err) == 0, "is read back: %s", err.text);
	ok(got.name && strcmp(got.name, "c") == 0 && strcmp(got.root, b.root) == 0 && got.home &&
		   strcmp(got.home, "here") == 0,
	   "name, home and root");
	ok(memcmp(got.secret, b.secret, sizeof(b.secret)) == 0 && memcmp(got.id, b.id, sizeof(b.id)) == 0,
	   "secret and id");
	ok(got.nodes.n == 2 && strcmp(got.nodes.v[1], "n2") == 0, "the nodes' names");
	ok(got.fanout == 4 && got.beat_ms == 100 && got.lost_ms == 500 && got.give_up_ms == 3000,
	   "the settings");
	bootstrap_finish(&got);
	strvec_add(&b.nodes, "");
	free(line);
	line = bootstrap_write(&b, &err);
	ok(line && bootstrap_parse(line, strlen(line), &got, &err) == 0 && got.nodes.n == 3 &&
		   !got.nodes.v[0][0],
	   "nodes whose names only they can tell");
	bootstrap_finish(&got);
	bootstrap_finish(&b);
}

static void test_bad(void)
{
	struct err err = ERR_INIT;
	struct bootstrap b = sample(), got = {0};
	_cleanup_free_ char *line = bootstrap_write(&b, &err);
	static const struct {
		const char *from, *to, *said;
	} change[] = {
		{"\"vse\":1", "\"vse\":2", "vse"},
		{"\"name\":\"c\"", "\"name\":\"../c\"", "cluster name"},
		{"\"count\":2", "\"count\":3", "count"},
		{"\"fanout\":4", "\"fanout\":-4", "fanout"},
		{"\"id\":\"ab", "\"id\":\"zz", "hexadecimal"},
		{"\"id\":\"ab", "\"id\":\"", "bytes"},
		{"\"root\"", "\"boot\"", "root"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(change); i++) {
		char *at = strstr(line, change[i].from);
		_cleanup_free_ char *bad = at ? xasprintf("%.*s%s%s", (int)(at - line), line,
							  change[i].to, at + strlen(change[i].from))
					      : NULL;
		ok(bad && bootstrap_parse(bad, strlen(bad), &got, &err) < 0 && err.code &&
			   strstr(err.text, change[i].said),
		   "%s: %s", change[i].to, err.text);
	}
	ok(bootstrap_parse("[]", 2, &got, &err) < 0 && bootstrap_parse("{", 1, &got, &err) < 0,
	   "no object");
	for (size_t n = 0; n + 2 < strlen(line); n += 7)
		if (bootstrap_parse(line, n, &got, &err) == 0)
			ok(false, "%zu bytes of it are enough", n);
	bootstrap_finish(&b);
}

static void test_sources(void)
{
	struct err err = ERR_INIT;
	struct bootstrap b = sample(), got = {0};
	_cleanup_free_ char *line = bootstrap_write(&b, &err);
	char dir[] = "/tmp/vse-bootstrap-XXXXXX";
	int p[2];
	if (!mkdtemp(dir) || pipe(p) < 0)
		return;
	ok(write(p[1], line, strlen(line)) > 0 && write(p[1], "rest", 4) == 4,
	   "a line and more in a pipe");
	ok(bootstrap_read_fd(p[0], 1000, &got, &err) == 0, "the line is read: %s", err.text);
	bootstrap_finish(&got);
	char rest[8];
	ok(read(p[0], rest, sizeof(rest)) == 4, "and no more than that");
	ok(bootstrap_read_fd(p[0], 50, &got, &err) < 0 && err.code == ETIMEDOUT,
	   "nothing comes: %s", err.text);
	close(p[1]);
	ok(bootstrap_read_fd(p[0], 1000, &got, &err) < 0 && err.code == EPROTO,
	   "its end comes first: %s", err.text);
	close(p[0]);
	_cleanup_free_ char *file = path_join(dir, "b");
	ok(path_write(file, line, strlen(line), 0600, &err) == 0 &&
		   bootstrap_read_file(file, &got, &err) == 0,
	   "from a file");
	bootstrap_finish(&got);
	ok(chmod(file, 0644) == 0 && bootstrap_read_file(file, &got, &err) < 0 && err.code == EPERM,
	   "not from one that others may read: %s", err.text);
	path_remove(dir, NULL);
	bootstrap_finish(&b);
}

int main(void)
{
	test_round();
	test_bad();
	test_sources();
	return done();
}
