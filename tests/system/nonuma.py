#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""nonuma.py PROGRAM [ARGUMENT...]: runs it as on a kernel without NUMA: memory policies are unknown calls (ENOSYS)."""
import ctypes
import os
import struct
import sys

CALLS = {"x86_64": (0xC000003E, (237, 238, 239, 256, 279)), "aarch64": (0xC00000B7, (235, 236, 237, 238, 239))}
LOAD, JEQ, RET = 0x20, 0x15, 0x06  # linux/bpf_common.h
ALLOW, ENOSYS = 0x7FFF0000, 0x00050000 | 38  # linux/seccomp.h
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 22, 38


def program():
    arch, calls = CALLS[os.uname().machine]
    rest = len(calls)
    code = [(LOAD, 0, 0, 4), (JEQ, 0, rest + 1, arch), (LOAD, 0, 0, 0)]
    code += [(JEQ, rest - i, 0, call) for i, call in enumerate(calls)]
    return code + [(RET, 0, 0, ALLOW), (RET, 0, 0, ENOSYS)]


def main():
    code = b"".join(struct.pack("HBBI", *line) for line in program())
    text = ctypes.create_string_buffer(code, len(code))
    prog = ctypes.create_string_buffer(struct.pack("HP", len(code) // 8, ctypes.addressof(text)))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_SECCOMP, 2, prog, 0, 0) and (
            libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(PR_SET_SECCOMP, 2, prog, 0, 0)):
        sys.exit("nonuma.py: " + os.strerror(ctypes.get_errno()))
    os.execvp(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()
