"""What each way to log in to Vault requires, and where else its credential may be."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from vault_plugin.settings.environment import text_of_file
from vault_plugin.settings.values import credential
from vault_plugin.timing.deadline import Deadline
from vault_plugin.tokens.secret import Secret

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")  # in every pod


class Login(NamedTuple):
    """The settings that a login requires, each with what to add where it is missing.

    `instead`: settings that together replace a required one. `files`: where another program leaves one of them; they
    are read only where no setting is given. `has_helper`: a token helper may provide the token, before the files.
    """

    requires: Mapping[str, str]
    instead: Mapping[str, tuple[str, ...]] = {}
    files: Mapping[str, Callable[[Mapping[str, str]], Path]] = {}
    has_helper: bool = False


_PASSWORD = Login({"auth_username": "", "vault_password": ""})
LOGINS = {
    "token": Login(
        {"vault_token": ", and ~/.vault-token contains none"},
        files={"vault_token": lambda environ: Path(environ.get("HOME", "/nonexistent"), ".vault-token")},
        has_helper=True,
    ),
    "none": Login({}),  # Vault Agent or Proxy, at Vault's address, adds its own token.
    "approle": Login({"role_id": "", "secret_id": ""}, instead={"secret_id": ("wrapped_secret_id",)}),
    "jwt": Login({"vault_jwt": ""}, instead={"vault_jwt": ("actions_url", "actions_token")}),
    "kubernetes": Login(
        {"auth_role": "", "vault_jwt": ", and so is a pod's service account token"},
        files={"vault_jwt": lambda _: SERVICE_ACCOUNT},
    ),
    "cert": Login({"vault_client_cert": "", "vault_client_key": ""}),
    "userpass": _PASSWORD,
    "ldap": _PASSWORD,
}


def credential_in(path: Path, deadline: Deadline) -> Secret | None:
    """The credential in a file; None if there is no such file, or no credential in it."""
    with suppress(ValueError):
        return credential(text_of_file(path, "", deadline, rewritten=True, given=False))
    return None
