/* SPDX-License-Identifier: Apache-2.0 */
#include "image/sources.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <strings.h>

#include "base/alloc.h"
#include "base/path.h"

#define SOURCES_FILE_MAX (1u << 20)

void apt_sources_finish(struct apt_sources *s)
{
	for (size_t i = 0; i < s->n; i++) {
		free(s->v[i].options);
		free(s->v[i].uri);
		free(s->v[i].suite);
		strvec_finish(&s->v[i].components);
	}
	free(s->v);
	*s = APT_SOURCES_INIT;
}

static void add(struct apt_sources *s, const char *options, const char *uri, const char *suite,
		const struct strvec *components)
{
	s->v = xreallocarray(s->v, s->n + 1, sizeof(*s->v));
	struct apt_source *n = &s->v[s->n++];
	*n = (struct apt_source){.options = xstrdup(options),
				 .uri = xstrdup(uri),
				 .suite = xstrdup(suite)};
	strvec_copy(&n->components, components);
}

/* Only these options reach mmdebstrap: architectures are the VSE's own business. */
static bool option_kept(const char *name)
{
	static const char *const kept[] = {"signed-by",  "trusted",        "check-valid-until",
					   "check-date", "allow-insecure", "allow-weak"};
	for (size_t i = 0; i < ARRAY_SIZE(kept); i++)
		if (strcasecmp(name, kept[i]) == 0)
			return true;
	return false;
}

static void keep_option(struct buf *out, const char *name, const char *value)
{
	if (option_kept(name) && *value && !strpbrk(value, " \t\n]"))
		buf_addf(out, "%s%s=%s", buf_len(out) ? " " : "", name, value);
}

/* "deb [ options ] uri suite [components...]" */
static void parse_line(struct apt_sources *s, char *line)
{
	_cleanup_buf_ struct buf options = BUF_INIT;
	_cleanup_strvec_ struct strvec words = STRVEC_INIT, components = STRVEC_INIT;
	line[strcspn(line, "#")] = '\0';
	line += strspn(line, " \t");
	if (strncmp(line, "deb", 3) != 0 || !strchr(" \t", line[3]) || !line[3])
		return;
	line += 3;
	line += strspn(line, " \t");
	if (*line == '[') {
		char *end = strchr(line, ']');
		if (!end)
			return;
		*end = '\0';
		strvec_split(&words, line + 1, " \t");
		for (size_t i = 0; i < words.n; i++) {
			char *eq = strchr(words.v[i], '=');
			if (!eq)
				continue;
			*eq = '\0';
			keep_option(&options, words.v[i], eq + 1);
		}
		line = end + 1;
		strvec_finish(&words);
	}
	strvec_split(&words, line, " \t\r");
	for (size_t i = 2; i < words.n; i++)
		strvec_add(&components, words.v[i]);
	if (words.n >= 2)
		add(s, buf_cstr(&options), words.v[0], words.v[1], &components);
}

void apt_sources_parse_list(struct apt_sources *s, const char *text)
{
	_cleanup_free_ char *copy = xstrdup(text);
	char *save = NULL;
	for (char *l = strtok_r(copy, "\n", &save); l; l = strtok_r(NULL, "\n", &save))
		parse_line(s, l);
}

struct stanza {
	struct strvec types, uris, suites, components;
	struct buf options;
	bool disabled, any;
};

static void stanza_end(struct apt_sources *s, struct stanza *z)
{
	if (z->any && !z->disabled && strvec_has(&z->types, "deb"))
		for (size_t u = 0; u < z->uris.n; u++)
			for (size_t i = 0; i < z->suites.n; i++)
				add(s, buf_cstr(&z->options), z->uris.v[u], z->suites.v[i],
				    &z->components);
	strvec_finish(&z->types);
	strvec_finish(&z->uris);
	strvec_finish(&z->suites);
	strvec_finish(&z->components);
	buf_finish(&z->options);
	*z = (struct stanza){0};
}

