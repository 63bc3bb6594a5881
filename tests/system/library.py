# SPDX-License-Identifier: Apache-2.0
"""What tests/system/library.t asks of the installed library, by ctypes: library.py FILE.yaml. Prints "ok NAME" lines."""
import ctypes
import errno
import json
import os
import re
import select
import signal
import sys
import threading
from ctypes import byref, c_char_p, c_int, c_int64, c_long, c_size_t, c_void_p

OUTPUT, EXITED, FAILED, WRITABLE, HAPPENED, ENDED = 4, 5, 6, 7, 8, 9
STARTING = 2
CALLBACK = ctypes.CFUNCTYPE(c_int, c_void_p, c_void_p)
FILE = sys.argv[1].encode()

vse = ctypes.CDLL("libvse.so.1")
for name in ("error_text", "error_option", "name", "event_ranks", "event_text", "event_json", "version"):
    getattr(vse, "vse_" + name).restype = c_char_p
for name in ("error_new", "options_new", "event_data"):
    getattr(vse, "vse_" + name).restype = c_void_p
vse.vse_event_number.restype = c_int64
vse.vse_write.restype = c_long
err = c_void_p(vse.vse_error_new())
keep = []  # callbacks, as long as the program


def text():
    return vse.vse_error_text(err).decode()


def ok(code):
    assert code >= 0, (code, text())
    return code


def fails(code, why, words=""):
    assert code == -why and vse.vse_error_code(err) == why, (code, text())
    assert words in text(), text()


def options(**given):
    o = c_void_p(vse.vse_options_new())
    for key, values in given.items():
        for value in values if isinstance(values, list) else [values]:
            ok(vse.vse_options_set(o, key.replace("_", "-").encode(), value.encode(), err))
    return o


def opened():
    s = c_void_p()
    ok(vse.vse_open(byref(s), err))
    return s


def up(s, fn=None, **given):
    c, o = c_void_p(), options(**{"hypervisor": "fake", "count": "3", **given})
    code = vse.vse_up(s, FILE, o, callback(fn) if fn else None, None, byref(c), err)
    vse.vse_options_free(o)
    return code, c


def callback(fn):
    keep.append(CALLBACK(lambda _arg, e: fn(c_void_p(e)) or 0))
    return keep[-1]


def argv(*words):
    return (c_char_p * (len(words) + 1))(*[w.encode() for w in words], None)


class Seen:
    """What a call told."""

    def __init__(self, inside=None):
        self.out, self.codes, self.events, self.ended, self.room, self.inside = {}, {}, [], [], 0, inside

    def __call__(self, e):
        kind, ranks = vse.vse_event_kind(e), vse.vse_event_ranks(e).decode()
        if kind == OUTPUT:
            n = c_size_t()
            p = vse.vse_event_data(e, byref(n))
            key = ranks, vse.vse_event_number(e, b"stream")
            self.out[key] = self.out.get(key, b"") + (ctypes.string_at(p, n.value) if n.value else b"")
        elif kind == EXITED:
            self.codes[ranks] = vse.vse_event_number(e, b"code")
        elif kind == HAPPENED:
            self.events.append(json.loads(vse.vse_event_json(e)))
            assert self.events[-1]["text"] == vse.vse_event_text(e).decode()
        elif kind == WRITABLE:
            self.room = vse.vse_event_number(e, b"bytes")
        elif kind == ENDED:
            self.ended.append(vse.vse_event_number(e, b"code"))
        return self.inside(e) if self.inside else 0


def run(c, seen, *words, **given):
    call, o = c_void_p(), options(**given)
    ok(vse.vse_exec(c, o, argv(*words), callback(seen), None, byref(call), err))
    vse.vse_options_free(o)
    return call


def status(c):
    p = c_char_p()
    ok(vse.vse_status(c, byref(p), err))
    j = json.loads(p.value)
    vse.vse_free(p)
    return j


def names(s):
    p = c_char_p()
    ok(vse.vse_list(s, byref(p), err))
    got = p.value.decode().split()
    vse.vse_free(p)
    return got


def signals():
    with open("/proc/self/status") as f:
        return re.findall(r"^(Sig(?:Blk|Ign|Cgt):.*)$", f.read(), re.M)


