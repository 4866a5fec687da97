"""Verdicts: what a check found, and the exit code of all of them together."""

import re
from collections.abc import Iterable
from enum import StrEnum
from os import EX_OK
from typing import Any, NamedTuple

from vault_plugin.errors import KlearstackVaultError
from vault_plugin.wording import worded


class Level(StrEnum):
    """How serious it is. Only a failure changes the exit code."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "not checked"


class Verdict(NamedTuple):
    """What the check of that name found, and the remedy. `error` is what a command fails with for that reason."""

    level: Level
    check: str
    text: str
    remedy: str = ""
    error: KlearstackVaultError | None = None

    @property
    def line(self) -> str:
        """The verdict in one line."""
        return worded(f"{self.level:<11}  {self.check}: {self.text} {self.remedy}".rstrip())

    def describe(self) -> dict[str, Any]:
        """The verdict for JSON."""
        return {
            "verdict": str(self.level),
            "check": self.check,
            "message": worded(self.text),
            "remedy": worded(self.remedy),
            "code": self.error.code if self.error else None,
        }


def ok(check: str, text: str) -> Verdict:
    """All is well, with what was found."""
    return Verdict(Level.OK, check, text)


def warning(check: str, text: str, remedy: str) -> Verdict:
    """It works, and has a disadvantage, or may soon fail."""
    return Verdict(Level.WARNING, check, text, remedy)


def failed(check: str, error: KlearstackVaultError) -> Verdict:
    """Commands that need this fail with the error."""
    return Verdict(Level.FAILED, check, str(error), error.hint, error)


def skipped(check: str, why: str) -> Verdict:
    """It was not looked at."""
    return Verdict(Level.SKIPPED, check, f"{why}.")


def shown(text: object) -> str:
    """What a server says about itself, if it can be a part of a line; `?` if it is long or has other characters."""
    return text if isinstance(text, str) and re.fullmatch(r"[\w.+:/@ -]{1,80}", text) else "?"


def exit_code(verdicts: Iterable[Verdict]) -> int:
    """That of the worst failure: the first one that no later call can do without, else the first one; 0 without any."""
    errors = [verdict.error for verdict in verdicts if verdict.level is Level.FAILED and verdict.error]
    lasting = [error for error in errors if not error.retryable]
    return next((error.exit_code for error in (*lasting, *errors)), EX_OK)