static void stanza_field(struct stanza *z, const char *name, char *value)
{
	value += strspn(value, " \t");
	struct {
		const char *name;
		struct strvec *to;
	} lists[] = {{"Types", &z->types},
		     {"URIs", &z->uris},
		     {"Suites", &z->suites},
		     {"Components", &z->components}};
	z->any = true;
	for (size_t i = 0; i < ARRAY_SIZE(lists); i++)
		if (strcasecmp(name, lists[i].name) == 0)
			strvec_split(lists[i].to, value, " \t\r\n");
	if (strcasecmp(name, "Enabled") == 0)
		z->disabled = strncasecmp(value, "no", 2) == 0 || strncasecmp(value, "false", 5) == 0;
	/* A key written into the file itself spans lines, begins with a blank first line and cannot
	 * be passed on as an option: then apt's own trusted keys must do. */
	value[strcspn(value, "\n\r")] = '\0';
	for (size_t n = strlen(value); n && strchr(" \t", value[n - 1]); n--)
		value[n - 1] = '\0';
	_cleanup_free_ char *low = xstrdup(name);
	for (char *c = low; *c; c++)
		*c = (char)(*c >= 'A' && *c <= 'Z' ? *c + 32 : *c);
	keep_option(&z->options, low, value);
}

void apt_sources_parse_deb822(struct apt_sources *s, const char *text)
{
	struct stanza z = {0};
	_cleanup_buf_ struct buf field = BUF_INIT; /* a field with its continuation lines */
	for (const char *l = text;; l += strcspn(l, "\n") + 1) {
		size_t n = strcspn(l, "\n");
		bool blank = strspn(l, " \t\r") >= n, more = *l == ' ' || *l == '\t';
		if (*l == '#' && l[n])
			continue;
		if (!more || blank) {
			char *f = buf_len(&field) ? buf_take(&field) : NULL,
			     *colon = f ? strchr(f, ':') : NULL;
			if (colon) {
				*colon = '\0';
				stanza_field(&z, f, colon + 1);
			}
			free(f);
		}
		if (blank)
			stanza_end(s, &z);
		else if (*l != '#') {
			buf_add(&field, l, n);
			buf_addc(&field, '\n');
		}
		if (!l[n])
			break;
	}
	char *f = buf_len(&field) ? buf_take(&field) : NULL, *colon = f ? strchr(f, ':') : NULL;
	if (colon) {
		*colon = '\0';
		stanza_field(&z, f, colon + 1);
	}
	free(f);
	stanza_end(s, &z);
}

static bool ends(const char *s, const char *end)
{
	size_t n = strlen(s), m = strlen(end);
	return n > m && strcmp(s + n - m, end) == 0;
}

static int read_one(struct apt_sources *s, const char *path, bool deb822, struct err *err)
{
	_cleanup_free_ char *text = NULL;
	if (path_read(path, SOURCES_FILE_MAX, &text, NULL, err) < 0)
		return -1;
	(deb822 ? apt_sources_parse_deb822 : apt_sources_parse_list)(s, text);
	return 0;
}

int apt_sources_read(struct apt_sources *s, const char *etc, struct err *err)
{
	_cleanup_free_ char *main_list = path_join(etc, "sources.list"),
			    *dir = path_join(etc, "sources.list.d");
	_cleanup_strvec_ struct strvec names = STRVEC_INIT;
	if (path_exists(main_list) && read_one(s, main_list, false, err) < 0)
		return -1;
	DIR *d = opendir(dir);
	struct dirent *e;
	while (d && (e = readdir(d)))
		if (e->d_name[0] != '.')
			strvec_add(&names, e->d_name);
	if (d)
		closedir(d);
	strvec_sort(&names);
	for (size_t i = 0; i < names.n; i++) {
		_cleanup_free_ char *p = path_join(dir, names.v[i]);
		bool deb822 = ends(names.v[i], ".sources");
		if ((deb822 || ends(names.v[i], ".list")) && read_one(s, p, deb822, err) < 0)
			return -1;
	}
	return 0;
}

static void os_field(const char *text, const char *name, char out[32])
{
	size_t n = strlen(name);
	for (const char *l = text; l; l = strchr(l, '\n') ? strchr(l, '\n') + 1 : NULL)
		if (strncmp(l, name, n) == 0 && l[n] == '=') {
			l += n + 1;
			l += *l == '"';
			snprintf(out, 32, "%.*s", (int)MIN(strcspn(l, "\"\n"), (size_t)31), l);
			return;
		}
	out[0] = '\0';
}

void host_distro_read(struct host_distro *d, const char *os_release)
{
	_cleanup_free_ char *text = NULL;
	*d = (struct host_distro){0};
	if (path_read(os_release, 65536, &text, NULL, NULL) < 0)
		return;
	os_field(text, "ID", d->id);
	os_field(text, "VERSION_CODENAME", d->suite);
}

