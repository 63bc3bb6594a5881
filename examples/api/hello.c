/* SPDX-License-Identifier: Apache-2.0 */
/* Starts four VMs, runs a command in each, prints what they say and how they ended, and ends them.
 *
 *   cc hello.c -o hello $(pkg-config --cflags --libs libvse)
 *   ./hello FILE.yaml [OPTION=VALUE...]        as: ./hello minimal.yaml hypervisor=fake
 */
#include <stdio.h>
#include <string.h>

#include <vse.h>

static int on_start(void *arg, const struct vse_event *e)
{
	(void)arg;
	if (vse_event_kind(e) == VSE_BUILDING || vse_event_kind(e) == VSE_STARTING)
		fprintf(stderr, "%s %lld/%lld\n", vse_event_text(e),
			(long long)vse_event_number(e, "done"),
			(long long)vse_event_number(e, "total"));
	return 0; /* go on */
}

static int on_run(void *arg, const struct vse_event *e)
{
	size_t n;
	const char *data = vse_event_data(e, &n);
	(void)arg;
	switch (vse_event_kind(e)) {
	case VSE_OUTPUT:
		if (n)
			printf("vm%s: %.*s", vse_event_ranks(e), (int)n, data);
		break;
	case VSE_EXITED:
		printf("vm%s: exit %lld\n", vse_event_ranks(e), (long long)vse_event_number(e, "code"));
		break;
	case VSE_FAILED: printf("vm%s: %s\n", vse_event_ranks(e), vse_event_text(e)); break;
	}
	return 0;
}

static int set_options(struct vse_options *o, int n, char **words, struct vse_error *err)
{
	vse_options_set(o, "count", "4", err);
	for (int i = 0; i < n; i++) {
		char *value = strchr(words[i], '=');
		if (!value)
			continue;
		*value = '\0';
		if (vse_options_set(o, words[i], value + 1, err) < 0)
			return -1;
	}
	return 0;
}

/* 0, or a negative code with *err. */
static int hello(struct vse_session *s, const char *file, const struct vse_options *o,
		 struct vse_error *err)
{
	static const char *const command[] = {"echo", "hello", NULL};
	struct vse_cluster *cluster;
	struct vse_call *call;
	int code = vse_up(s, file, o, on_start, NULL, &cluster, err);
	if (code < 0)
		return code;
	printf("%s: %d VMs\n", vse_name(cluster), vse_size(cluster, err));
	code = vse_exec(cluster, NULL, command, on_run, NULL, &call, err);
	if (code == 0) {
		code = vse_wait(call, err);
		printf("greatest exit code: %d\n", vse_exit_code_max(call));
		vse_call_free(call);
	}
	if (code == 0)
		code = vse_down(cluster, 0, err);
	vse_release(cluster); /* which would end it, too */
	return code;
}

int main(int argc, char **argv)
{
	struct vse_error *err = vse_error_new();
	struct vse_options *o = vse_options_new();
	struct vse_session *s = NULL;
	int code = -1;
	if (argc < 2)
		fprintf(stderr, "usage: hello FILE.yaml [OPTION=VALUE...]\n");
	else if (set_options(o, argc - 2, argv + 2, err) == 0 && vse_open(&s, err) == 0)
		code = hello(s, argv[1], o, err);
	if (vse_error_code(err))
		fprintf(stderr, "hello: %s\n", vse_error_text(err));
	vse_close(s);
	vse_options_free(o);
	vse_error_free(err);
	return code < 0;
}