def test_wrong(s):
    c = c_void_p()
    o = options()
    fails(vse.vse_options_set(o, b"nosuch", b"x", err), errno.EINVAL, "nosuch")
    fails(vse.vse_options_set(o, b"count", b"x", err), errno.EINVAL, "count: ")
    assert vse.vse_error_option(err) == b"count"
    ok(vse.vse_options_set(o, b"ranks", b"all", err))
    fails(vse.vse_up(s, FILE, o, None, None, byref(c), err), errno.EINVAL, "ranks: not an option of this call")
    fails(vse.vse_up(s, b"/nosuch.yaml", None, None, None, byref(c), err), errno.ENOENT, "/nosuch.yaml")
    fails(vse.vse_attach(s, b"nosuch", byref(c), err), errno.ENOENT, "no cluster 'nosuch' runs")
    fails(vse.vse_attach(s, None, byref(c), err), errno.ENOENT, "no cluster runs")
    fails(vse.vse_set(s, b"agent", b"relative", err), errno.EINVAL, "relative")
    assert not c.value and vse.vse_attach(s, None, byref(c), None) == -errno.ENOENT
    vse.vse_options_free(o)


def test_up(s):
    steps = []

    def on_start(e):
        steps.append(vse.vse_event_number(e, b"total"))
        fails(vse.vse_dispatch(s, 0, err), errno.EDEADLK)
        assert vse.vse_close(s) == -errno.EDEADLK

    code, c = up(s, on_start, name="one")
    ok(code)
    assert steps[0] == 3 and vse.vse_name(c) == b"one" and vse.vse_size(c, None) == 3
    j = status(c)
    assert j["phase"] == "up" and [v["state"] for v in j["vms"]] == ["ready"] * 3 and j["vms"][0]["node"]
    assert names(s) == ["one"]
    code, _ = up(s, name="one")
    fails(code, errno.EEXIST, "runs already")
    return c


def test_exec(s, c):
    seen = Seen()
    call = run(c, seen, "exit", "3", ranks="1")
    assert vse.vse_exit_code(call, 1) == -1
    ok(vse.vse_wait(call, err))
    assert seen.ended == [0] and vse.vse_exit_code(call, 1) == 3 == vse.vse_exit_code_max(call), seen.codes
    assert vse.vse_exit_code(call, 0) == -1 == vse.vse_exit_code(call, 99)
    vse.vse_call_free(call)
    call = c_void_p()
    o = options(ranks="7")
    fails(vse.vse_exec(c, o, argv("true"), None, None, byref(call), err), errno.ERANGE)
    vse.vse_options_free(o)
    fails(vse.vse_exec(c, None, argv(), None, None, byref(call), err), errno.EINVAL, "no command")


def test_input(c):
    seen = Seen()
    call = run(c, seen, "cat", stdin="yes")
    data = bytes(range(256)) * 2048
    at = 0
    while at < len(data):
        n = vse.vse_write(call, data[at:], len(data) - at)
        assert n >= 0, n
        at += n
        if not n:
            ok(vse.vse_dispatch(session, -1, err))
    vse.vse_write_end(call)
    ok(vse.vse_wait(call, err))
    assert all(seen.out[str(r), 1] == data for r in range(3)) and vse.vse_write(call, b"x", 1) < 0
    vse.vse_call_free(call)
    r, w = os.pipe()
    os.write(w, b"by descriptor\n")
    os.close(w)
    seen = Seen()
    call = run(c, seen, "cat", stdin="yes", ranks="2")
    ok(vse.vse_read_from(call, r, err))
    ok(vse.vse_wait(call, err))
    assert seen.out["2", 1] == b"by descriptor\n", seen.out
    vse.vse_call_free(call)
    os.close(r)


def test_own_loop(s, c):
    seen, other = Seen(), Seen()
    calls = [run(c, seen, "echo", "a"), run(c, other, "echo", "b", ranks="0")]
    poll = select.poll()
    poll.register(vse.vse_fd(s), select.POLLIN)
    while not (seen.ended and other.ended):
        wait = vse.vse_timeout(s)
        poll.poll(None if wait < 0 else wait)
        ok(vse.vse_dispatch(s, 0, err))
    assert vse.vse_timeout(s) != 0, "an idle loop would spin"
    assert {v for (_, n), v in seen.out.items() if n == 1} == {b"a\n"} and other.out["0", 1] == b"b\n"
    for call in calls:
        vse.vse_call_free(call)


