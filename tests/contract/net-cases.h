/* SPDX-License-Identifier: Apache-2.0 */
/* The wire of eth0: frames as long as the guest's MTU allows go through, both ways. */
#ifndef VSE_TESTS_CONTRACT_NET_CASES_H
#define VSE_TESTS_CONTRACT_NET_CASES_H

#include "testvm.h"

void test_long_frames(struct testvm *t); /* one that is ready, and has net_fd, from which nothing was read */

#endif
