"""What CI systems do to outputs: GitHub passes none on that holds a masked value, GitLab keeps dotenv files as artifacts.

So a job hands on where in Vault the token lies, and the next one reads it there.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from stat import S_ISREG
from typing import cast

from vault_plugin.broker import Grant
from vault_plugin.errors import OutputError, SettingsError, UsageError
from vault_plugin.output.destination import append, must_be_appendable
from vault_plugin.tokens.jwt import Kind
from vault_plugin.tokens.stored import VaultRef


def check(form: str, output: str | None, environ: Mapping[str, str] | None = None) -> None:
    """Before anything is contacted. Raises UsageError, SettingsError and OutputError where this form cannot or must not
    be had.
    """
    environ = os.environ if environ is None else environ
    if form == "github":
        if output is not None:
            raise UsageError("A mask works on standard output only.", hint="Leave --output out.")
        if not environ.get("GITHUB_OUTPUT"):
            raise SettingsError("GITHUB_OUTPUT is missing.", hint="--format github is for GitHub Actions.")
        try:
            must_be_appendable(Path(environ["GITHUB_OUTPUT"]))
        except OSError as exc:
            raise _unwritable(exc) from None
    if form == "env" and environ.get("GITLAB_CI") and (output is not None or _stdout_is_a_file()):
        raise UsageError(
            "In GitLab CI, --format env goes into no file: as a dotenv artifact it would show the token.",
            hint="Use `klearstack-vault exec`, or hand on where in Vault the token lies (--format json).",
        )


def _stdout_is_a_file() -> bool:
    try:
        return S_ISREG(os.fstat(1).st_mode)
    except OSError:  # closed
        return False


def write_step_outputs(grant: Grant, environ: Mapping[str, str] | None = None) -> None:
    """Make GitHub's step outputs `handle` and `refresh_handle`, `<mount>/<path>#<version>` (KV v1: no version).

    The grant is one that lies in Vault, not one that bypassed it. Raises OutputError if the file cannot be written.
    """
    environ = os.environ if environ is None else environ
    lines = []
    for kind, held in grant.held.items():
        ref = cast(VaultRef, held.ref)
        version = "" if ref.version is None else f"#{ref.version}"
        # Nobody can foresee the delimiter, so no name or path can hold it and go on with an output of its own.
        delimiter = f"ghadelimiter_{os.urandom(16).hex()}"
        name = "refresh_handle" if kind is Kind.REFRESH else "handle"
        lines += [f"{name}<<{delimiter}", f"{ref.mount}/{ref.path}{version}", delimiter]
    try:
        append(Path(environ["GITHUB_OUTPUT"]), "".join(f"{line}\n" for line in lines))
    except OSError as exc:
        raise _unwritable(exc) from None


def _unwritable(exc: OSError) -> OutputError:
    return OutputError(
        f"The file that GITHUB_OUTPUT names cannot be written ({exc.strerror}).",
        hint="Check its path and mode.",
    )
