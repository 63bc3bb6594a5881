#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The same as hello.c by ctypes, in an event loop of the program's own.

    ./hello.py FILE.yaml [OPTION=VALUE...]        as: ./hello.py minimal.yaml hypervisor=fake
"""
import ctypes
import json
import select
import sys
from ctypes import byref, c_char_p, c_int, c_int64, c_size_t, c_void_p

OUTPUT, EXITED, FAILED, ENDED = 4, 5, 6, 9
CALLBACK = ctypes.CFUNCTYPE(c_int, c_void_p, c_void_p)


def load():
    lib = ctypes.CDLL("libvse.so.1")
    result = {
        "vse_error_new": c_void_p, "vse_error_text": c_char_p, "vse_options_new": c_void_p, "vse_name": c_char_p,
        "vse_event_ranks": c_char_p, "vse_event_text": c_char_p, "vse_event_data": c_void_p, "vse_event_number": c_int64,
    }
    for name, kind in result.items():
        getattr(lib, name).restype = kind
    return lib


vse = load()
err = c_void_p(vse.vse_error_new())


def check(code):
    if code < 0:
        raise OSError(-code, vse.vse_error_text(err).decode())
    return code


def on_event(_arg, e):
    e = c_void_p(e)
    kind, ranks = vse.vse_event_kind(e), vse.vse_event_ranks(e).decode()
    if kind == OUTPUT:
        n = c_size_t()
        data = vse.vse_event_data(e, byref(n))
        if n.value:
            print("vm%s: %s" % (ranks, ctypes.string_at(data, n.value).decode()), end="")
    elif kind == EXITED:
        print("vm%s: exit %d" % (ranks, vse.vse_event_number(e, b"code")))
    elif kind == FAILED:
        print("vm%s: %s" % (ranks, vse.vse_event_text(e).decode()))
    elif kind == ENDED:
        ended.append(vse.vse_event_number(e, b"code"))
    return 0


def loop(session):
    """Any event loop that can wait for a descriptor does."""
    poll = select.poll()
    poll.register(vse.vse_fd(session), select.POLLIN)
    while not ended:
        wait = vse.vse_timeout(session)
        poll.poll(None if wait < 0 else wait)
        check(vse.vse_dispatch(session, 0, err))


def main():
    session, cluster, call = c_void_p(), c_void_p(), c_void_p()
    options = c_void_p(vse.vse_options_new())
    for word in ["count=4"] + sys.argv[2:]:
        key, value = word.split("=", 1)
        check(vse.vse_options_set(options, key.encode(), value.encode(), err))
    check(vse.vse_open(byref(session), err))
    check(vse.vse_up(session, sys.argv[1].encode(), options, None, None, byref(cluster), err))
    text = c_char_p()
    check(vse.vse_status(cluster, byref(text), err))
    status = json.loads(text.value)
    vse.vse_free(text)
    print("%s: %d VMs, %s" % (status["name"], status["size"], status["vms"][0]["state"]))
    callback = CALLBACK(on_event)  # kept: the library calls it until the call is freed
    argv = (c_char_p * 3)(b"echo", b"hello", None)
    check(vse.vse_exec(cluster, None, argv, callback, None, byref(call), err))
    loop(session)
    print("greatest exit code: %d" % vse.vse_exit_code_max(call))
    vse.vse_call_free(call)
    check(vse.vse_down(cluster, 0, err))
    vse.vse_close(session)
    vse.vse_options_free(options)
    vse.vse_error_free(err)


ended = []
main()
