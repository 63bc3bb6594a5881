# SPDX-License-Identifier: Apache-2.0
"""The system calls that Python 3.11 has no names for: namespaces and mounts."""
import ctypes
import os
import signal

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18

PR_SET_PDEATHSIG = 1
SYS_MOUNT_SETATTR = 442  # the same number on every architecture
AT_FDCWD = -100
AT_RECURSIVE = 0x8000
MOUNT_ATTR_RDONLY = 1

libc = ctypes.CDLL(None, use_errno=True)


class MountAttr(ctypes.Structure):
    _fields_ = [("set", ctypes.c_uint64), ("clear", ctypes.c_uint64),
                ("propagation", ctypes.c_uint64), ("userns", ctypes.c_uint64)]


def check(result, what):
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, "%s: %s" % (what, os.strerror(code)))


def unshare(flags):
    check(libc.unshare(ctypes.c_int(flags)), "unshare(%#x)" % flags)


def setns(fd, flags):
    check(libc.setns(ctypes.c_int(fd), ctypes.c_int(flags)), "setns(%#x)" % flags)


def sethostname(name):
    data = name.encode()
    check(libc.sethostname(data, ctypes.c_size_t(len(data))), "sethostname")


def die_with_parent():
    check(libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0), "prctl(PR_SET_PDEATHSIG)")


def mount(source, target, fstype=None, flags=0, data=None):
    def text(s):
        return None if s is None else os.fsencode(str(s))
    check(libc.mount(text(source), text(target), text(fstype), ctypes.c_ulong(flags), text(data)),
          "mount %s on %s" % (source or fstype, target))


def bind(source, target, read_only=False):
    mount(source, target, None, MS_BIND)
    if read_only:
        writable(target, False, False)


def writable(path, yes, recursive):
    """Makes the mount at path (and those below it) read-only or writable in this mount namespace."""
    attr = MountAttr(0, MOUNT_ATTR_RDONLY, 0, 0) if yes else MountAttr(MOUNT_ATTR_RDONLY, 0, 0, 0)
    check(libc.syscall(ctypes.c_long(SYS_MOUNT_SETATTR), ctypes.c_int(AT_FDCWD), os.fsencode(str(path)),
                       ctypes.c_uint(AT_RECURSIVE if recursive else 0), ctypes.byref(attr),
                       ctypes.c_size_t(ctypes.sizeof(attr))), "mount_setattr %s" % path)