/* What a suite is of its release: "" the release itself, and what belongs to it. Debian called security
 * updates "release/updates" before bullseye. Backports and proposed updates are nothing of these. */
static const char *const parts[] = {"", "-updates", "-security", "/updates"};

static bool is_part(const char *have, const char *suite, const char *part)
{
	size_t n = strlen(have), m = strlen(part);
	if (n <= m || strcmp(have + n - m, part) != 0)
		return false;
	if (suite) /* of this release */
		return strlen(suite) == n - m && strncmp(have, suite, n - m) == 0;
	return strcspn(have, "-/") == n - m; /* of any */
}

/* Rolling releases have no updates beside them, nor have backports and the like. */
static bool has_parts(const char *suite)
{
	return !strpbrk(suite, "-/") && strcmp(suite, "sid") != 0 &&
	       strcmp(suite, "unstable") != 0 && strcmp(suite, "experimental") != 0;
}

static void write_entry(struct buf *out, const struct apt_source *s, const char *suite,
			const struct strvec *components)
{
	buf_adds(out, "deb ");
	if (*s->options)
		buf_addf(out, "[%s] ", s->options);
	buf_addf(out, "%s %s", s->uri, suite);
	for (size_t i = 0; i < components->n; i++)
		buf_addf(out, " %s", components->v[i]);
	if (!components->n)
		buf_adds(out, " main");
	buf_addc(out, '\n');
}

/* Is it the distribution's archive? ".../debian", with a slash, or with a day as snapshots have. */
static bool uri_names(const char *uri, const char *distro)
{
	const char *p = strstr(uri, distro);
	for (; p; p = strstr(p + 1, distro)) {
		const char *end = p + strlen(distro);
		end += *end == '/';
		if (p > uri && p[-1] == '/' &&
		    (!*end || (end[-1] == '/' && strspn(end, "0123456789") == 8)))
			return true;
	}
	return false;
}

/* How surely the entry is of the distribution: 1 by its archive's name, 2 by a part of it, 3 because the host is of
 * it; 0 no. Third-party archives may use the same code names, but hardly offer "main" under such a name. */
static unsigned belongs(const struct apt_source *a, bool same, const char *distro,
			const struct strvec *components)
{
	bool offers = strvec_has(&a->components, "main");
	for (size_t i = 0; i < components->n; i++)
		offers |= strvec_has(&a->components, components->v[i]);
	if (!offers)
		return 0;
	return uri_names(a->uri, distro) ? 1 : strstr(a->uri, distro) ? 2 : same ? 3 : 0;
}

struct choice {
	const struct apt_sources *s;
	const char *distro, *suite;
	const struct strvec *components;
	bool same;
	struct buf *out;
};

/* All entries for this part of the suite itself; else the first for that part of another suite: an archive has all. */
static bool choose_part(struct choice *c, const char *part, bool exact)
{
	_cleanup_free_ char *suite = xasprintf("%s%s", c->suite, part);
	for (unsigned sure = 1; sure <= 3; sure++) {
		bool found = false;
		for (size_t i = 0; i < c->s->n && (exact || !found); i++) {
			const struct apt_source *a = &c->s->v[i];
			if (belongs(a, c->same, c->distro, c->components) == sure &&
			    is_part(a->suite, exact ? c->suite : NULL, part)) {
				write_entry(c->out, a, suite, c->components);
				found = true;
			}
		}
		if (found)
			return true;
	}
	return false;
}

int apt_sources_choose(const struct apt_sources *s, const struct host_distro *host,
		       const char *distro, const char *suite, const struct strvec *components,
		       struct buf *out, struct err *err)
{
	struct choice c = {s, distro, suite, components, strcmp(host->id, distro) == 0, out};
	if (!choose_part(&c, "", true) && !choose_part(&c, "", false))
		return err_set(err, ENOENT,
			       "base %s:%s: no repository for %s in this host's apt configuration: "
			       "give one with "
			       "`mirror:` in the VSE",
			       distro, suite, distro);
	for (size_t i = 1; i < ARRAY_SIZE(parts) && has_parts(suite); i++)
		if (!choose_part(&c, parts[i], true) && strcmp(parts[i], "/updates") != 0)
			choose_part(&c, parts[i], false);
	return 0;
}
