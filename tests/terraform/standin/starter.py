"""Make the stand-ins as copies of one process that has imported all they need, which takes ten times as long as the rest.

Terraform starts each provider up to three times per command. What it runs is launcher.py; a copy gets its standard output
and error, folder, process group and environment, and is gone when either of the two is.
"""

import os
import select
import socket
import sys
from contextlib import suppress

from . import external, launcher, local, server, vault

_PROVIDERS = {"external": external, "local": local, "vault": vault}


def main(address: str) -> None:
    """Make a stand-in for each launcher that calls at this Unix socket, until standard input ends."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while sys.stdin not in (ready := select.select([sys.stdin, listener], [], [])[0]):
            if listener in ready:
                connection, _ = listener.accept()
                with connection:
                    if not os.fork():
                        listener.close()
                        _copy(connection)
            with suppress(ChildProcessError):  # there is none
                while os.waitpid(-1, os.WNOHANG)[0]:  # so that no ended one stays in the list of processes
                    pass


def _copy(connection: socket.socket) -> None:
    """Be a stand-in, and never return."""
    try:
        length, outputs, _, _ = socket.recv_fds(connection, launcher.LENGTH, 2)
        with connection.makefile("rb") as told:
            name, folder, group, *environ = told.read(int(length)).split(launcher.SEPARATOR)
        with open(os.devnull, "rb") as nothing:  # noqa: PTH123
            for old, new in zip((nothing.fileno(), *outputs), (0, 1, 2), strict=True):
                os.dup2(old, new)
        for output in outputs:
            os.close(output)
        os.setpgid(0, int(group))
        os.chdir(folder)
        os.environb.clear()
        os.environb.update(dict(variable.split(b"=", 1) for variable in environ))
        server.serve(_PROVIDERS[name.decode()], connection)
    except BaseException:  # noqa: BLE001  the rest of the starter is not for a copy
        sys.excepthook(*sys.exc_info())  # where Terraform reads it
        sys.stderr.flush()
    finally:
        os._exit(0)
