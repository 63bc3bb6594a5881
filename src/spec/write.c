/* SPDX-License-Identifier: Apache-2.0 */
/* The object as JSON, and that JSON as YAML by the field table. */
#include <inttypes.h>
#include <string.h>
#include <yaml.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "spec/schema.h"

/* ---- JSON ---- */

static void put_text(json_t *o, const char *name, const char *text)
{
	if (text)
		json_object_set_new(o, name, json_string(text));
}

static json_t *list_json(const struct strvec *v)
{
	json_t *a = json_array();
	for (size_t i = 0; i < v->n; i++)
		json_array_append_new(a, json_string(v->v[i]));
	return a;
}

static json_t *base_json(const struct vse *v)
{
	if (v->base == VSE_BASE_DISTRO)
		return json_sprintf("%s:%s", v->distro, v->suite);
	return json_sprintf("%s:%s", v->base == VSE_BASE_DIR ? "dir" : "tar", v->base_path);
}

static json_t *files_json(const struct vse *v)
{
	json_t *a = json_array();
	for (size_t i = 0; i < v->n_files; i++) {
		const struct vse_file *f = &v->files[i];
		json_t *o = json_object();
		put_text(o, "path", f->path);
		put_text(o, "content", f->content);
		put_text(o, "source", f->source);
		json_object_set_new(o, "mode", json_sprintf("%04o", f->mode));
		json_object_set_new(o, "owner", json_sprintf("%u:%u", f->uid, f->gid));
		json_array_append_new(a, o);
	}
	return a;
}

static json_t *env_json(const struct vse *v)
{
	json_t *o = json_object();
	for (size_t i = 0; i < v->n_env; i++)
		put_text(o, v->env[i].name, v->env[i].value);
	return o;
}

static json_t *needs_json(const struct vse *v)
{
	return json_pack("{s:I, s:I, s:I}", "cpus", (json_int_t)v->cpus, "memory",
			 (json_int_t)v->memory, "scratch", (json_int_t)v->scratch);
}

json_t *vse_to_json(const struct vse *v)
{
	json_t *o = json_object();
	json_object_set_new(o, "vse", json_integer(VSE_FORMAT));
	put_text(o, "name", v->name);
	put_text(o, "description", v->description);
	json_object_set_new(o, "base", base_json(v));
	put_text(o, "arch", v->arch);
	put_text(o, "mirror", v->mirror);
	if (v->base == VSE_BASE_DISTRO)
		json_object_set_new(o, "components", list_json(&v->components));
	json_object_set_new(o, "packages", list_json(&v->packages));
	json_object_set_new(o, "files", files_json(v));
	json_object_set_new(o, "env", env_json(v));
	json_object_set_new(o, "build", list_json(&v->build));
	put_text(o, "init", v->init == VSE_INIT_SYSTEMD ? "systemd" : "vse");
	put_text(o, "kernel", v->kernel);
	json_object_set_new(o, "needs", needs_json(v));
	json_object_set_new(o, "network",
			    json_pack("{s:b, s:s}", "outbound", v->net_outbound, "subnet",
				      v->net_subnet));
	return o;
}

/* ---- only what the file gives ---- */

static void prune(const struct vse *v, json_t *o, const struct spec_field *fields, const char *prefix)
{
	for (const struct spec_field *f = fields; f->name; f++) {
		_cleanup_free_ char *path = xasprintf("%s%s", prefix, f->name);
		json_t *value = json_object_get(o, f->name), *item;
		size_t i;
		if (!vse_gives(v, path)) {
			json_object_del(o, f->name);
		} else if (f->kind == SPEC_MAP) {
			_cleanup_free_ char *below = xasprintf("%s.", path);
			prune(v, value, f->fields, below);
		} else if (f->kind == SPEC_MAPS) {
			json_array_foreach (value, i, item) {
				_cleanup_free_ char *below = xasprintf("%s[%zu].", path, i);
				prune(v, item, f->fields, below);
			}
		}
	}
}

json_t *vse_given_json(const struct vse *v)
{
	json_t *o = vse_to_json(v);
	prune(v, o, spec_fields, "");
	return o;
}

/* ---- YAML ---- */

static void send(yaml_emitter_t *e, yaml_event_t *event)
{
	/* Fails only without memory: the writer below does not fail, and the events follow the grammar. */
	if (!yaml_emitter_emit(e, event))
		abort();
}

/* A block is kept for what stays the same in one: some lines of ordinary characters. The others are left to
 * libyaml, or are quoted where its blocks are known to change them (a first line that begins with a space or is
 * empty, Unicode's own line ends). */
