/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a VSE file. What loads must come back the same from both of its YAML forms; what does not must
 * say why, in lines of printable text. */
#include <stdint.h>
#include <string.h>

#include "base/alloc.h"
#include "spec/vse.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_problems(const struct strvec *problems)
{
	if (!problems->n)
		abort();
	for (size_t i = 0; i < problems->n; i++)
		for (const char *p = problems->v[i]; *p; p++)
			if ((unsigned char)*p < 0x20 || *p == 0x7f)
				abort();
}

static void check_again(const struct vse *v, char *taken)
{
	_cleanup_free_ char *text = taken;
	_cleanup_strvec_ struct strvec problems = STRVEC_INIT;
	_cleanup_vse_ struct vse *again = NULL;
	if (strlen(text) > VSE_FILE_MAX)
		return;
	if (vse_load_text("/again.yaml", text, strlen(text), &again, &problems, NULL) < 0) {
		fprintf(stderr, "%s\n%s\n", problems.v[0], text);
		abort();
	}
	json_t *a = vse_to_json(v), *b = vse_to_json(again);
	if (!json_equal(a, b)) {
		fprintf(stderr, "not the same:\n%s\n", text);
		abort();
	}
	json_decref(a);
	json_decref(b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_strvec_ struct strvec problems = STRVEC_INIT;
	_cleanup_vse_ struct vse *v = NULL;
	struct err err = ERR_INIT;
	if (vse_load_text("/fuzz.yaml", (const char *)data, size, &v, &problems, &err) < 0) {
		check_problems(&problems);
		return 0;
	}
	check_again(v, vse_to_yaml(v));
	check_again(v, vse_given_yaml(v));
	return 0;
}
