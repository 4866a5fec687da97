"""What several commands share: an option for each setting, the log on standard error, standard input and output."""

import logging
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import MISSING, Field, fields
from typing import Any, TypeVar

import click

from vault_plugin.commands.progress import Progress
from vault_plugin.commands.usage import SettingOption
from vault_plugin.errors import SettingsError, UsageError
from vault_plugin.output.streams import read_line
from vault_plugin.settings import Settings
from vault_plugin.settings.environment import without_line_end
from vault_plugin.settings.origin import Origin
from vault_plugin.tokens.jwt import Kind
from vault_plugin.wording import flag

F = TypeVar("F", bound=Callable[..., Any])
# Their warnings are about servers, or the same for all identities.
ONCE = ("vault_plugin.app", "vault_plugin.broker", "vault_plugin.endpoint", "vault_plugin.vault")
MAX_LINE = 64 * 1024  # bytes of standard input
KINDS = {"access": (Kind.ACCESS,), "refresh": (Kind.REFRESH,), "both": (Kind.ACCESS, Kind.REFRESH)}


def settings_options(*left_out: str) -> Callable[[F], F]:
    """A decorator that adds one option for each setting that is no secret, but for those left out."""

    def decorate(command: F) -> F:
        for one in reversed(fields(Settings)):
            if one.metadata["origin"].flag and one.name not in left_out:
                command = _option(one)(command)
        return command

    return decorate


def _option(one: Field[Any]) -> Callable[[F], F]:
    origin: Origin = one.metadata["origin"]
    how: dict[str, Any] = {"is_flag": True} if one.type is bool else {"metavar": _metavar(one.name)}
    if origin.choices:
        how = {"type": click.Choice(origin.choices)}
    default = f"{one.default:g}" if isinstance(one.default, float) else one.default
    notes = [
        f"[env: {', '.join(origin.env)}]" if origin.env else "",
        f"[default: {default}]" if default not in (None, MISSING, False) else "",
    ]
    text = " ".join(filter(None, (origin.help, *notes)))
    return click.option(flag(one.name), one.name, cls=SettingOption, default=None, help=text, **how)


def _metavar(name: str) -> str:
    return {"min_ttl": "DURATION", "timeout": "DURATION", "deadline": "DURATION"}.get(name, "TEXT")


class LogHandler(logging.StreamHandler[Any]):
    """Writes to standard error, beside the line of `progress` if there is one."""

    progress: Progress | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """See logging.Handler."""
        with self.progress.hidden() if self.progress else nullcontext():
            super().emit(record)


def log_to_stderr(verbose: int, *, repeat: bool = True) -> LogHandler:
    """Our warnings on standard error; with -v each step, with -vv each HTTP exchange, too.

    Without `repeat`, what the parts warn of is said once: among many identities it is the same for all.
    """
    handler = LogHandler()
    if not repeat:
        handler.addFilter(_Once())
    handler.setFormatter(logging.Formatter("klearstack-vault: %(levelname)s: %(message)s"))
    ours = logging.getLogger("vault_plugin")  # and nobody else's: other libraries log what they send
    ours.addHandler(handler)
    ours.setLevel((logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)])
    return handler


class _Once(logging.Filter):
    def __init__(self) -> None:
        super().__init__()
        self._told: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno != logging.WARNING or not record.name.startswith(ONCE):
            return True
        new = str(record.msg) not in self._told
        self._told.add(str(record.msg))
        return new


def identities(count: int) -> str:
    """So many identities, for people."""
    return f"{count:,} {'identity' if count == 1 else 'identities'}"


def print_out(text: str) -> None:
    """Print at once. Raises WriteError if standard output cannot take it."""
    click.echo(text, nl=False)


def line_of_stdin(seconds: float) -> str:
    """The next line, as UTF-8. Raises SettingsError if it cannot be read, or has no end within so many seconds."""
    try:
        return without_line_end(read_line(MAX_LINE, seconds).decode())
    except TimeoutError:
        raise SettingsError(
            "A line of standard input did not arrive before the deadline passed.", hint="`-` stands for it."
        ) from None
    except (AttributeError, OSError, ValueError):  # closed, broken, or not UTF-8
        raise SettingsError("A line of standard input cannot be read.", hint="`-` stands for it.") from None


def leave_stdin(flags: dict[str, Any]) -> None:
    """For commands whose standard input is not ours. Raises UsageError if a flag wants a line of it."""
    if "-" in (flags["user_id"], flags["company_name"]):
        raise UsageError("Standard input is not ours here: `-` cannot stand for a line of it.")
