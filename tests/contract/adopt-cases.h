/* SPDX-License-Identifier: Apache-2.0 */
/* The part of the contract that is about adoption: one process starts a VM and dies, this one goes on with it. */
#ifndef VSE_TESTS_CONTRACT_ADOPT_CASES_H
#define VSE_TESTS_CONTRACT_ADOPT_CASES_H

#include "testvm.h"

void adopt_cases(struct env *env);

#endif