static yaml_scalar_style_t style_of(const char *text)
{
	if (!*text) /* unquoted it would be no value */
		return YAML_DOUBLE_QUOTED_SCALAR_STYLE;
	if (!strchr(text, '\n'))
		return YAML_ANY_SCALAR_STYLE;
	if (strchr(" \t\n", *text))
		return YAML_DOUBLE_QUOTED_SCALAR_STYLE;
	for (const unsigned char *p = (const unsigned char *)text; *p; p++)
		if ((*p < 0x20 && *p != '\n' && *p != '\t') || *p == 0x7f || *p == 0xc2 ||
		    *p == 0xe2 || *p >= 0xef)
			return YAML_DOUBLE_QUOTED_SCALAR_STYLE;
	return YAML_LITERAL_SCALAR_STYLE;
}

static void send_text(yaml_emitter_t *e, const char *text)
{
	yaml_event_t event;
	if (!yaml_scalar_event_initialize(&event, NULL, NULL, (const unsigned char *)text,
					  (int)strlen(text), 1, 1, style_of(text)))
		abort();
	send(e, &event);
}

/* The largest unit that keeps the number whole. */
static void bytes_text(uint64_t n, char out[32])
{
	static const char units[] = "\0KMGT";
	size_t u = 0;
	while (n && n % 1024 == 0 && u < 4) {
		n /= 1024;
		u++;
	}
	snprintf(out, 32, "%" PRIu64 "%.1s", n, units + u);
}

static void send_json(yaml_emitter_t *e, const json_t *j, const struct spec_field *f);

static void send_object(yaml_emitter_t *e, const json_t *j, const struct spec_field *fields)
{
	yaml_event_t event;
	const char *key;
	json_t *value;
	yaml_mapping_start_event_initialize(&event, NULL, NULL, 1, YAML_BLOCK_MAPPING_STYLE);
	send(e, &event);
	json_object_foreach ((json_t *)j, key, value) {
		send_text(e, key);
		send_json(e, value, fields ? spec_find(fields, key) : NULL);
	}
	yaml_mapping_end_event_initialize(&event);
	send(e, &event);
}

static void send_json(yaml_emitter_t *e, const json_t *j, const struct spec_field *f)
{
	yaml_event_t event;
	char number[32];
	size_t i;
	json_t *item;
	switch (json_typeof(j)) {
	case JSON_OBJECT: send_object(e, j, f ? f->fields : NULL); break;
	case JSON_ARRAY:
		yaml_sequence_start_event_initialize(&event, NULL, NULL, 1, YAML_BLOCK_SEQUENCE_STYLE);
		send(e, &event);
		json_array_foreach (j, i, item)
			send_json(e, item, f);
		yaml_sequence_end_event_initialize(&event);
		send(e, &event);
		break;
	case JSON_INTEGER:
		snprintf(number, sizeof(number), "%" JSON_INTEGER_FORMAT, json_integer_value(j));
		if (f && f->bytes)
			bytes_text((uint64_t)json_integer_value(j), number);
		send_text(e, number);
		break;
	case JSON_TRUE:
	case JSON_FALSE: send_text(e, json_is_true(j) ? "true" : "false"); break;
	default: send_text(e, json_string_value(j));
	}
}

static int append(void *arg, unsigned char *data, size_t len)
{
	buf_add(arg, data, len);
	return 1;
}

static char *json_to_yaml(json_t *taken)
{
	yaml_emitter_t e;
	yaml_event_t event;
	struct buf out = BUF_INIT;
	if (!yaml_emitter_initialize(&e))
		abort();
	yaml_emitter_set_output(&e, append, &out);
	yaml_emitter_set_unicode(&e, 1);
	yaml_emitter_set_width(&e, -1);
	yaml_stream_start_event_initialize(&event, YAML_UTF8_ENCODING);
	send(&e, &event);
	yaml_document_start_event_initialize(&event, NULL, NULL, NULL, 1);
	send(&e, &event);
	send_object(&e, taken, spec_fields);
	yaml_document_end_event_initialize(&event, 1);
	send(&e, &event);
	yaml_stream_end_event_initialize(&event);
	send(&e, &event);
	yaml_emitter_delete(&e);
	json_decref(taken);
	return buf_take(&out);
}

char *vse_to_yaml(const struct vse *v)
{
	return json_to_yaml(vse_to_json(v));
}

char *vse_given_yaml(const struct vse *v)
{
	return json_to_yaml(vse_given_json(v));
}
