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
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import vault_plugin

_LIBRARIES = ("click", "hvac", "requests", "yaml", "prometheus_client")


def run(
    command: Sequence[str], environ: Mapping[str, str], stdin: str, timeout: float
) -> subprocess.CompletedProcess[str]:
    """As subprocess.run does it with `capture_output` and `text`; the command is a Python with `-m` and a module."""
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        given.write(stdin.encode())
        given.seek(0)
        told = {"command": list(command), "environ": dict(environ), "folder": str(Path.cwd())}
        request = json.dumps(told).encode()
        ours, theirs = socket.socketpair()
        with ours as connection:
            with theirs, _lock:
                socket.send_fds(
                    _starter(), [b"+"], [theirs.fileno(), *(one.fileno() for one in (given, out, err))]
                )
            connection.sendall(struct.pack("!Q", len(request)) + request)
            connection.settimeout(timeout)
            with connection.makefile("rb") as answer:
                (pid,) = struct.unpack("!q", answer.read(8))
                try:
                    (code,) = struct.unpack("!q", answer.read(8))
                except TimeoutError:
                    os.kill(pid, signal.SIGKILL)
                    raise subprocess.TimeoutExpired(list(command), timeout) from None
        texts = []
        for one in (out, err):
            one.seek(0)
            texts.append(one.read().decode())
    return subprocess.CompletedProcess(list(command), code, *texts)


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
    others = {name for name in environ if not name.startswith(("KLEARSTACK_", "VAULT_", "BAO_"))}
    ours = environment()
    at_most = {"HOME", "TMPDIR", "COVERAGE_FILE", *ours}
    return not _suspended and others <= at_most and ours.items() <= environ.items()


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
    caller.sendall(struct.pack("!q", pid))
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with suppress(BrokenPipeError):
        caller.sendall(struct.pack("!q", code))
    os._exit(0)


def _be(asked: dict[str, Any]) -> NoReturn:
    """Become the command, as far as it can see."""
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environ"])
    sys.orig_argv[:] = asked["command"]
    sys.argv[:] = asked["command"][2:]
    sys.path[0] = asked["folder"]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    sys.exit()
