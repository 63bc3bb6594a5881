/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VSE_IO_CHILD_FILTER_H
#define VSE_IO_CHILD_FILTER_H

/* For this process and what it executes, for good (io/child.h, no_set_id). -1 with errno. Between fork and exec, too. */
int child_filter_set_id(void);

#endif
