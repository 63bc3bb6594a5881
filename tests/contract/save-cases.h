/* SPDX-License-Identifier: Apache-2.0 */
/* The contract of save, restore and migration. */
#ifndef VSE_TESTS_CONTRACT_SAVE_CASES_H
#define VSE_TESTS_CONTRACT_SAVE_CASES_H

#include "testvm.h"

void test_save_and_restore(struct env *env);
void test_save_fails(struct env *env);
void test_migrate(struct env *env);
void test_post_copy(struct env *env);

/* pin-cases.c */
void test_pin(struct env *env);
void test_numa(struct env *env);
void test_hugepages(struct env *env);

/* dir-cases.c: host directories */
void test_host_dir(struct env *env);
void test_devices(struct env *env);

#endif
