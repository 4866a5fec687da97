"""What several commands share: an option for each setting, the log on standard error, standard input and output."""

import logging
import os
import sys
from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Any, TypeVar

import click

from vault_plugin.errors import SettingsError, WriteError
from vault_plugin.settings import Origin, Settings
from vault_plugin.tokens import Kind

F = TypeVar("F", bound=Callable[..., Any])
KINDS = {"access": (Kind.ACCESS,), "refresh": (Kind.REFRESH,), "both": (Kind.ACCESS, Kind.REFRESH)}


def settings_options(command: F) -> F:
    """One option for each setting that is no secret."""
    for one in reversed(fields(Settings)):
        origin: Origin = one.metadata["origin"]
        if not origin.flag:
            continue
        how: dict[str, Any] = {"is_flag": True} if one.type is bool else {"metavar": _metavar(one.name)}
        if origin.choices:
            how = {"type": click.Choice(origin.choices)}
        default = one.default if one.default not in (None, MISSING, False) else ""
        notes = [
            f"[env: {', '.join(origin.env)}]" if origin.env else "",
            f"[default: {default:g}]"
            if isinstance(default, float)
            else f"[default: {default}]"
            if default
            else "",
        ]
        text = " ".join(filter(None, (origin.help, *notes)))
        command = click.option(f"--{one.name.replace('_', '-')}", one.name, default=None, help=text, **how)(
            command
        )
    return command


def _metavar(name: str) -> str:
    return {"min_ttl": "DURATION", "timeout": "DURATION", "deadline": "DURATION"}.get(name, "TEXT")


def log_to_stderr(verbose: int) -> None:
    """Our warnings on standard error; with -v what is done, with -vv more."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("klearstack-vault: %(levelname)s: %(message)s"))
    ours = logging.getLogger("vault_plugin")  # and nobody else's: other libraries log what they send
    ours.addHandler(handler)
    ours.setLevel((logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)])


def print_out(text: str) -> None:
    """Print and flush. Raises WriteError if standard output cannot take it."""
    try:
        click.echo(text, nl=False)  # and flush
    except OSError as exc:
        # What is left in the buffer must not fail again when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise WriteError(f"Standard output cannot be written ({exc.strerror}).") from None


def line_of_stdin() -> str:
    """The next line. Raises SettingsError if there is none to be read."""
    try:
        return sys.stdin.readline().removesuffix("\n").removesuffix("\r")
    except (AttributeError, OSError, ValueError):  # closed, broken, or no UTF-8
        raise SettingsError("A line of standard input cannot be read.", hint="`-` stands for it.") from None
