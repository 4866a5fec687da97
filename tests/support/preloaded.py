"""The command in a copy of a process that has loaded it and its libraries, which takes five times as long as the rest.

What depends on the start of Python itself, on what is loaded when, or on what the kernel shows of a process
(/proc/PID/environ, its command line), needs a process of its own: subprocess, COMMAND.
"""

import atexit
import gc
import importlib
import json
import os
import pkgutil
import runpy
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import vault_plugin

# What Python, its libraries of C or coverage read when they are loaded.
_AT_THE_START = (
    "PYTHON",
    "LC_",
    "LOCPATH",
    "LANGUAGE",
    "LD_",
    "MALLOC_",
    "OPENSSL_",
    "COVERAGE_PROCESS_",
    "PROMETHEUS_",
    "TZ",
)
_LIBRARIES = ("click", "hvac", "requests", "yaml", "prometheus_client")


class Popen(subprocess.Popen[str]):
    """As subprocess.Popen, for a command that is a Python with `-m` and a module; a copy is in our session and group."""

    def _execute_child(self, *given: Any) -> None:
        # For the process and for us, of standard input, output and error each; -1 is the one that we have.
        streams = given[10:16]
        told = {"command": list(given[0]), "environ": dict(given[6]), "folder": str(given[5] or Path.cwd())}
        request = json.dumps(told).encode()
        self._connection, theirs = socket.socketpair()
        passed = [
            own if stream == -1 else stream for own, stream in enumerate((streams[0], streams[3], streams[5]))
        ]
        with theirs, _lock:
            socket.send_fds(_starter(), [b"+"], [theirs.fileno(), *passed])
        self._connection.sendall(struct.pack("!Q", len(request)) + request)
        (self.pid,) = struct.unpack("!q", self._connection.recv(8, socket.MSG_WAITALL))
        self._child_created = True
        self._close_pipe_fds(*streams)  # type: ignore[attr-defined]

    def _internal_poll(self, _deadstate: int | None = None) -> int | None:
        if self.returncode is None and self._waitpid_lock.acquire(blocking=False):  # type: ignore[attr-defined]
            try:
                pid, status = self._try_wait(os.WNOHANG)
                if pid:
                    self.returncode = os.waitstatus_to_exitcode(status)
            finally:
                self._waitpid_lock.release()  # type: ignore[attr-defined]
        return self.returncode

    def _try_wait(self, flags: int) -> tuple[int, int]:
        try:
            status = self._connection.recv(8, socket.MSG_DONTWAIT if flags else socket.MSG_WAITALL)
        except BlockingIOError:
            return 0, 0
        self._connection.close()
        return self.pid, struct.unpack("!q", status)[0]


@cache
def _starter() -> socket.socket:
    """The way to this worker's process, which ends with the worker."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-c", "from support import preloaded; preloaded.serve()"],
            env=environment() | {"PYTHONPATH": str(Path(__file__).parents[1])},
            stdin=theirs.fileno(),
        )
    atexit.register(process.wait)
    atexit.register(ours.close)  # first
    return ours


def environment() -> dict[str, str]:
    """What of this process's environment counts at the start of Python."""
    return {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}


_lock = threading.Lock()
_suspended: list[None] = []


@contextmanager
def suspended() -> Iterator[None]:
    """A time in which the command needs a process of its own."""
    _suspended.append(None)
    try:
        yield
    finally:
        _suspended.pop()


def serves(environ: Mapping[str, str]) -> bool:
    """Whether a copy can be what a process of its own would be in this environment."""
    ours = environment()
    at_the_start = any(name not in ours and name.startswith(_AT_THE_START) for name in environ)
    return not (_suspended or at_the_start) and ours.items() <= environ.items()


def serve() -> None:
    """Be the process that is copied, until its standard input, a socket, ends."""
    ours = (module.name for module in pkgutil.walk_packages(vault_plugin.__path__, "vault_plugin."))
    for name in (*_LIBRARIES, *ours):
        if name != "vault_plugin.__main__":  # the command itself
            importlib.import_module(name)
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # none stays in the list of processes
    calls = socket.socket(fileno=0)
    while (received := socket.recv_fds(calls, 1, 4))[0]:
        connection, *streams = received[1]
        if not os.fork():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            calls.detach()  # a command has a standard input there
            _watch(connection, streams)
        for one in received[1]:
            os.close(one)


def _watch(connection: int, streams: Sequence[int]) -> NoReturn:
    """Start the command, say its number and, when it ends, how."""
    caller = socket.socket(fileno=connection)
    told = caller.makefile("rb")
    (length,) = struct.unpack("!Q", told.read(8))
    asked = json.loads(told.read(length))
    if not (pid := os.fork()):
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        told.detach()
        caller.detach()
        os.closerange(3, 64)
        _be(asked)
    for stream in streams:
        os.close(stream)
    caller.sendall(struct.pack("!q", pid))
    status = os.waitpid(pid, 0)[1]
    with suppress(BrokenPipeError):
        caller.sendall(struct.pack("!q", status))
    os._exit(0)


def _be(asked: dict[str, Any]) -> NoReturn:
    """Become the command, as far as it can see."""
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environ"])
    sys.orig_argv[:] = asked["command"]
    sys.argv[:] = asked["command"][2:]
    sys.path[0] = asked["folder"]
    try:
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if not isinstance(end.code, int):
            raise
        code = end.code
    else:
        code = 0
    # The end of Python, but for the freeing of each module, which would take longer than most commands.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code & 0xFF)
