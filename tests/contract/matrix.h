/* SPDX-License-Identifier: Apache-2.0 */
/* The matrix of the contract: rows operations, columns back ends (or ways to run one). */
#ifndef VSE_TESTS_CONTRACT_MATRIX_H
#define VSE_TESTS_CONTRACT_MATRIX_H

#include "base/buf.h"
#include "hypervisor/hypervisor.h"

enum cell { CELL_UNTESTED, CELL_PASS, CELL_ENOTSUP, CELL_FAIL };

/* One line a cell, added to a file that several runs share: label, operation, result, reason; tabs between. */
int matrix_save(const char *path, const char *label, const enum cell cells[HV_CAPS],
		const char *const reasons[HV_CAPS], struct err *err);
/* The table of all lines of the file, with the reasons below it. */
int matrix_print(const char *path, struct err *err);
/* What the code says of every back end, as the table of docs/hypervisors.md. */
void matrix_docs(struct buf *out);
bool matrix_in_docs(const char *path, struct err *err); /* that file has it */
/* What `contract` does without a back end: prints the matrix of a file, or the table for NULL. Gives the exit code. */
int matrix_only(const char *path);

/* only: words with commas between them, of which a wanted test has one in its name; NULL: all are wanted. */
bool test_wanted(const char *only, const char *name);

#endif
