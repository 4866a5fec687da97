"""Text from environment variables, and from the files that they name: UTF-8 in any locale."""

import logging
import os
import re
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from vault_plugin.errors import SettingsError
from vault_plugin.timing import blocking
from vault_plugin.timing.backoff import full_jitter
from vault_plugin.timing.deadline import Deadline
from vault_plugin.wording import named, worded

# What Vault's own command, or most HTTP clients, follow and this package does not (see `report_ignored`).
_OF_VAULT = (
    "AGENT_ADDR",
    "CLIENT_CERT_BYTES",
    "CLIENT_KEY_BYTES",
    "DISABLE_REDIRECTS",
    "MFA",
    "SRV_LOOKUP",
    "WRAP_TTL",
)
IGNORED = frozenset(
    {
        *(f"{prefix}_{name}" for prefix in ("BAO", "VAULT") for name in _OF_VAULT),
        *("ALL_PROXY", "HTTP_PROXY", "all_proxy", "http_proxy"),
        *("CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE"),
    }
)
_TRUE = {"1", "t", "true"}  # in Go, by which Vault's tools read them
REWRITTEN = 10.0  # seconds that a credential's file may be empty or missing while another program replaces it

_log = logging.getLogger(__name__)


class Found(NamedTuple):
    """The value of a variable, or the text of the file that it names; `place` names that file as a part of a sentence.

    `source` is the variable, or the one that names the file.
    """

    text: str
    place: str
    source: str


def process_environment() -> Mapping[str, str]:
    """This process's environment. Bytes that are not UTF-8 are escaped (`surrogateescape`), as Python does it.

    The command line always runs in UTF-8; another program that imports this package may not.
    """
    if sys.getfilesystemencoding() == "utf-8":
        return os.environ
    return {
        name.decode("utf-8", "surrogateescape"): text.decode("utf-8", "surrogateescape")
        for name, text in os.environb.items()
    }


def without(environ: Mapping[str, str], variables: Collection[str]) -> dict[str, str]:
    """The environment without these variables, and without those that name a file in their place."""
    return {name: text for name, text in environ.items() if name.removesuffix("_FILE") not in variables}


def report_ignored(environ: Mapping[str, str]) -> None:
    """Log once per process which variables are set that other programs follow, and this package does not."""
    if found := sorted(name for name in IGNORED.intersection(environ) if environ[name]):
        _log_once(", ".join(found))


def warn_of_skipped_verification(environ: Mapping[str, str]) -> None:
    """Warn once per process where a variable says that Vault's certificate is not to be verified."""
    for name in ("BAO_SKIP_VERIFY", "VAULT_SKIP_VERIFY"):
        if environ.get(name, "").lower() in _TRUE:
            _warn_once(name)
            return


@cache
def _warn_once(name: str) -> None:
    _log.warning(
        "%s has no effect: TLS certificates are always verified. If Vault's does not verify, name its CA with %s, "
        "or the name in the certificate with %s",
        name,
        worded(named("vault_cacert")),
        worded(named("vault_tls_server_name")),
    )


@cache
def _log_once(names: str) -> None:
    _log.info("these environment variables are set but not supported, and have no effect: %s", names)


def look_up(
    names: Sequence[str], environ: Mapping[str, str], deadline: Deadline, *, rewritten: bool = False
) -> Found | None:
    """The first of these variables that is not empty, or the text of the file that `<name>_FILE` names.

    `rewritten`: see text_of_file. Raises ValueError if that file cannot be read, SettingsError if the deadline passes.
    """
    for name in names:
        if value := environ.get(name):
            return Found(value, "", name)
        if path := environ.get(f"{name}_FILE"):
            complaint = f"cannot be read from the file that {name}_FILE names"
            text = text_of_file(Path(path), complaint, deadline, rewritten=rewritten)
            return Found(text, f", as read from the file that {name}_FILE names,", f"{name}_FILE")
    return None


def text_of_file(
    path: Path, complaint: str, deadline: Deadline, *, rewritten: bool = False, given: bool = True
) -> str:
    """The file's text without its final line end. Raises ValueError with that complaint if it cannot be read.

    `rewritten`: another program replaces the file from time to time. While it is empty or cannot be read, it is read again,
    for half of what is left of the deadline, at most for REWRITTEN seconds; not if it does not exist and was not `given`.
    Raises SettingsError at the deadline: a FIFO without a writer, or a network file system, may block until then.
    """
    patience = Deadline(min(REWRITTEN, deadline.left() / 2) if rewritten else 0.0)
    for pause in full_jitter(0.05, 0.5):
        try:
            # An empty device stays empty.
            content, may_change = blocking.call(
                f"file {path}", lambda: (path.read_bytes(), path.is_file()), deadline.left()
            )
            text = without_line_end(content.decode())
            if text.strip() or not (may_change and patience.permits(pause)):
                return text
        except TimeoutError:
            raise SettingsError(
                f"{path} could not be read before the deadline passed.",
                hint="If it is a FIFO, start the process that writes to it.",
            ) from None
        except UnicodeDecodeError:
            raise ValueError(complaint) from None
        except OSError as exc:
            missing = isinstance(exc, FileNotFoundError)
            if not patience.permits(pause) or isinstance(exc, IsADirectoryError) or (missing and not given):
                raise ValueError(complaint) from None
        time.sleep(pause)
    raise AssertionError  # pragma: no cover  the pauses never end


def without_line_end(text: str) -> str:
    """The text without its last LF or CRLF. Only one: any other may be a mistake, which is not hidden."""
    return re.sub(r"\r?\n\Z", "", text)


def is_readable(path: str, *, folder: bool = False) -> bool:
    """Whether this process may read the file, or the folder, of that name."""
    try:
        return os.access(path, os.R_OK | os.X_OK if folder else os.R_OK) and (
            not folder or Path(path).is_dir()
        )
    except ValueError:  # a NUL, which only a file can hold
        return False
