"""The settings of the way to Vault and of the login there: what belongs to one Vault alone."""

from dataclasses import dataclass

from vault_plugin.settings.logins import LOGINS
from vault_plugin.settings.origin import Group, secret_setting, setting
from vault_plugin.settings.values import vault_addresses, vault_path
from vault_plugin.tokens.secret import Secret


# Only Settings is instantiated, so that the methods of its bases need not be generated, which takes time at each start.
@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class VaultConnectionSettings:
    """Where Vault is, and how it is reached."""

    vault_addr: tuple[str, ...] = setting(
        "BAO_ADDR",
        "VAULT_ADDR",
        group=Group.VAULT_CONNECTION,
        help="Vault address; commas separate nodes of a cluster, unix:///path is a socket.",
        read=vault_addresses,
    )
    vault_namespace: str | None = setting(
        "BAO_NAMESPACE",
        "VAULT_NAMESPACE",
        group=Group.VAULT_CONNECTION,
        help="Vault namespace.",
        default=None,
        read=vault_path,
    )
    vault_cacert: str | None = setting(
        "BAO_CACERT",
        "VAULT_CACERT",
        group=Group.VAULT_CONNECTION,
        help="PEM file of Vault's CA, if it is not a public one.",
        default=None,
    )
    vault_client_cert: str | None = setting(
        "BAO_CLIENT_CERT",
        "VAULT_CLIENT_CERT",
        group=Group.VAULT_CONNECTION,
        help="PEM file of the TLS client certificate for Vault.",
        default=None,
    )
    vault_client_key: str | None = setting(
        "BAO_CLIENT_KEY",
        "VAULT_CLIENT_KEY",
        group=Group.VAULT_CONNECTION,
        help="PEM file of the client certificate's key.",
        default=None,
    )
    on_vault_error: str = setting(
        "KLEARSTACK_ON_VAULT_ERROR",
        group=Group.VAULT_CONNECTION,
        help="If Vault is not available: fail, or bypass it (mint a token and do not store it).",
        default="fail",
        choices=("fail", "bypass"),
    )


@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class VaultLoginSettings:
    """How to log in to Vault."""

    auth: str = setting(
        "KLEARSTACK_VAULT_AUTH",
        group=Group.VAULT_LOGIN,
        help="Vault auth method.",
        default="token",
        choices=tuple(LOGINS),
    )
    auth_mount: str | None = setting(
        "KLEARSTACK_VAULT_AUTH_MOUNT",
        group=Group.VAULT_LOGIN,
        help="Mount path of the auth method, if it is not the method's name.",
        default=None,
        read=vault_path,
    )
    auth_role: str | None = setting(
        "KLEARSTACK_VAULT_AUTH_ROLE",
        group=Group.VAULT_LOGIN,
        help="Role to log in with; required for kubernetes, optional for jwt.",
        default=None,
    )
    vault_token: Secret | None = secret_setting(
        "BAO_TOKEN", "VAULT_TOKEN", help="Vault token; the default is read from ~/.vault-token."
    )
    role_id: Secret | None = secret_setting("BAO_ROLE_ID", "VAULT_ROLE_ID", help="AppRole role ID.")
    secret_id: Secret | None = secret_setting("BAO_SECRET_ID", "VAULT_SECRET_ID", help="AppRole secret ID.")
    vault_jwt: Secret | None = secret_setting(
        "BAO_JWT",
        "VAULT_JWT",
        help="JWT to log in with; for kubernetes, the default is the pod's service account token.",
    )
