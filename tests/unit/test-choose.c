/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "cluster/choose.h"
#include "cluster/cloning.h"
#include "tap.h"

static struct err err;
static char refused[2000];

/* The names with commas, or the error. */
static const char *chosen(const struct cluster_spec *s)
{
	static char text[2000];
	_cleanup_strvec_ struct strvec names = STRVEC_INIT;
	_cleanup_buf_ struct buf why = BUF_INIT, out = BUF_INIT;
	err = ERR_INIT;
	if (choose_names(s, &names, &why, &err) < 0)
		buf_adds(&out, err.text);
	for (size_t i = 0; i < names.n; i++)
		buf_addf(&out, "%s%s", i ? "," : "", names.v[i]);
	snprintf(text, sizeof(text), "%s", buf_cstr(&out));
	snprintf(refused, sizeof(refused), "%s", buf_cstr(&why));
	return text;
}

static bool among(const char *list, const char *name)
{
	_cleanup_strvec_ struct strvec names = STRVEC_INIT;
	strvec_split(&names, list, ",");
	return strvec_has(&names, name);
}

static void test_names(void)
{
	struct cluster_spec s = {.hypervisor = (char *)"container,qemu", .size = 2};
	is_str(chosen(&s), "container,qemu", "the order that was given");
	is_str(refused, "", "nothing is refused");
	s.hypervisor = (char *)"qemu,qemu";
	is_str(chosen(&s), "qemu", "a name twice counts once");
	s.hypervisor = (char *)"qemu,nosuch";
	ok(strstr(chosen(&s), "'nosuch'") && err.code == EINVAL, "an unknown name: %s", err.text);
	s.hypervisor = (char *)",";
	ok(strstr(chosen(&s), "no hypervisor") && err.code == EINVAL, "no name: %s", err.text);
	s.hypervisor = (char *)"palacios,container,qemu";
	s.scratch = 1 << 20;
	is_str(chosen(&s), "qemu", "only who has a network and a scratch disk");
	ok(strstr(refused, "palacios: ") && strstr(refused, "container: "), "the others: %s", refused);
	s.hypervisor = (char *)"container";
	is_str(chosen(&s), "container", "one name is no choice: it says itself what it cannot do");
	s = (struct cluster_spec){.hypervisor = (char *)"container,qemu", .size = 1, .systemd = true};
	is_str(chosen(&s), "qemu", "systemd wants a kernel of its own");
	s = (struct cluster_spec){.hypervisor = (char *)"container,palacios", .size = 1, .outbound = true};
	ok(strstr(chosen(&s), "container: ") && strstr(chosen(&s), "palacios: ") && err.code == ENOTSUP,
	   "none is left: %s", err.text);
}

/* In a cluster of several kinds a word is for those who know it. */
static void test_words(void)
{
	struct cluster_spec s = {.hypervisor = (char *)"qemu,xen",
				 .size = 2,
				 .accel = (char *)"kvm",
				 .machine = (char *)"pv"};
	is_str(chosen(&s), "qemu,xen", "an accelerator of the one, a machine of the other");
	s.accel = (char *)"vmx";
	ok(strstr(chosen(&s), "accelerator vmx: ") && err.code == EINVAL, "a word of none: %s",
	   err.text);
	s.accel = (char *)"auto";
	s.machine = (char *)"pc";
	ok(strstr(chosen(&s), "machine type pc: ") && err.code == EINVAL, "a word of another: %s",
	   err.text);
	s.hypervisor = (char *)"qemu";
	is_str(chosen(&s), "qemu", "one name says itself what it knows");
	is_str(hypervisor_word("pv pvh", "pvh"), "pvh", "it has the word");
	is_str(hypervisor_word("pv pvh", "p"), "auto", "a part of one is none");
	is_str(hypervisor_word(NULL, "kvm"), "auto", "nor has it where it has no words");
}

