"""`terraform`: the program of Terraform's `data "external"`."""

import logging

import click

from vault_plugin.commands.options import Command, print_out
from vault_plugin.output.streams import read_query, require_output
from vault_plugin.protocols.query import MAX_QUERY
from vault_plugin.protocols.terraform import WORDS, respond
from vault_plugin.settings.declarations import known_deadline
from vault_plugin.wording import speak


@click.command(
    cls=Command,
    short_help="Serve Terraform's external data source.",
    examples=(
        "klearstack-vault terraform <query.json",
        'program = ["klearstack-vault", "terraform"]',
    ),
)
@click.option(
    "--with-tokens", is_flag=True, help='Also return the tokens; only for `ephemeral "local_command"`.'
)
def terraform(with_tokens: bool) -> None:
    """Serve Terraform's `data "external"`: read a query from standard input, print where the token is in Vault.

    The query has user_id and company_name; it may have renew and the settings of the token, the Vault login, the Vault
    storage and the limits, such as mount and min_ttl, all as strings. All other settings come from environment variables;
    `klearstack-vault get --help` lists them in these groups.

    Do not use --with-tokens with `data "external"`: Terraform writes the tokens to its state in plain text.
    """
    speak(WORDS)
    logging.getLogger("vault_plugin").addHandler(logging.NullHandler())  # Terraform shows no warnings
    deadline = known_deadline()
    query = read_query(MAX_QUERY + 1, deadline)
    require_output()
    print_out(respond(query, began=deadline.began, with_tokens=with_tokens))
