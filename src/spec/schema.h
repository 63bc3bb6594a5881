/* SPDX-License-Identifier: Apache-2.0 */
/* The one table of the VSE's fields. The reader, the messages, the writer of YAML, `vse show --schema` and the
 * check of the manual all come from it.
 *
 * To add a field: a member in struct vse (vse.h) with its default in spec_vse_init(), a rule (rules.c), a setter
 * and a line of the table (schema.c), its line in write.c, its paragraph in man/vse.yaml.5.scd and
 * docs/vse-file.md, and bad values in tests/spec/bad/. A test fails for each that is forgotten. */
#ifndef VSE_SPEC_SCHEMA_H
#define VSE_SPEC_SCHEMA_H

#include <stdbool.h>

#include "base/err.h"
#include "spec/vse.h"

enum spec_kind {
	SPEC_TEXT,  /* one scalar, taken as written: set() */
	SPEC_LIST,  /* a list of scalars: set() for each */
	SPEC_MAP,   /* a map of the fields below, on the same object */
	SPEC_MAPS,  /* a list of such maps; add() makes the object of each */
	SPEC_PAIRS, /* a map of free names to scalars: pair() for each */
};

/* What setters may need to know. */
struct spec_context {
	struct vse *vse;
	const char *dir; /* the VSE file's folder: relative paths start here */
};

struct spec_field {
	const char *name;
	enum spec_kind kind;
	bool required;
	char either; /* of the fields of a map with the same letter exactly one is given; 0: alone */
	bool bytes;  /* an integer of bytes, written as 512M in YAML */
	const char *allowed;             /* what a value may be: for messages and manuals */
	const char *standard;            /* the default, as the manual says it; NULL: none */
	const char *help;                /* one line */
	const struct spec_field *fields; /* SPEC_MAP, SPEC_MAPS; ends with a zeroed entry */
	/* Each gives 0, or -1 with err saying what is wrong (not what is allowed). `text` is (copied). */
	int (*set)(const struct spec_context *c, void *object, const char *text, struct err *err);
	int (*name_rule)(const char *name, struct err *err); /* SPEC_PAIRS: of a name */
	int (*pair)(void *object, const char *name, const char *text, struct err *err);
	void *(*add)(void *object); /* SPEC_MAPS: appends one, borrowed until the next */
};

extern const struct spec_field spec_fields[]; /* of the whole file; the object is a struct vse */

void spec_vse_init(struct vse *v); /* every default that does not depend on the file */
const struct spec_field *spec_find(const struct spec_field *fields, const char *name); /* NULL: none */
/* The nearest field's name for a misspelt one, or NULL when none is near. */
const char *spec_suggest(const struct spec_field *fields, const char *name);

#endif
