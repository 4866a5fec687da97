"""A real file system without locks: a FUSE server, with no library, whose files can be made and not be locked.

Run as a program: `lockless.py FOLDER ERRNO` mounts it on the folder and serves until it is killed.
"""

import ctypes
import itertools
import os
import stat
import struct
import sys
from collections.abc import Callable
from typing import Any

ROOT = 1
FLOCK_LOCKS = 1 << 10  # in the answer to INIT: the kernel asks us for locks, and does not keep them itself
LOOKUP, FORGET, GETATTR, RELEASE, FLUSH, INIT, SETLK, SETLKW, CREATE, BATCH_FORGET = (
    *(1, 2, 3, 18, 25, 26),
    *(32, 33, 35, 42),
)
_IN = struct.Struct("=IIQQIIII")  # length, opcode, unique, node, uid, gid, pid, padding
_OUT = struct.Struct("=IiQ")  # length, minus the error number, unique


def attributes(node: int) -> bytes:
    """Of the folder, or of an empty file."""
    mode = stat.S_IFDIR | 0o700 if node == ROOT else stat.S_IFREG | 0o600
    return struct.pack("=6Q10I", node, *[0] * 5, *[0] * 3, mode, 1, os.getuid(), os.getgid(), 0, 4096, 0)


def answers(locking: int) -> dict[int, Callable[[int], bytes | int]]:
    """By opcode: what to answer for a node, or the number of the error; `locking` is that of a lock."""
    nodes = itertools.count(ROOT + 1)

    def created(_: int) -> bytes:
        node = next(nodes)
        return struct.pack("=4Q2I", node, *[0] * 5) + attributes(node) + struct.pack("=Q2I", node, 0, 0)

    return {
        INIT: lambda _: struct.pack("=4I2H2I2H2I6I", 7, 31, 0, FLOCK_LOCKS, 0, 0, 4096, *[0] * 11),
        LOOKUP: lambda _: 2,  # ENOENT: what is made is forgotten at once
        GETATTR: lambda node: struct.pack("=Q2I", 0, 0, 0) + attributes(node),
        CREATE: created,
        SETLK: lambda _: locking,
        SETLKW: lambda _: locking,
        FLUSH: lambda _: b"",
        RELEASE: lambda _: b"",
    }


def serve(device: int, locking: int) -> None:
    """Answer the kernel until it unmounts us."""
    known = answers(locking)
    while True:
        request = os.read(device, 1 << 17)
        _, opcode, unique, node, *_ = _IN.unpack_from(request)
        if opcode in (FORGET, BATCH_FORGET):  # which have no answer
            continue
        answer = known[opcode](node) if opcode in known else 38  # ENOSYS
        error, body = (answer, b"") if isinstance(answer, int) else (0, answer)
        os.write(device, _OUT.pack(_OUT.size + len(body), -error, unique) + body)


def main(folder: str, locking: str) -> None:
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={device},rootmode=40700,user_id={os.getuid()},group_id={os.getgid()}"
    libc: Any = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"lockless", os.fsencode(folder), b"fuse", 0, options.encode()):
        raise OSError(ctypes.get_errno(), "no file system can be mounted")
    serve(device, int(locking))


if __name__ == "__main__":
    main(*sys.argv[1:])
