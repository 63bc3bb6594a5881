/* SPDX-License-Identifier: Apache-2.0 */
/* Requests in work: a program, or a copy into or out of the VM. */
#ifndef VSE_GUEST_REQUEST_H
#define VSE_GUEST_REQUEST_H

#include "guest/guest.h"

struct archive_reader;
struct archive_writer;

enum request_kind { REQUEST_EXEC, REQUEST_PUT, REQUEST_GET };

struct exec {
	pid_t pid; /* leader of its own session and process group */
	bool tty;
	int fd[3];     /* our ends; with tty the master is fd[1]; -1 = closed */
	struct buf in; /* came from the host, not yet taken by the program */
	bool in_end;   /* the host will send no more */
	bool in_cut;   /* the program takes no more: the rest is thrown away */
	bool end_sent[3];
	bool exited;
	int status;       /* as waitpid(2) gives it */
	uint64_t cut_at;  /* ms: what holds the output open then is left behind; 0 = not yet */
	int64_t drain[3]; /* after cut_at: bytes still to be read; -1 = no limit yet */
	uint64_t kill_at; /* ms: SIGKILL; 0 = not */
};

struct copy {
	struct archive_reader *reader;
	struct archive_writer *writer;
};

struct request {
	struct request *next;
	uint32_t id; /* 0: the host is not told any more */
	enum request_kind kind;
	bool over;          /* freed at the end of the round */
	uint32_t window;    /* bytes of fd 0 the host may still send */
	uint32_t taken;     /* bytes of fd 0 used up and not yet granted anew */
	uint64_t credit[3]; /* bytes of fd 1 and 2 we may still send */
	union {
		struct exec exec;
		struct copy copy;
	};
};

/* NULL with err set: EAGAIN (too many), EEXIST, EINVAL (id 0). */
struct request *request_new(struct guest *g, uint32_t id, enum request_kind kind, struct err *err);
struct request *request_find(struct guest *g, uint32_t id);
void request_sweep(struct guest *g); /* frees those that are over */
/* Data or credit for a request of that id; for an unknown one (it ended meanwhile) it is thrown away. */
void request_frame(struct guest *g, const struct frame *f);
/* `n` bytes of fd 0 were used: grants the host as many again, in few frames. */
void request_taken(struct guest *g, struct request *r, size_t n);
void request_fail(struct guest *g, struct request *r, const struct err *err); /* "error"; it is over */
void request_watch(struct guest *g, struct watches *w);
void request_tick(struct guest *g, uint64_t now);
/* The host is gone: programs get SIGHUP and a time to end, copies are dropped. */
void request_abandon_all(struct guest *g);
bool request_child(struct guest *g, pid_t pid, int status); /* false: not one of ours */
void request_each(struct guest *g, void (*fn)(struct guest *g, struct request *r, void *arg), void *arg);

/* exec.c */
void exec_start(struct guest *g, uint32_t id, const char *data, size_t len);
void exec_data(struct guest *g, struct request *r, const struct frame *f);
void exec_signal(struct guest *g, struct request *r, int signal);
void exec_resize(struct request *r, unsigned rows, unsigned cols);
void exec_cancel(struct request *r);
void exec_abandon(struct request *r);
void exec_watch(struct guest *g, struct request *r, struct watches *w);
void exec_tick(struct guest *g, struct request *r, uint64_t now);
void exec_exited(struct guest *g, struct request *r, int status);
void exec_finish(struct request *r);

/* copy.c */
void copy_put(struct guest *g, uint32_t id, const char *data, size_t len);
void copy_get(struct guest *g, uint32_t id, const char *data, size_t len);
void copy_data(struct guest *g, struct request *r, const struct frame *f);
void copy_cancel(struct guest *g, struct request *r);
void copy_watch(struct guest *g, struct request *r, struct watches *w);
void copy_tick(struct guest *g, struct request *r);
void copy_finish(struct request *r);

#endif
