/* SPDX-License-Identifier: Apache-2.0 */
/* The contract of snapshot and clone (hypervisor.h). */
#ifndef VSE_TESTS_CONTRACT_CLONE_CASES_H
#define VSE_TESTS_CONTRACT_CLONE_CASES_H

#include "testvm.h"

void test_clone(struct env *env);

#endif
