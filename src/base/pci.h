/* SPDX-License-Identifier: Apache-2.0 */
/* How PCI devices are named: by kind, "pci:15b3:101e" (vendor and device in hexadecimal digits, as lspci -n has them), or by where one
 * is on its node, "pci:0000:3b:00.0". */
#ifndef VSE_BASE_PCI_H
#define VSE_BASE_PCI_H

#include <stdbool.h>

bool pci_is_kind(const char *name);
bool pci_is_place(const char *name);
bool pci_is_address(const char *address); /* "0000:3b:00.0" */

#endif