static void test_floor(void)
{
	struct cluster_spec s = {.hypervisor = (char *)"auto", .size = 2};
	const char *list = chosen(&s);
	ok(strncmp(list, "qemu", 4) == 0 && !among(list, "container") && !among(list, "fake"),
	   "auto: VMs only: %s", list);
	ok(strstr(refused, "container: ") && strstr(refused, "protection: container"),
	   "and how a container would be one: %s", refused);
	s.protection = (char *)PROTECTION_CONTAINER;
	list = chosen(&s);
	ok(strncmp(list, "qemu,", 5) == 0 && strcmp(list + strlen(list) - 9, "container") == 0,
	   "with that floor it comes last: %s", list);
	s.hypervisor = (char *)"container";
	is_str(chosen(&s), "container", "and may be named");
	s.protection = (char *)PROTECTION_VM;
	ok(strstr(chosen(&s), "protection: vm") && err.code == ENOTSUP,
	   "with the other not even by name: %s", err.text);
	s.hypervisor = (char *)"container,qemu";
	is_str(chosen(&s), "qemu", "nor in a list");
	s.hypervisor = (char *)"fake";
	is_str(chosen(&s), "fake", "what runs nothing needs no wall");
}

static void test_here(void)
{
	_cleanup_strvec_ struct strvec names = STRVEC_INIT;
	_cleanup_free_ char *why = NULL, *none = NULL;
	struct hv_probe p = {0};
	setenv("VSE_QEMU", "/nonexistent/qemu", 1);
	strvec_addv(&names, "qemu", "fake", NULL);
	const char *name = choose_here(&names, "auto", &p, &why);
	ok(name && strcmp(name, "fake") == 0, "the first that is usable");
	ok(p.usable && strcmp(p.accel, "fake") == 0 && !p.memory, "with its answer");
	ok(strncmp(why, "qemu: ", 6) == 0 && !strchr(why, '\n'), "and why not the one before: %s", why);
	free(names.v[1]);
	names.v[1] = xstrdup("nosuch");
	name = choose_here(&names, "auto", &p, &none);
	ok(!name && strstr(none, "; nosuch: "), "nothing: %s", none);
	free(names.v[0]);
	names.v[0] = xstrdup("container");
	free(none);
	none = NULL;
	choose_here(&names, "kvm", &p, &none);
	ok(!strstr(none, "accelerator"), "an accelerator that it has not keeps it from nothing: %s",
	   none);
}

/* Whether VMs that nobody wants cloned or booted are cloned. */
static void test_cloning(void)
{
	struct vm_profile p = {.hypervisor = hypervisor_find("qemu"), .probe = {.accel = "tcg"}};
	struct cluster_spec s = {.cpus = 2, .memory = 64 << 20};
	ok(!cloning_lacks(&s, &p, 4, 8), "emulated: they are");
	snprintf(p.probe.accel, sizeof(p.probe.accel), "kvm");
	is_str(cloning_lacks(&s, &p, 4, 8), "each VM has CPUs of its own",
	       "under KVM with CPUs for all they are not");
	ok(!cloning_lacks(&s, &p, 5, 8), "with fewer they are");
	s.bind.memory = true;
	ok(strstr(cloning_lacks(&s, &p, 5, 8), "--mem-bind"), "not where memory is to be near");
	s.bind.memory = false;
	s.memory = UINT64_C(1) << 60;
	ok(strstr(cloning_lacks(&s, &p, 5, 8), "no memory"),
	   "not where there is no memory for one more");
	s.clone = CLONE_ALWAYS;
	ok(!cloning_lacks(&s, &p, 4, 8), "whoever asks for clones gets them");
	s.scratch = 1;
	ok(strstr(cloning_lacks(&s, &p, 4, 8), "scratch disk"), "where that can be");
	p.hypervisor = hypervisor_find("fake");
	s = (struct cluster_spec){.cpus = 1, .memory = 64 << 20};
	ok(strstr(cloning_lacks(&s, &p, 4, 1), "script"), "the fake's are not");
}

int main(void)
{
	test_names();
	test_words();
	test_floor();
	test_here();
	test_cloning();
	return done();
}
