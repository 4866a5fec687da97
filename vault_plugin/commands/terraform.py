"""`terraform`: the program of its `data "external"`."""

import logging

import click

from vault_plugin.commands.options import print_out
from vault_plugin.output.streams import read_query, require_output
from vault_plugin.protocols.query import MAX_QUERY
from vault_plugin.protocols.terraform import WORDS, respond
from vault_plugin.settings.declarations import known_deadline
from vault_plugin.wording import speak


@click.command()
@click.option(
    "--with-tokens", is_flag=True, help='Answer the tokens, too: for `ephemeral "local_command"` only.'
)
def terraform(with_tokens: bool) -> None:
    """The program of Terraform's `data "external"`: a query on standard input, references to tokens on standard output.

    The query has user_id and company_name; it may have mount, path_prefix, min_ttl, renew and deadline, as strings. All
    other settings come from the environment, as `klearstack-vault get --help` lists them.

    With --with-tokens, `data "external"` would write the tokens into Terraform's state in plain text.
    """
    speak(WORDS)
    logging.getLogger("vault_plugin").addHandler(logging.NullHandler())  # Terraform shows no warnings
    query = read_query(MAX_QUERY + 1, known_deadline())
    require_output()
    print_out(respond(query, with_tokens=with_tokens))
