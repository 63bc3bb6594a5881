/* SPDX-License-Identifier: Apache-2.0 */
/* The host's apt configuration: which repositories it uses, and which of them serve a wanted suite.
 * Formats: sources.list(5), the one-line style and deb822 style. */
#ifndef VSE_IMAGE_SOURCES_H
#define VSE_IMAGE_SOURCES_H

#include <stdbool.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/strvec.h"

struct apt_source {
	char *options; /* "signed-by=/x trusted=yes" or "" */
	char *uri, *suite;
	struct strvec components;
};

struct apt_sources {
	struct apt_source *v;
	size_t n;
};

#define APT_SOURCES_INIT ((struct apt_sources){0})
void apt_sources_finish(struct apt_sources *s);
#define _cleanup_sources_ _cleanup_(apt_sources_finish)

/* Appends what the text says; lines that are not understood are skipped, as are deb-src and
 * disabled ones. */
void apt_sources_parse_list(struct apt_sources *s, const char *text);
void apt_sources_parse_deb822(struct apt_sources *s, const char *text);
/* etc/sources.list and etc/sources.list.d/{*.list,*.sources}; etc is "/etc/apt" outside tests. */
int apt_sources_read(struct apt_sources *s, const char *etc, struct err *err);

struct host_distro {
	char id[32], suite[32]; /* os-release(5) ID and VERSION_CODENAME, or "" */
};
void host_distro_read(struct host_distro *d, const char *os_release);

/* Writes one-line entries that serve distro:suite with these components: the suite, its updates and its security
 * updates, as far as the host has them. Where it has them for the suite by name, those; else as it has them for
 * another suite of the distribution ("stable", the host's own): "stable-security" becomes "<suite>-security", at its
 * own URI. Archives of others, which use the same suites, are left out. ENOENT when there is none for the suite. */
int apt_sources_choose(const struct apt_sources *s, const struct host_distro *host,
		       const char *distro, const char *suite, const struct strvec *components,
		       struct buf *out, struct err *err);

#endif
