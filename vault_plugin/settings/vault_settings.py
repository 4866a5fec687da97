"""The settings of the way to Vault and of the login there: what belongs to one Vault alone."""

from dataclasses import dataclass

from vault_plugin.settings.logins import LOGINS
from vault_plugin.settings.origin import Group, secret_setting, setting
from vault_plugin.settings.proxies import Proxy
from vault_plugin.settings.values import (
    RateLimit,
    certificates,
    client_timeout,
    host_name,
    rate_limit,
    vault_addresses,
    vault_path,
    whole_number,
)
from vault_plugin.tokens.secret import Secret


@dataclass(frozen=True, kw_only=True)
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
    vault_cacert_bytes: str | None = setting(
        "BAO_CACERT_BYTES",
        "VAULT_CACERT_BYTES",
        group=Group.VAULT_CONNECTION,
        help="The same as PEM text, if no file is named.",
        flag=False,
        default=None,
        read=certificates,
    )
    vault_capath: str | None = setting(
        "BAO_CAPATH",
        "VAULT_CAPATH",
        group=Group.VAULT_CONNECTION,
        help="Folder of PEM files of CAs, if neither a file nor PEM text is given.",
        default=None,
    )
    vault_tls_server_name: str | None = setting(
        "BAO_TLS_SERVER_NAME",
        "VAULT_TLS_SERVER_NAME",
        group=Group.VAULT_CONNECTION,
        help="Name in Vault's certificate, if it is not the host of its address.",
        default=None,
        read=host_name,
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
    vault_proxy: Proxy | None = setting(
        "BAO_PROXY_ADDR",
        "VAULT_PROXY_ADDR",
        "BAO_HTTP_PROXY",
        "VAULT_HTTP_PROXY",
        group=Group.VAULT_CONNECTION,
        help="Proxy for Vault at https, or none; the default is the variable of the endpoint's.",
        default=None,
        read=Proxy.read,
    )
    vault_timeout: float | None = setting(
        "BAO_CLIENT_TIMEOUT",
        "VAULT_CLIENT_TIMEOUT",
        group=Group.VAULT_CONNECTION,
        help="Connect and read timeout for Vault, in place of the general one.",
        flag=False,
        default=None,
        read=client_timeout,
    )
    vault_max_retries: int | None = setting(
        "BAO_MAX_RETRIES",
        "VAULT_MAX_RETRIES",
        group=Group.VAULT_CONNECTION,
        help="How often a failed request to Vault is sent again at most.",
        flag=False,
        default=None,
        read=whole_number,
    )
    vault_rate_limit: RateLimit | None = setting(
        "BAO_RATE_LIMIT",
        "VAULT_RATE_LIMIT",
        group=Group.VAULT_CONNECTION,
        help="Maximum requests per second to Vault, as rate or rate:burst.",
        flag=False,
        default=None,
        read=rate_limit,
    )
    on_vault_error: str = setting(
        "KLEARSTACK_ON_VAULT_ERROR",
        group=Group.VAULT_CONNECTION,
        help="If Vault is not available: fail, or bypass it (mint a token and do not store it).",
        default="fail",
        choices=("fail", "bypass"),
    )


@dataclass(frozen=True, kw_only=True)
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
