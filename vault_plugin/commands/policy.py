"""`policy`: print the Vault policy that a role needs."""

import click

from vault_plugin.app import policy_of
from vault_plugin.commands.options import Command, print_out, settings_options
from vault_plugin.output.streams import require_output
from vault_plugin.settings import Settings
from vault_plugin.settings.declarations import value_of

_USED = ("kv_version", "mount", "path_prefix", "vault_namespace", "auth_namespace")


@click.command(
    cls=Command,
    short_help="Print the Vault policy that a role needs.",
    examples=(
        "klearstack-vault policy syncer",
        "klearstack-vault policy reader --mount team/kv --kv-version 1",
    ),
)
@click.argument("role", type=click.Choice(["reader", "syncer", "operator"]))
@settings_options(*(name for name in Settings.origins if name not in _USED))
def policy(role: str, **flags: str | None) -> None:
    """Print the least-privilege policy (HCL) of a role, for the configured mount and path prefix.

    `reader` uses stored tokens (get, exec, helper, terraform). `syncer` also mints and stores them (sync, watch).
    `operator` runs status and delete. The policy belongs in the namespace of the login. No server is contacted:
    without --kv-version, it is for KV v2.
    """
    require_output()
    print_out(policy_of(role, *(value_of(name, flags[name]) for name in _USED)))
