/* SPDX-License-Identifier: Apache-2.0 */
/* The part of the contract that is about eth0 as a tap of the node's kernel. */
#ifndef VSE_TESTS_CONTRACT_TAP_CASES_H
#define VSE_TESTS_CONTRACT_TAP_CASES_H

#include "testvm.h"

/* False: it cannot be tried, because the back end lacks it (that it is refused is checked), or only root may (printed). */
bool tap_can_be_tried(struct env *env);
void test_tap(struct env *env);

#endif
