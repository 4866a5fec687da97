"""Which CAs servers are verified with: those of the system, or those that a setting names in their place."""

import os
import re
import ssl
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

# Where operating systems keep all CAs in one file, for a Python whose OpenSSL looks elsewhere.
BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Alpine
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",  # macOS, BSD
)
_HASHED = r"[0-9a-f]{8}\.[0-9]+"  # names by which OpenSSL finds a CA in a folder

_CERTIFICATE = "-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\\s]+-----END CERTIFICATE-----"


class OwnCa(NamedTuple):
    """CAs in place of the system's: the first that is given of a PEM file, PEM text, and a folder of PEM files."""

    file: str | None = None
    text: str | None = None
    folder: str | None = None


def client_context(own: OwnCa) -> ssl.SSLContext:
    """A context that verifies servers with these CAs, or the system's. Raises ssl.SSLError, OSError, ValueError."""
    if own.file:
        return ssl.create_default_context(cafile=own.file)
    if own.text:
        return ssl.create_default_context(cadata=_certificates_in(own.text))
    if own.folder:
        return ssl.create_default_context(cadata=_certificates_in(_texts_below(own.folder)))
    context = ssl.create_default_context()
    # SSL_CERT_FILE and SSL_CERT_DIR are added to the system's CAs; for OpenSSL each replaces a part of them.
    context.load_verify_locations(*_of_system())
    return context


def _certificates_in(text: str) -> str:
    """The certificates in a text, without what stands between them. Raises ValueError if there is none."""
    if not (found := re.findall(_CERTIFICATE, text)):
        raise ValueError("no certificate")
    return "\n".join(found)


def _texts_below(folder: str) -> str:
    """The text of all files below a folder, also of those that OpenSSL does not find there. Raises OSError."""
    return "\n".join(path.read_text(encoding="latin-1") for path in sorted(_files_below(folder)))


def _files_below(folder: str) -> Iterator[Path]:
    def fail(exc: OSError) -> None:
        raise exc

    for parent, _, names in os.walk(folder, onerror=fail):
        yield from (path for path in (Path(parent, name) for name in names) if path.is_file())


def _of_system() -> tuple[str | None, str | None]:
    """The system's CAs, as a file or as a folder, which takes less time to load; certifi's file where it has none."""
    paths = ssl.get_default_verify_paths()
    folder = paths.openssl_capath
    with suppress(OSError):
        if any(re.fullmatch(_HASHED, path.name) for path in Path(folder).iterdir()):
            return None, folder
    files = (one for one in (paths.openssl_cafile, *BUNDLES) if Path(one).is_file())
    return next(files, None) or _of_certifi(), None


def _of_certifi() -> str:
    import certifi  # noqa: PLC0415  only where the system has no CAs

    return certifi.where()
