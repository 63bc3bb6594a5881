/* SPDX-License-Identifier: Apache-2.0 */
/* The part of the contract that the dispatcher keeps for all: what a back end lacks. */
#ifndef VSE_TESTS_CONTRACT_LACKING_CASES_H
#define VSE_TESTS_CONTRACT_LACKING_CASES_H

#include "testvm.h"

void test_lacking(struct env *env);

#endif
