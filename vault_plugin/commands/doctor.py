"""`doctor`: find out why tokens cannot be read, minted or stored."""

import json

import click

from vault_plugin.commands.options import (
    Command,
    leave_stdin,
    log_to_stderr,
    option,
    print_out,
    settings_options,
    verbose_option,
)
from vault_plugin.doctor.examination import Examination
from vault_plugin.doctor.verdicts import Verdict, exit_code
from vault_plugin.output.streams import require_output
from vault_plugin.settings.declarations import survey_all


@click.command(
    cls=Command,
    short_help="Check settings, endpoint and Vault.",
    examples=("klearstack-vault doctor", "klearstack-vault doctor --format json --write-test"),
)
@option(
    "--write-test",
    group="Vault storage",
    is_flag=True,
    help="Also write a secret without a token below the path prefix.",
)
@option(
    "--format",
    "form",
    group="Output",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Output format.",
)
@verbose_option
@settings_options()
def doctor(*, write_test: bool, form: str, verbose: int, **flags: str | bool | None) -> int:
    """Check settings, host, endpoint and Vault, and print a verdict and a remedy for each.

    No token is requested, and nothing is written to Vault without --write-test. The exit code is that of the worst
    failure.
    """
    log_to_stderr(verbose)
    require_output()
    leave_stdin(flags)
    verdicts: list[Verdict] = []
    for verdict in Examination(survey_all(**flags), write_test=write_test).verdicts():
        verdicts.append(verdict)
        if form == "text":
            print_out(f"{verdict.line}\n")
    code = exit_code(verdicts)
    if form == "json":
        found = {"verdicts": [verdict.describe() for verdict in verdicts], "exit_code": code}
        print_out(json.dumps(found) + "\n")
    return code
