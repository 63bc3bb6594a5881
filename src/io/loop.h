/* SPDX-License-Identifier: Apache-2.0 */
/* The event loop, its timers, descriptor watches and signals. libuv is behind these four files of io/
 * and nowhere else. One thread; callbacks run from loop_run() and may destroy any object, their own too. */
#ifndef VSE_IO_LOOP_H
#define VSE_IO_LOOP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct loop;
struct evtimer; /* "ev": POSIX has a timer_create() of its own */
struct watch;
struct sigwatch;

struct loop *loop_create(void);
void loop_destroy(struct loop *l); /* after every object on it was destroyed; NULL is fine */
void loop_run(struct loop *l);     /* until loop_stop(), or until nothing is left to wait for */
/* One round: runs what is due, waiting for at most the next event. False when nothing is left. */
bool loop_run_once(struct loop *l);
void loop_stop(struct loop *l);
/* For a loop of somebody else: when the descriptor can be read, or so many milliseconds have passed (-1: no limit), a
 * round has something to run. */
int loop_fd(const struct loop *l);
int loop_timeout(const struct loop *l);
uint64_t loop_now(struct loop *l); /* monotonic milliseconds, of the start of this round */

/* A timer, made stopped. evtimer_start() of a running one starts it anew. repeat_ms 0 = once. */
struct evtimer *evtimer_create(struct loop *l, void (*fn)(void *arg), void *arg);
void evtimer_start(struct evtimer *t, uint64_t ms, uint64_t repeat_ms);
void evtimer_stop(struct evtimer *t);
void evtimer_destroy(struct evtimer *t); /* NULL is fine */

/* Watches a descriptor (borrowed: closed by its owner after watch_destroy()). A regular file counts as
 * always ready. Made with no event wanted. */
enum { WATCH_READ = 1, WATCH_WRITE = 2 };
struct watch *watch_create(struct loop *l, int fd, void (*fn)(void *arg, int events), void *arg,
			   struct err *err);
void watch_set(struct watch *w, int events);
void watch_destroy(struct watch *w); /* NULL is fine */

struct sigwatch *sigwatch_create(struct loop *l, int signo, void (*fn)(void *arg, int signo), void *arg);
void sigwatch_destroy(struct sigwatch *s); /* NULL is fine */

#endif
