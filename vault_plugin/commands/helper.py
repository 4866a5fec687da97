"""`helper`: other programs' protocols for credentials, and the two commands that those start without arguments."""

import logging
import os
from functools import partial

import click

from vault_plugin.commands.options import leave_stdin, print_out, settings_options
from vault_plugin.errors import UsageError
from vault_plugin.output.streams import read_query, require_output
from vault_plugin.protocols import bazel, git, kubernetes
from vault_plugin.protocols.hosts import check_hosts
from vault_plugin.protocols.query import MAX_QUERY
from vault_plugin.settings import Settings
from vault_plugin.settings.declarations import known_deadline


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
@click.option(
    "--any-cluster",
    is_flag=True,
    help="exec-credential: answer although kubectl does not name the cluster (no provideClusterInfo).",
)
@settings_options()
def helper(
    *, protocol: str, operation: str, hosts: tuple[str, ...], any_cluster: bool, **flags: str | bool | None
) -> None:
    """Answer Kubernetes, Bazel or git in their own protocol.

    OPERATION is what bazel (`get`) and git (`get`, ...) append. `klearstack-vault-credential-helper` and
    `git-credential-klearstack-vault` are the same for callers that take a program's name only.
    """
    logging.getLogger("vault_plugin").addHandler(logging.NullHandler())  # callers may log what we say
    leave_stdin(flags)
    check_hosts(hosts)
    if any_cluster and protocol != "exec-credential":
        raise UsageError("--any-cluster is for exec-credential.")
    gather = partial(Settings.from_env, **flags)
    query = partial(read_query, MAX_QUERY + 1, known_deadline(flags["deadline"]))
    if protocol == "git" and operation != "get":  # we keep nothing, so there is nothing to store
        if operation == "erase":
            git.erase(query(), gather, hosts)
        print_out(git.CAPABILITY if operation == "capability" else "")
        return
    if operation != ("" if protocol == "exec-credential" else "get"):
        raise UsageError("After bazel and git stands `get`, after exec-credential nothing.")
    # The query before anything can fail, since the caller is still writing.
    asked = b"" if protocol == "exec-credential" else query()
    require_output()
    if protocol == "exec-credential":
        info = os.environ.get("KUBERNETES_EXEC_INFO", "")
        answer = kubernetes.exec_credential(info, gather(), hosts, any_cluster=any_cluster)
    else:
        respond = bazel.get_headers if protocol == "bazel" else git.get
        answer = respond(asked, gather(), hosts)
    print_out(answer)
