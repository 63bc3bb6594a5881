/* SPDX-License-Identifier: Apache-2.0 */
#include "base/pci.h"

#include <ctype.h>
#include <string.h>

/* x: a hexadecimal digit. */
static bool looks(const char *s, const char *pattern)
{
	for (; *pattern; s++, pattern++)
		if (*pattern == 'x' ? !isxdigit((unsigned char)*s) : *s != *pattern)
			return false;
	return !*s;
}

bool pci_is_kind(const char *name)
{
	return looks(name, "pci:xxxx:xxxx");
}

bool pci_is_address(const char *address)
{
	return looks(address, "xxxx:xx:xx.x");
}

bool pci_is_place(const char *name)
{
	return strncmp(name, "pci:", 4) == 0 && pci_is_address(name + 4);
}