def test_ends(s, c):
    """A call that its callback ends, or frees, or that another thread or a signal handler cancels."""
    seen = Seen(lambda e: 1)
    call = run(c, seen, "echo", "x")
    fails(vse.vse_wait(call, err), errno.ECANCELED)
    vse.vse_call_free(call)
    freed = []

    def free(_e):
        if not freed:
            freed.append(1)
            vse.vse_call_free(call)

    call = run(c, free, "echo", "x")
    while not freed:
        ok(vse.vse_dispatch(s, -1, err))
    seen = Seen()
    call = run(c, seen, "sleep", "60")
    thread = threading.Thread(target=lambda: vse.vse_cancel(s))
    thread.start()
    fails(vse.vse_wait(call, err), errno.ECANCELED, "cancelled")
    thread.join()
    vse.vse_call_free(call)
    call = run(c, seen, "sleep", "60")
    vse.vse_signal(call, signal.SIGTERM)
    ok(vse.vse_wait(call, err))
    assert vse.vse_exit_code_max(call) == 128 + signal.SIGTERM
    vse.vse_call_free(call)


def test_flow(s, c):
    """Without credit no more comes than the window."""
    seen = Seen()
    call = run(c, seen, "yes", "100K", ranks="0", flow="manual", window="16K")
    while len(seen.out.get(("0", 1), b"")) < 16384:
        ok(vse.vse_dispatch(s, -1, err))
    call2 = run(c, Seen(), "true")
    ok(vse.vse_wait(call2, err))
    vse.vse_call_free(call2)
    assert len(seen.out["0", 1]) == 16384 and not seen.ended
    given = 0
    while not seen.ended:
        have = len(seen.out["0", 1])
        vse.vse_credit(call, 0, 1, have - given)
        given = have
        ok(vse.vse_dispatch(s, -1, err))
    assert len(seen.out["0", 1]) == 100 << 10, len(seen.out["0", 1])
    vse.vse_call_free(call)


def test_control(s, c):
    ok(vse.vse_control(c, b"pause", b"1-2", err))
    assert [v["state"] for v in status(c)["vms"]] == ["ready", "paused", "paused"]
    ok(vse.vse_control(c, b"resume", b"all", err))
    fails(vse.vse_control(c, b"reboot", b"all", err), errno.EINVAL, "reboot")
    fails(vse.vse_control(c, b"pause", b"3", err), errno.ERANGE)
    seen = Seen()
    call = c_void_p()
    ok(vse.vse_events(c, None, callback(seen), None, byref(call), err))
    ok(vse.vse_wait(call, err))
    assert any(e["rank"] == 1 and e["text"].startswith("paused") for e in seen.events), seen.events
    vse.vse_call_free(call)
    seen = Seen()
    ok(vse.vse_logs(c, None, 0, callback(seen), None, byref(call), err))
    ok(vse.vse_wait(call, err))
    assert seen.out["0", 1], "the console has said something"
    vse.vse_call_free(call)


def test_lives(s, c):
    """Kept, it outlives its connection; what follows it ends with it."""
    ok(vse.vse_detach(c, err))
    vse.vse_release(c)
    again, call, seen = c_void_p(), c_void_p(), Seen()
    ok(vse.vse_attach(s, None, byref(again), err))
    assert vse.vse_name(again) == b"one" and vse.vse_size(again, err) == 3
    o = options(follow="yes")
    ok(vse.vse_events(again, o, callback(seen), None, byref(call), err))
    vse.vse_options_free(o)
    other = c_void_p()
    ok(vse.vse_attach(s, b"one", byref(other), err))
    ok(vse.vse_down(other, 0, err))
    ok(vse.vse_wait(call, err))
    assert seen.ended == [0] and names(s) == []
    vse.vse_release(again)
    vse.vse_release(other)
    vse.vse_call_free(call)


def test_given_up(s):
    code, _ = up(s, lambda e: 1, name="two")
    fails(code, errno.ECANCELED)
    vse.vse_cancel(s)
    code, _ = up(s, None, name="two")
    fails(code, errno.ECANCELED)
    code, c = up(s, None, name="two")
    ok(code)
    seen = Seen()
    call = run(c, seen, "sleep", "60")
    vse.vse_release(c)
    assert seen.ended == [errno.ECANCELED]
    vse.vse_call_free(call)
    other = opened()
    code, c = up(other, None, name="three")
    ok(code)
    ok(vse.vse_close(other))
    while names(s):
        pass  # they end with their connections


threading.Thread(target=int).start()  # libc handles a signal of its own from the first thread on
before = signals(), os.getcwd(), dict(os.environ)
session = opened()
test_wrong(session)
cluster = test_up(session)
print("ok up")
test_exec(session, cluster)
test_input(cluster)
test_own_loop(session, cluster)
print("ok exec")
test_ends(session, cluster)
test_flow(session, cluster)
print("ok flow")
test_control(session, cluster)
test_lives(session, cluster)
test_given_up(session)
ok(vse.vse_close(session))
after = signals(), os.getcwd(), dict(os.environ)
assert after == before, (before, after)
print("ok " + vse.vse_version().decode())
