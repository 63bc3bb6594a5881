# SPDX-License-Identifier: Apache-2.0
"""What the stand-ins for resource managers share: tasks on "nodes", which are all this host. STAND-INS, written from
public text: what passes with them was not tested on the manager itself."""
import ctypes
import os
import selectors
import signal
import subprocess
import sys

PR_SET_PDEATHSIG = 1
libc = ctypes.CDLL(None)


def die_with_parent():
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def no_agent_there(argv):
    """As a manager tells it: the program is not on the node."""
    return not os.access(argv[0], os.X_OK)


class Task:
    def __init__(self, number, node, argv, env, stdin, cwd=None, before=None, fds=()):
        self.number, self.node, self.status = number, node, None
        self.process = subprocess.Popen(
            argv, env=env, cwd=cwd, start_new_session=True, pass_fds=fds, preexec_fn=before,
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def kill(self, signo):
        if self.status is None:
            self.process.send_signal(signo)


def close_input(tasks):
    for t in tasks:
        if t.process.stdin:
            try:
                t.process.stdin.close()
            except OSError:
                pass


def broadcast(tasks, data):
    for t in tasks:
        if t.process.stdin and not t.process.stdin.closed:
            try:
                t.process.stdin.write(data)
                t.process.stdin.flush()
            except OSError:
                t.process.stdin = None


def run(tasks, stdin=False, label=False, on_signal=None, signals=(signal.SIGTERM,), on_end=None):
    """Until all tasks have ended; hands our input to those that have one, their output to ours. on_signal(signo) and
    on_end(task) are called from here."""
    wake_r, wake_w = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake_w, warn_on_full_buffer=False)
    for s in (signal.SIGCHLD, *signals):
        signal.signal(s, lambda *_: None)
    sel = selectors.PollSelector()
    sel.register(wake_r, selectors.EVENT_READ, 'wake')
    if stdin:
        sel.register(0, selectors.EVENT_READ, 'stdin')
    for t in tasks:
        sel.register(t.process.stdout, selectors.EVENT_READ, t)
    open_outputs = len(tasks)
    while open_outputs or any(t.status is None for t in tasks):
        for key, _ in sel.select(timeout=1):
            if key.data == 'wake':
                for s in os.read(wake_r, 64):
                    if s != signal.SIGCHLD and on_signal:
                        on_signal(s)
            elif key.data == 'stdin':
                data = os.read(0, 65536)
                if data:
                    broadcast(tasks, data)
                else:
                    sel.unregister(0)
                    close_input(tasks)
            else:
                data = os.read(key.fd, 65536)
                if not data:
                    sel.unregister(key.fileobj)
                    open_outputs -= 1
                for line in data.splitlines(True):
                    prefix = f'{key.data.number}: '.encode() if label else b''
                    os.write(1, prefix + line)
        for t in tasks:
            if t.status is None and t.process.poll() is not None:
                t.status = t.process.returncode
                if on_end:
                    on_end(t)
    return tasks


def exit_code(tasks):
    """The highest, 128 + N for signal N."""
    return max([128 - t.status if t.status < 0 else t.status for t in tasks], default=0)


def fail(text, code=1):
    sys.stderr.write(text + '\n')
    sys.exit(code)


def login_env(**more):
    """What a task of PBS gets: not the environment of the job's script."""
    keep = ('HOME', 'USER', 'LOGNAME', 'SHELL', 'LANG', 'VSE_LAUNCH_TEST', 'PBS_JOBID', 'PBS_JOBCOOKIE', 'ASAN_OPTIONS')
    env = {k: os.environ[k] for k in keep if k in os.environ}
    env['PATH'] = '/usr/bin:/bin'
    env.update(more)
    return env


def node_file_hosts():
    with open(os.environ['PBS_NODEFILE']) as f:
        return list(dict.fromkeys(line.strip() for line in f if line.strip()))
