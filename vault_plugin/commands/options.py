"""What several commands share: their options, one for each setting, the log on standard error, standard input and output."""

import logging
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, TypeVar

import click

from vault_plugin.commands.progress import Progress
from vault_plugin.errors import SettingsError, UsageError
from vault_plugin.output.streams import read_line, reason
from vault_plugin.settings import Settings
from vault_plugin.settings.environment import without_line_end
from vault_plugin.settings.origin import Origin
from vault_plugin.settings.values import positive_duration
from vault_plugin.timing.deadline import Deadline
from vault_plugin.tokens.jwt import Kind
from vault_plugin.wording import flag

F = TypeVar("F", bound=Callable[..., Any])
# Loggers, each of a module or a folder, whose warnings are about servers, or the same for all identities.
ONCE = tuple(
    f"vault_plugin.{part}" for part in ("broker", "endpoint", "locks.endpoint_lock", "timing", "vault")
)
MAX_LINE = 64 * 1024  # bytes of standard input
KINDS = {"access": (Kind.ACCESS,), "refresh": (Kind.REFRESH,), "both": (Kind.ACCESS, Kind.REFRESH)}


class Option(click.Option):
    """An option, with the group that it is listed in."""

    def __init__(self, *names: Any, group: str = "", **how: Any) -> None:
        super().__init__(*names, **how)
        self.group = group


class SettingOption(Option):
    """The option of a setting."""


class Command(click.Command):
    """A command, with command lines that use it; its help is laid out by help.py."""

    def __init__(self, *names: Any, examples: tuple[str, ...] = (), **how: Any) -> None:
        super().__init__(*names, **how)
        self.examples = examples

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """See click.Command."""
        from vault_plugin.commands import help as layout  # noqa: PLC0415  only help needs it

        layout.write_options(self, ctx, formatter)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  click's signature
        """See click.Command."""
        from vault_plugin.commands import help as layout  # noqa: PLC0415  as above

        layout.write_end(self, formatter)


class _Duration(click.ParamType):  # type: ignore[type-arg]  # older versions of click have none
    name = "DURATION"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return positive_duration(value)
        except ValueError as exc:
            self.fail(str(exc), param, ctx)


DURATION = _Duration()


def option(*names: str, group: str, **how: Any) -> Callable[[F], F]:
    """A decorator that adds an option to a command, in that group of its help."""
    return click.option(*names, cls=Option, group=group, **how)


def files(_: click.Context, __: click.Parameter, begun: str) -> list[Any]:
    """Have the shell complete the name of a file; for `shell_complete`."""
    from click.shell_completion import CompletionItem  # noqa: PLC0415  only completion needs it

    return [CompletionItem(begun, type="file")]


token_option = option(
    "--token",
    "wanted",
    group="Token",
    type=click.Choice(list(KINDS)),
    default="access",
    show_default=True,
    help="Token type to return.",
)


def _at_least_a_second(_: click.Context, __: click.Parameter, seconds: float | None) -> float | None:
    if seconds is not None and seconds < 1:
        raise UsageError("--wrap-ttl must be at least 1 second.")
    return seconds


def wrap_ttl_option(help: str) -> Callable[[F], F]:  # noqa: A002  click's name for it
    """A decorator that adds --wrap-ttl, with that help."""
    return option("--wrap-ttl", group="Output", type=DURATION, callback=_at_least_a_second, help=help)


verbose_option = option(
    "-v", "--verbose", group="Output", count=True, help="Log to stderr; -vv for debug output."
)


# What the help calls the values of settings that are not just text.
_METAVARS = {
    **dict.fromkeys(("url", "vault_addr", "proxy", "vault_proxy"), "URL"),
    **dict.fromkeys(("min_ttl", "timeout", "deadline"), "DURATION"),
    **dict.fromkeys(("ca_cert", "vault_cacert", "vault_client_cert", "vault_client_key"), "FILE"),
    "vault_capath": "FOLDER",
    "vault_tls_server_name": "NAME",
}


