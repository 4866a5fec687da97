"""The rules of CI systems: GitHub drops outputs that contain a masked value, GitLab keeps dotenv files as artifacts.

A job therefore passes on where the token is in Vault, and the next job reads it there.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from stat import S_ISREG
from typing import cast

from vault_plugin.broker import Grant
from vault_plugin.errors import OutputError, SettingsError, UsageError, WriteError
from vault_plugin.output.destination import appending, must_be_appendable
from vault_plugin.tokens.jwt import Kind
from vault_plugin.tokens.stored import VaultRef, WrappingToken


def check(form: str, output: str | None, environ: Mapping[str, str] | None = None) -> None:
    """Check, before any request, that the CI system supports this format and that it exposes no token.

    Raises UsageError, SettingsError, OutputError.
    """
    environ = os.environ if environ is None else environ
    if form == "github":
        if output is not None:
            raise UsageError("A mask works on standard output only.", hint="Omit --output.")
        if not environ.get("GITHUB_OUTPUT"):
            raise SettingsError("GITHUB_OUTPUT is missing.", hint="--format github is for GitHub Actions.")
        try:
            must_be_appendable(Path(environ["GITHUB_OUTPUT"]))
        except OSError as exc:
            raise _unwritable(exc) from None
    if form == "env" and environ.get("GITLAB_CI") and (output is not None or _stdout_is_a_file()):
        raise UsageError(
            "In GitLab CI, --format env writes to no file: a dotenv artifact would expose the token.",
            hint="Use `klearstack-vault exec`, or pass on where the token is in Vault (--format json).",
        )


def _stdout_is_a_file() -> bool:
    try:
        return S_ISREG(os.fstat(1).st_mode)
    except OSError:  # closed
        return False


def write_step_outputs(
    grant: Grant, environ: Mapping[str, str] | None = None, *, wrapping: WrappingToken | None = None
) -> None:
    """Write GitHub's step outputs `handle` and `refresh_handle`: `<mount>/<path>#<version>` (KV v1: no version).

    The grant's tokens are in Vault. The output `wrapping_token` is for later steps of the same job: GitHub drops an output
    of the job that contains a masked value. Raises OutputError if the file cannot be opened, WriteError if it cannot be
    written.
    """
    environ = os.environ if environ is None else environ
    outputs = {} if wrapping is None else {"wrapping_token": wrapping.value.reveal()}
    for kind, held in grant.tokens.items():
        ref = cast(VaultRef, held.ref)
        version = "" if ref.version is None else f"#{ref.version}"
        name = "refresh_handle" if kind is Kind.REFRESH else "handle"
        outputs[name] = f"{ref.mount}/{ref.path}{version}"
    lines = []
    for name, text in outputs.items():
        # The delimiter is random, so that no name or path can contain it and add another output.
        delimiter = f"ghadelimiter_{os.urandom(16).hex()}"
        lines += [f"{name}<<{delimiter}", text, delimiter]
    is_open = False
    try:
        with appending(Path(environ["GITHUB_OUTPUT"])) as append:
            is_open = True
            append("".join(f"{line}\n" for line in lines))
    except OSError as exc:
        raise _unwritable(exc, is_open=is_open) from None


def _unwritable(exc: OSError, *, is_open: bool = False) -> OutputError:
    message = f"The file that GITHUB_OUTPUT names cannot be written ({exc.strerror})."
    return WriteError(message) if is_open else OutputError(message, hint="Check its path and mode.")
