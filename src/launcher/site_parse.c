/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "launcher/site.h"

#define WORDS_MAX 256

static char *trim(char *s)
{
	s += strspn(s, " \t");
	size_t n = strlen(s);
	while (n && strchr(" \t\r", s[n - 1]))
		s[--n] = '\0';
	return s;
}

static bool is_variable(const char *s)
{
	static const char letters[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_0123456789";
	return s[0] && strspn(s, letters) == strlen(s) && !(s[0] >= '0' && s[0] <= '9');
}

static int variable(char **to, const char *value, struct err *err)
{
	if (!is_variable(value))
		return err_set(err, EINVAL, "'%.40s' is no name of a variable", value);
	free(*to);
	*to = xstrdup(value);
	return 0;
}

/* The words of a command; what stands for something is checked: %n %l %j %h %% anywhere, %a alone. */
static int command(struct strvec *to, const char *value, const char *allowed, struct err *err)
{
	_cleanup_strvec_ struct strvec words = STRVEC_INIT;
	strvec_split(&words, value, " \t");
	if (!words.n || words.n > WORDS_MAX)
		return err_set(err, EINVAL, "1 to %u words are needed", WORDS_MAX);
	for (size_t i = 0; i < words.n; i++) {
		const char *w = words.v[i];
		for (const char *p = w; (p = strchr(p, '%')); p += 2) {
			if (!p[1] || !strchr(allowed, p[1]))
				return err_set(err, EINVAL, "'%.40s': no such %%-word here", w);
			if (p[1] == 'a' && (p != w || p[2]))
				return err_set(err, EINVAL, "'%.40s': %%a is a word of its own", w);
		}
	}
	strvec_finish(to);
	strvec_copy(to, &words);
	return 0;
}

static bool mentions(const struct strvec *words, const char *what)
{
	for (size_t i = 0; i < words->n; i++)
		for (const char *p = words->v[i]; (p = strchr(p, '%')); p += 2)
			if (p[1] == what[1])
				return true;
	return false;
}

static int input(struct site_launcher *s, const char *value, struct err *err)
{
	static const char *const words[] = {"none", "first", "all"};
	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		if (strcmp(value, words[i]) == 0) {
			s->input = i;
			return 0;
		}
	}
	return err_set(err, EINVAL, "stdin is all, first or none");
}

static int set(struct site_launcher *s, const char *key, const char *value, struct err *err)
{
	if (!value[0])
		return err_set(err, EINVAL, "'%.40s' needs a value", key);
	if (strcmp(key, "summary") == 0) {
		free(s->summary);
		s->summary = xstrdup(value);
		return 0;
	}
	if (strcmp(key, "inside_env") == 0)
		return variable(&s->inside_env, value, err);
	if (strcmp(key, "job_env") == 0)
		return variable(&s->job_env, value, err);
	if (strcmp(key, "nodes_env") == 0)
		return variable(&s->nodes_env, value, err);
	if (strcmp(key, "nodes_file") == 0) {
		if (value[0] != '/' && !(value[0] == '$' && is_variable(value + 1)))
			return err_set(err, EINVAL, "nodes_file is an absolute path or a $VARIABLE");
		free(s->nodes_file);
		s->nodes_file = xstrdup(value);
		return 0;
	}
	if (strcmp(key, "nodes_command") == 0)
		return command(&s->nodes, value, "j%", err);
	if (strcmp(key, "launch") == 0)
		return command(&s->launch, value, "nlajh%", err);
	if (strcmp(key, "stdin") == 0)
		return input(s, value, err);
	return err_set(err, EINVAL, "there is no key '%.40s'", key);
}

static int check(struct site_launcher *s, struct err *err)
{
	if (!s->launch.n || !mentions(&s->launch, "%a"))
		return err_set(err, EINVAL, "'launch = ...' with %%a, the agent's command, is needed");
	if (!!s->nodes_env + !!s->nodes_file + !!s->nodes.n > 1)
		return err_set(err, EINVAL, "only one of nodes_env, nodes_file and nodes_command");
	s->per_node = mentions(&s->launch, "%h");
	if (s->per_node && mentions(&s->launch, "%l"))
		return err_set(err, EINVAL,
			       "launch has %%h, one host, so it cannot have %%l, all hosts");
	if (s->per_node && s->input == SITE_STDIN_FIRST)
		return err_set(err, EINVAL, "launch has %%h: stdin is all or none");
	return 0;
}

static int read_lines(struct site_launcher *s, char *rest, struct err *err)
{
	char *line;
	for (unsigned number = 1; (line = strsep(&rest, "\n")); number++) {
		line = trim(line);
		if (!line[0] || line[0] == '#')
			continue;
		char *value = strchr(line, '=');
		if (!value)
			return err_set(err, EINVAL, "line %u: written as 'key = value'", number);
		*value++ = '\0';
		if (set(s, trim(line), trim(value), err) < 0)
			return err_prefix(err, "line %u: ", number);
	}
	return check(s, err);
}

int site_parse(const char *text, struct site_launcher **ret, struct err *err)
{
	_cleanup_free_ char *copy = xstrdup(text);
	struct site_launcher *s = xcalloc(1, sizeof(*s));
	if (strlen(text) > SITE_FILE_MAX || read_lines(s, copy, err) < 0) {
		site_destroy(s);
		return strlen(text) > SITE_FILE_MAX ? err_set(err, EINVAL, "too long") : -1;
	}
	*ret = s;
	return 0;
}

void site_destroy(struct site_launcher *s)
{
	if (!s)
		return;
	free(s->summary);
	free(s->inside_env);
	free(s->job_env);
	free(s->nodes_env);
	free(s->nodes_file);
	strvec_finish(&s->nodes);
	strvec_finish(&s->launch);
	free(s);
}
