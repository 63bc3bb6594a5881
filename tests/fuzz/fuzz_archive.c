/* SPDX-License-Identifier: Apache-2.0 */
/* The reader of archives: whatever comes, nothing appears outside the target folder and no temporary file
 * stays. The first byte says in pieces of which size the rest is fed, and whether under another name. */
#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>

#include "base/path.h"
#include "wire/archive.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

static char top[40] = "/dev/shm/vse-fuzz-archive.XXXXXX"; /* in memory, where there is one */
static char jail[64], in[64];                             /* top/jail, top/jail/in */

static void clean(void)
{
	path_remove(top, NULL);
}

int LLVMFuzzerInitialize(int *argc _unused_, char ***argv _unused_)
{
	if (!mkdtemp(top)) {
		snprintf(top, sizeof(top), "/tmp/vse-fuzz-archive.XXXXXX");
		if (!mkdtemp(top))
			abort();
	}
	snprintf(jail, sizeof(jail), "%s/jail", top);
	snprintf(in, sizeof(in), "%s/jail/in", top);
	atexit(clean);
	return 0;
}

static void check_folder(const char *path, const char *only)
{
	DIR *d = opendir(path);
	struct dirent *e;
	if (!d)
		abort();
	while ((e = readdir(d)))
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 &&
		    (only ? strcmp(e->d_name, only) != 0 : strncmp(e->d_name, ".vse-copy-", 10) == 0))
			abort();
	closedir(d);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct archive_reader *r;
	if (size < 1 || mkdir(jail, 0700) < 0 || mkdir(in, 0700) < 0)
		return 0;
	size_t step = (data[0] & 127) + 1;
	bool named = data[0] & 128;
	int fd = open(in, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || archive_reader_create(fd, named ? "name" : NULL, &r, NULL) < 0)
		abort();
	int code = 0;
	for (size_t i = 1; i < size && code == 0; i += step)
		code = archive_reader_feed(r, data + i, MIN(step, size - i), NULL);
	if (code == 0)
		archive_reader_finish(r, NULL);
	archive_reader_destroy(r);
	close(fd);
	check_folder(jail, "in");
	check_folder(in, named ? "name" : NULL);
	check_folder(top, "jail");
	path_remove(jail, NULL);
	return 0;
}
