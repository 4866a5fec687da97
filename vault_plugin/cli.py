"""The command line: parse, call, print. Only `main` turns errors into text and exit codes."""

import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from vault_plugin import formats
from vault_plugin.app import connect
from vault_plugin.errors import KlearstackVaultError, OutputError, SettingsError, UsageError, WriteError, bug
from vault_plugin.settings import Origin, Settings
from vault_plugin.terraform import MAX_QUERY, respond
from vault_plugin.tokens import Kind

F = TypeVar("F", bound=Callable[..., Any])
_KINDS = {"access": (Kind.ACCESS,), "refresh": (Kind.REFRESH,), "both": (Kind.ACCESS, Kind.REFRESH)}


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


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="klearstack-vault", message="%(prog)s %(version)s")
def cli() -> None:
    """KlearStack API tokens, kept in Vault until they expire and handed to the tool that asks."""


@cli.command()
@click.option(
    "--token", "wanted", type=click.Choice(list(_KINDS)), default="access", show_default=True, help="Which."
)
@click.option("--renew", is_flag=True, help="Mint, even if the stored one is still good.")
@click.option(
    "--format",
    "form",
    type=click.Choice(list(formats.FORMATS)),
    default="raw",
    show_default=True,
    help="How to print.",
)
@click.option(
    "--output", metavar="FILE", help="Write there (mode 0600, atomically) instead of to standard output."
)
@click.option("-v", "--verbose", count=True, help="Say on standard error what is done; -vv says more.")
@settings_options
def get(
    wanted: str, renew: bool, form: str, output: str | None, verbose: int, **flags: str | bool | None
) -> None:
    """Hand over a token: from Vault while it is good, else freshly minted and stored."""
    _log_to_stderr(verbose)
    try:
        for name in ("user_id", "company_name"):  # in this order, a line each
            if flags[name] == "-":
                flags[name] = _line_of_stdin()
        settings = Settings.from_env(**flags)
        with connect(settings) as broker:
            grant = broker.get(settings.identity(), _KINDS[wanted], renew=renew)
        text = formats.render(grant, form)
        if output is not None:
            formats.write_file(Path(output), text)
            return
    except KlearstackVaultError as exc:
        if form == "json":
            click.echo(formats.render_error(exc), nl=False)
        raise
    _print(text)


def _print(text: str) -> None:
    try:
        click.echo(text, nl=False)  # and flush
    except OSError as exc:
        # What is left in the buffer must not fail again when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise WriteError(f"Standard output cannot be written ({exc.strerror}).") from None


def _line_of_stdin() -> str:
    try:
        return sys.stdin.readline().removesuffix("\n").removesuffix("\r")
    except (AttributeError, OSError, ValueError):  # closed, broken, or no UTF-8
        raise SettingsError("A line of standard input cannot be read.", hint="`-` stands for it.") from None


@cli.command()
@click.option(
    "--with-tokens", is_flag=True, help='Answer the tokens, too: for `ephemeral "local_command"` only.'
)
def terraform(with_tokens: bool) -> None:
    """The program of Terraform's `data "external"`: a query on standard input, references to tokens on standard output.

    With --with-tokens, `data "external"` would write the tokens into Terraform's state in plain text.
    """
    logging.getLogger("vault_plugin").addHandler(logging.NullHandler())  # Terraform shows no warnings
    _print(respond(sys.stdin.buffer.read(MAX_QUERY + 1), with_tokens=with_tokens))


@cli.command()
def demo() -> None:
    """Show all this on a real OpenBao and a simulated endpoint, on loopback, in under 20 seconds."""
    from vault_plugin import demo as story  # noqa: PLC0415  its servers are no warm read's business

    story.run(click.echo)


@cli.command()
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0 takes a free one."
)
@click.option(
    "--access-ttl", type=float, default=900.0, show_default=True, help="Seconds that access tokens live."
)
@click.option(
    "--refresh-ttl", type=float, default=172800.0, show_default=True, help="Seconds that refresh tokens live."
)
@click.option("--latency", type=float, default=0.0, show_default=True, help="Seconds before each answer.")
@click.option("--fault", metavar="NAME", default="", help="Go wrong in one way; `list` lists them.")
@click.option("--fault-count", type=click.IntRange(min=1), help="Only that many times.  [default: always]")
def simulate(**options: Any) -> None:
    """Serve KlearStack's endpoint on loopback. Prints its URL; GET /simulator/stats counts the mints."""
    from vault_plugin.faults import FAULTS  # noqa: PLC0415  as above
    from vault_plugin.simulator import Simulator  # noqa: PLC0415  as above

    if options["fault"] == "list":
        click.echo("\n".join(f"{name:24} {fault.does}" for name, fault in sorted(FAULTS.items())))
        return
    if options["fault"] and options["fault"] not in FAULTS:
        raise UsageError("There is no such fault.", hint="`--fault list` lists them.")
    try:
        simulator = Simulator(**options)
    except OSError as exc:
        raise OutputError(f"Port {options['port']} cannot be listened on ({exc.strerror}).") from None
    click.echo(simulator.url)
    simulator.serve_forever()


def _log_to_stderr(verbose: int) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("klearstack-vault: %(levelname)s: %(message)s"))
    ours = logging.getLogger("vault_plugin")  # and nobody else's: other libraries log what they send
    ours.addHandler(handler)
    ours.setLevel((logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)])


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit by the codes of errors.py; 130 after Ctrl-C."""
    try:
        sys.exit(cli.main(argv, prog_name="klearstack-vault", standalone_mode=False))
    except KlearstackVaultError as exc:
        _fail(exc)
    except click.exceptions.NoArgsIsHelpError as exc:
        click.echo(exc.format_message(), err=True)
        sys.exit(UsageError.exit_code)
    except click.ClickException as exc:
        _fail(UsageError(_without_values(exc), hint="`klearstack-vault --help` shows the way."))
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except Exception as exc:  # noqa: BLE001  a traceback might show a secret, and a token's user can do nothing with it
        _fail(bug(exc))


def _fail(exc: KlearstackVaultError) -> NoReturn:
    click.echo(f"klearstack-vault: {exc} {exc.hint}".rstrip(), err=True)
    sys.exit(exc.exit_code)


def _without_values(exc: click.ClickException) -> str:
    """What is wrong with the command line, without what was typed: it may have been a token."""
    if isinstance(exc, click.NoSuchOption):
        return "There is no option of that name."
    if isinstance(exc, click.BadOptionUsage):
        return f"{exc.option_name} takes {'a' if 'requires' in exc.message else 'no'} value."
    if isinstance(exc, click.BadParameter) and exc.param is not None:
        choices = getattr(exc.param.type, "choices", ())
        return f"{exc.param.opts[0]} takes {'one of ' + ', '.join(choices) if choices else 'another kind of value'}."
    return "There is no such command, or it takes fewer arguments."
