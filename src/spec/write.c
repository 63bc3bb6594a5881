/* SPDX-License-Identifier: Apache-2.0 */
/* The object as JSON, whole or only what the file gives, and as YAML by way of that. */
#include "base/alloc.h"
#include "spec/emit.h"
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
	return json_pack("{s:I, s:I, s:I, s:o}", "cpus", (json_int_t)v->cpus, "memory",
			 (json_int_t)v->memory, "scratch", (json_int_t)v->scratch, "devices",
			 list_json(&v->devices));
}

static json_t *mounts_json(const struct vse *v)
{
	json_t *a = json_array();
	for (size_t i = 0; i < v->n_mounts; i++)
		json_array_append_new(a, json_pack("{s:s, s:s, s:s}", "host", v->mounts[i].host,
						   "guest", v->mounts[i].guest, "mode",
						   v->mounts[i].rw ? "rw" : "ro"));
	return a;
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
	put_text(o, "protection", v->protection);
	json_object_set_new(o, "needs", needs_json(v));
	json_object_set_new(o, "mounts", mounts_json(v));
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

static char *yaml_of(json_t *taken)
{
	char *text = emit_yaml(taken, spec_fields);
	json_decref(taken);
	return text;
}

char *vse_to_yaml(const struct vse *v)
{
	return yaml_of(vse_to_json(v));
}

char *vse_given_yaml(const struct vse *v)
{
	return yaml_of(vse_given_json(v));
}
