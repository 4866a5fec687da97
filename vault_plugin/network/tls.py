"""TLS: the certificates that connections to a server are verified with, and sockets that keep deadlines."""

import ssl
import threading
from typing import Any, NamedTuple

from vault_plugin.network.sockets import Socket, remaining
from vault_plugin.network.trust import OwnCa, client_context
from vault_plugin.timing import blocking


class CertificateFileError(OSError):
    """A file of certificates or keys cannot be loaded."""


class TlsSocket(Socket, ssl.SSLSocket):
    """A socket with TLS that waits for as long as the thread's deadline allows; the context of `Tls` makes it."""

    def do_handshake(self, block: bool = False) -> None:
        self.limit_wait()
        super().do_handshake(block)

    def is_quiet(self) -> bool:
        """Whether the peer has sent nothing since the last response."""
        return not self.pending() and super().is_quiet()


class Certificate(NamedTuple):
    """A certificate of a verified chain: whose it is, and until when it is valid (Unix seconds)."""

    subject: str
    not_after: float


def verified_chain(connection: object) -> list[Certificate]:
    """The server's certificate and those that verify it; empty without TLS."""
    if not isinstance(connection, TlsSocket):
        return []
    # Python 3.13 has a method for this, which returns bytes that nothing here can read.
    chain = connection._sslobj.get_verified_chain()  # type: ignore[attr-defined]  # noqa: SLF001
    return [_certificate(one.get_info()) for one in chain]


def _certificate(about: dict[str, Any]) -> Certificate:
    names = {name: text for part in about["subject"] for name, text in part}
    others = [text for _, text in about.get("subjectAltName", ())]
    subject = names.get("commonName") or ", ".join(others) or ", ".join(names.values())
    return Certificate(subject, ssl.cert_time_to_seconds(about["notAfter"]))


class Tls:
    """The certificates for TLS connections to one server, loaded at the first use."""

    def __init__(
        self,
        ca_file: str | None,
        client_cert: str | None = None,
        client_key: str | None = None,
        *,
        ca_text: str | None = None,
        ca_folder: str | None = None,
        server_name: str | None = None,
    ) -> None:
        """`server_name` is the name in the server's certificate, if it is another one than the host's."""
        self.server_name = server_name
        self._own_ca = OwnCa(ca_file, ca_text, ca_folder)
        self._client = client_cert, client_key
        self._context: ssl.SSLContext | None = None
        self._loading = threading.Lock()

    def context(self) -> ssl.SSLContext:
        """The context for connections. Raises CertificateFileError if a file cannot be loaded, TimeoutError."""
        # Loaded once, since a FIFO has its content once. Reading a file may block, here or in another thread.
        if not self._loading.acquire(timeout=remaining()):
            raise TimeoutError
        try:
            if self._context is None:
                self._context = blocking.call("certificates", self._load, remaining())
            return self._context
        finally:
            self._loading.release()

    def _load(self) -> ssl.SSLContext:
        cert, key = self._client
        try:
            context = client_context(self._own_ca)
            if cert is not None:
                # With a password, though a wrong one, OpenSSL does not ask for that of an encrypted key on the terminal.
                context.load_cert_chain(cert, key, password="")
        except (OSError, ValueError):  # ssl.SSLError is an OSError
            raise CertificateFileError from None
        context.sslsocket_class = TlsSocket
        return context
