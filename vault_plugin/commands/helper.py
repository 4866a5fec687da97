"""`helper`: other programs' protocols for credentials, and the two commands that those start without arguments."""

import logging
import os

import click

from vault_plugin import protocols
from vault_plugin.commands.options import leave_stdin, print_out, settings_options
from vault_plugin.errors import UsageError
from vault_plugin.settings import Settings
from vault_plugin.streams import read_query, require_output


@click.command()
@click.argument("protocol", type=click.Choice(["exec-credential", "bazel", "git"]))
@click.argument("operation", default="")
@click.option(
    "--host",
    "hosts",
    metavar="HOST[:PORT]",
    multiple=True,
    envvar="KLEARSTACK_HELPER_HOSTS",
    help="A host, besides KlearStack's own, that may see the token; repeatable. "
    "[env: KLEARSTACK_HELPER_HOSTS, with spaces]",
)
@settings_options()
def helper(protocol: str, operation: str, hosts: tuple[str, ...], **flags: str | bool | None) -> None:
    """Answer Kubernetes, Bazel or git in their own protocol.

    OPERATION is what bazel (`get`) and git (`get`, ...) append. `klearstack-vault-credential-helper` and
    `git-credential-klearstack-vault` are the same for callers that take a program's name only.
    """
    logging.getLogger("vault_plugin").addHandler(logging.NullHandler())  # callers may log what we say
    leave_stdin(flags)
    if protocol == "git" and operation != "get":  # we keep nothing, so there is nothing to store or erase
        print_out(protocols.GIT_CAPABILITY if operation == "capability" else "")
        return
    if operation != ("" if protocol == "exec-credential" else "get"):
        raise UsageError("After bazel and git stands `get`, after exec-credential nothing.")
    # The query before anything can fail, since the caller is still writing.
    query = b"" if protocol == "exec-credential" else read_query(protocols.MAX_QUERY + 1)
    require_output()
    if protocol == "exec-credential":
        settings = Settings.from_env(**flags)
        answer = protocols.exec_credential(os.environ.get("KUBERNETES_EXEC_INFO", ""), settings, hosts)
    else:
        respond = protocols.bazel if protocol == "bazel" else protocols.git
        answer = respond(query, Settings.from_env(**flags), hosts)
    print_out(answer)
