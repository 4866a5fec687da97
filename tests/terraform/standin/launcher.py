"""What Terraform runs as a provider: it lets the starter make one, with all that this process has, and ends with it.

It takes a few hundredths of a second: it is run without `site`, and imports nothing but what is built in or small.
"""

import os
import sys
from _socket import AF_UNIX, SCM_RIGHTS, SOL_SOCKET, socket  # the imports of `socket` double the time

LENGTH = 10  # digits before the text, which say how long it is
SEPARATOR = b"\0"  # stands in no variable
_GLANCE = 1.0  # seconds between two looks whether Terraform still lives
_OUTPUTS = b"".join(number.to_bytes(4, sys.byteorder) for number in (1, 2))


def launch(address: str, name: str) -> None:
    """Be the provider of this name, as far as Terraform can see, until it is over."""
    terraform = os.getppid()
    environ = [variable + b"=" + value for variable, value in os.environb.items()]
    folder = os.fsencode(os.getcwd())  # noqa: PTH109  pathlib is not small
    told = SEPARATOR.join([name.encode(), folder, str(os.getpgrp()).encode(), *environ])
    starter = socket(AF_UNIX)
    starter.connect(address)
    starter.sendmsg([f"{len(told):{LENGTH}}".encode()], [(SOL_SOCKET, SCM_RIGHTS, _OUTPUTS)])
    starter.sendall(told)
    starter.settimeout(_GLANCE)
    while os.getppid() == terraform:
        try:
            starter.recv(1)
        except TimeoutError:
            continue
        return  # the provider has ended


if __name__ == "__main__":
    launch(*sys.argv[1:])
