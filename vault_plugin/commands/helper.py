"""`helper`: the credential protocols of kubectl, Bazel and git, and the two commands that these start without arguments."""

import logging
import os
from functools import partial

import click

from vault_plugin.commands.options import Command, leave_stdin, option, print_out, settings_options
from vault_plugin.errors import UsageError
from vault_plugin.output.streams import read_query, require_output
from vault_plugin.protocols import bazel, git, kubernetes
from vault_plugin.protocols.hosts import check_hosts
from vault_plugin.protocols.query import MAX_QUERY
from vault_plugin.settings import Settings
from vault_plugin.settings.declarations import known_deadline


@click.command(
    cls=Command,
    short_help="Credential helper for kubectl, Bazel and git.",
    examples=(
        "klearstack-vault helper exec-credential",
        "git config --global credential.helper klearstack-vault",
    ),
)
@click.argument("protocol", type=click.Choice(["exec-credential", "bazel", "git"]))
@click.argument("operation", default="")
@option(
    "--host",
    "hosts",
    group="Token",
    metavar="HOST[:PORT]",
    multiple=True,
    envvar="KLEARSTACK_HELPER_HOSTS",
    help="Additional host that may receive the token, besides KlearStack's own; repeatable. "
    "[env: KLEARSTACK_HELPER_HOSTS, separated by spaces]",
)
@option(
    "--any-cluster",
    group="Token",
    is_flag=True,
    help="For exec-credential: respond even if kubectl does not name the cluster (no provideClusterInfo).",
)
@settings_options()
def helper(
    *, protocol: str, operation: str, hosts: tuple[str, ...], any_cluster: bool, **flags: str | bool | None
) -> None:
    """Serve kubectl, Bazel or git as a credential helper.

    Bazel and git append OPERATION. `klearstack-vault-credential-helper` and `git-credential-klearstack-vault` are the
    same for callers that take only the name of a program.
    """
    logging.getLogger("vault_plugin").addHandler(logging.NullHandler())  # callers may log standard error
    leave_stdin(flags)
    check_hosts(hosts)
    if any_cluster and protocol != "exec-credential":
        raise UsageError("--any-cluster applies to exec-credential only.")
    deadline = known_deadline(flags["deadline"])
    gather = partial(Settings.from_env, None, deadline.began, **flags)
    query = partial(read_query, MAX_QUERY + 1, deadline)
    if protocol == "git" and operation != "get":  # the helper stores nothing for git
        if operation == "erase":
            git.erase(query(), gather, hosts)
        print_out(git.CAPABILITY if operation == "capability" else "")
        return
    if operation != ("" if protocol == "exec-credential" else "get"):
        raise UsageError("`bazel` and `git` take the operation `get`; `exec-credential` takes none.")
    # Read the query before anything can fail, since the caller is still writing.
    asked = b"" if protocol == "exec-credential" else query()
    require_output()
    if protocol == "exec-credential":
        info = os.environ.get("KUBERNETES_EXEC_INFO", "")
        answer = kubernetes.exec_credential(info, gather(), hosts, any_cluster=any_cluster)
    else:
        respond = bazel.get_headers if protocol == "bazel" else git.get
        answer = respond(asked, gather(), hosts)
    print_out(answer)