def settings_options(*left_out: str) -> Callable[[F], F]:
    """A decorator that adds an option for each setting that is no secret, except for those left out."""

    def decorate(command: F) -> F:
        for name, origin in reversed(Settings.origins.items()):
            if origin.flag and name not in left_out:
                command = _option(name, origin)(command)
        return command

    return decorate


def _option(name: str, origin: Origin) -> Callable[[F], F]:
    metavar = _METAVARS.get(name, "TEXT")
    how: dict[str, Any] = {"is_flag": True} if origin.default is False else {"metavar": metavar}
    if metavar in {"FILE", "FOLDER"}:
        how["shell_complete"] = files
    if origin.choices:
        how = {"type": click.Choice(origin.choices)}
    default = f"{origin.default:g}" if isinstance(origin.default, float) else origin.default
    notes = [
        f"[env: {', '.join(origin.env)}]" if origin.env else "",
        f"[default: {default}]" if default not in (None, False) else "",
    ]
    text = " ".join(filter(None, (origin.help, *notes)))
    return click.option(
        flag(name), name, cls=SettingOption, group=origin.group, default=None, help=text, **how
    )


class LogHandler(logging.StreamHandler[Any]):
    """Writes to standard error, above the line of `progress` if there is one."""

    progress: Progress | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """See logging.Handler."""
        with self.progress.hidden() if self.progress else nullcontext():
            super().emit(record)


def log_to_stderr(verbose: int, *, repeat: bool = True) -> LogHandler:
    """Log warnings to standard error; with -v each step as well, with -vv each HTTP exchange.

    Without `repeat`, a warning of ONCE's loggers is logged once: it is the same for all identities.
    """
    handler = LogHandler()
    if not repeat:
        handler.addFilter(_Once())
    handler.setFormatter(logging.Formatter("klearstack-vault: %(levelname)s: %(message)s"))
    ours = logging.getLogger("vault_plugin")  # no other: libraries log what they send
    ours.addHandler(handler)
    ours.setLevel((logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)])
    return handler


class _Once(logging.Filter):
    def __init__(self) -> None:
        super().__init__()
        self._logged: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno != logging.WARNING or not record.name.startswith(ONCE):
            return True
        is_new = str(record.msg) not in self._logged
        self._logged.add(str(record.msg))
        return is_new


def identities(count: int) -> str:
    """The count with its noun: "1 identity"."""
    return f"{count:,} {'identity' if count == 1 else 'identities'}"


def paths(count: int) -> str:
    """The count of paths in Vault with its noun: "1 path"."""
    return f"{count:,} {'path' if count == 1 else 'paths'}"


def print_out(text: str) -> None:
    """Print without a buffer. Raises WriteError if standard output cannot be written."""
    click.echo(text, nl=False)


def line_of_stdin(deadline: Deadline) -> str:
    """The next line, as UTF-8.

    Raises SettingsError if it cannot be read, is longer than MAX_LINE, or has no end by the deadline.
    """
    try:
        line = read_line(MAX_LINE + 1, deadline)
        if len(line) > MAX_LINE:  # a part of it would be another identity
            raise SettingsError(
                f"A line of standard input is longer than {MAX_LINE // 1024} KiB.",
                hint="`-` reads a value from it.",
            )
        return without_line_end(line.decode())
    except TimeoutError:
        raise SettingsError(
            "A line of standard input did not arrive before the deadline passed.",
            hint="`-` reads a value from it.",
        ) from None
    except UnicodeDecodeError:
        raise SettingsError(
            "A line of standard input cannot be read as UTF-8.", hint="`-` reads a value from it."
        ) from None
    except (AttributeError, OSError) as exc:  # AttributeError: Python found it closed
        raise SettingsError(
            f"Standard input cannot be read ({reason(exc)}).", hint="`-` reads a value from it."
        ) from None


def leave_stdin(flags: dict[str, Any]) -> None:
    """For commands whose standard input belongs to another program. Raises UsageError if an option is `-`."""
    if "-" in (flags["user_id"], flags["company_name"]):
        raise UsageError("This command does not read identities from standard input; `-` is not supported.")
