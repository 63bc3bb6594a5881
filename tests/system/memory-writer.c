/* SPDX-License-Identifier: Apache-2.0 */
/* memory-writer PAGES: a process in the background that writes a number into each of its pages, the next one when all have it, and
 * looks each time whether the last one is still there. /tmp/lost: it was not; says where. /tmp/stop: ends it, with the number in /tmp/done. For a VM that moves
 * meanwhile: a guest with one busy process shows best what is lost of its writes. */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096

static _Noreturn void lost(size_t page, uint64_t is, uint64_t was)
{
	FILE *f = fopen("/tmp/lost", "w");
	if (f) {
		fprintf(f, "page %zu has %llu, and had %llu\n", page, (unsigned long long)is,
			(unsigned long long)was);
		fclose(f);
	}
	_exit(1);
}

static int done(uint64_t number)
{
	FILE *f = fopen("/tmp/done.new", "w");
	return !f || fprintf(f, "%llu\n", (unsigned long long)number) < 0 || fclose(f) ||
	       rename("/tmp/done.new", "/tmp/done");
}

int main(int argc, char **argv)
{
	size_t n = argc == 2 ? strtoul(argv[1], NULL, 10) : 0;
	volatile char *memory = mmap(NULL, n * PAGE, PROT_READ | PROT_WRITE,
				     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (!n || memory == MAP_FAILED || daemon(0, 0) < 0)
		return 1;
	for (uint64_t number = 1;; number++) {
		for (size_t i = 0; i < n; i++) {
			volatile uint64_t *at = (volatile uint64_t *)(memory + i * PAGE);
			if (*at != number - 1)
				lost(i, *at, number - 1);
			*at = number;
		}
		if (access("/tmp/stop", F_OK) == 0)
			return done(number);
	}
}
