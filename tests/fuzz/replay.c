/* SPDX-License-Identifier: Apache-2.0 */
/* replay FOLDER: what a fuzzer found in the past, as a test for any compiler: each file of its corpus goes through
 * the fuzz target, which aborts on a mistake. The plan comes first and each verdict at once, so that a crash is
 * the input that has none. */
#include <dirent.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/path.h"
#include "base/strvec.h"
#include "tap.h"

#define INPUT_MAX (1u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
__attribute__((weak)) int LLVMFuzzerInitialize(int *argc, char ***argv);

static void one(const char *folder, const char *name)
{
	_cleanup_free_ char *path = path_join(folder, name), *data = NULL;
	struct err err = ERR_INIT;
	size_t len;
	if (path_read(path, INPUT_MAX, &data, &len, &err) < 0) {
		ok(false, "%s: %s", name, err.text);
		return;
	}
	/* Of just this size, so that the sanitizers see a read past its end. */
	uint8_t *exact = xmalloc(len ? len : 1);
	memcpy(exact, data, len);
	is_int(LLVMFuzzerTestOneInput(exact, len), 0, "%s", name);
	free(exact);
}

int main(int argc, char **argv)
{
	_cleanup_strvec_ struct strvec names = STRVEC_INIT;
	DIR *d = argc == 2 ? opendir(argv[1]) : NULL;
	struct dirent *e;
	while (d && (e = readdir(d)))
		if (e->d_name[0] != '.')
			strvec_add(&names, e->d_name);
	if (d)
		closedir(d);
	if (!names.n) {
		puts("Bail out! no corpus");
		return 1;
	}
	strvec_sort(&names);
	printf("1..%zu\n", names.n);
	fflush(stdout);
	if (LLVMFuzzerInitialize)
		LLVMFuzzerInitialize(&argc, &argv);
	for (size_t i = 0; i < names.n; i++)
		one(argv[1], names.v[i]);
	return tap_failed ? 1 : 0;
}
