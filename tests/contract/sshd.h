/* SPDX-License-Identifier: Apache-2.0 */
/* A real sshd of this user's own on 127.0.0.1, on a port that was free, with keys in a folder of the test. */
#ifndef VSE_TESTS_CONTRACT_SSHD_H
#define VSE_TESTS_CONTRACT_SSHD_H

#include <stdbool.h>
#include <sys/types.h>

/* Starts it; max_startups as sshd_config(5) has it. *ret_config: a file for `ssh -F` in which n1 to n99 and "far", where
 * nothing listens, and "dead", where connections hang, are hosts; malloc'ed. False, with a word why: it cannot run
 * here. */
bool sshd_start(const char *folder, const char *max_startups, char **ret_config, const char **ret_why);
void sshd_stop(void);
bool sshd_is(pid_t pid); /* its own process, not one of a connection */

#endif
