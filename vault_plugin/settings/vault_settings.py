"""The settings of the way to Vault and of the login there: what belongs to one Vault alone."""

from vault_plugin.settings.logins import LOGINS
from vault_plugin.settings.origin import Declared, Group, secret_setting, setting
from vault_plugin.settings.proxies import Proxy
from vault_plugin.settings.values import (
    RateLimit,
    actions_url,
    certificates,
    client_timeout,
    host_name,
    password,
    rate_limit,
    user_name,
    vault_addresses,
    vault_namespace,
    vault_path,
    whole_number,
)
from vault_plugin.tokens.names import checked
from vault_plugin.tokens.secret import Secret


class VaultConnectionSettings(Declared):
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
        help="Vault namespace; `root` is the root namespace.",
        default=None,
        read=vault_namespace,
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
        help="Proxy for Vault at an https address, or `none`; the default is HTTPS_PROXY.",
        default=None,
        read=Proxy.read,
    )
    vault_timeout: float | None = setting(
        "BAO_CLIENT_TIMEOUT",
        "VAULT_CLIENT_TIMEOUT",
        group=Group.LIMITS,
        help="Connect and read timeout for Vault, in place of the general one.",
        flag=False,
        default=None,
        read=client_timeout,
    )
    vault_max_retries: int | None = setting(
        "BAO_MAX_RETRIES",
        "VAULT_MAX_RETRIES",
        group=Group.LIMITS,
        help="How often a failed request to Vault is sent again at most.",
        flag=False,
        default=None,
        read=whole_number,
    )
    vault_rate_limit: RateLimit | None = setting(
        "BAO_RATE_LIMIT",
        "VAULT_RATE_LIMIT",
        group=Group.LIMITS,
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


class VaultLoginSettings(Declared):
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
    auth_namespace: str | None = setting(
        "KLEARSTACK_VAULT_AUTH_NAMESPACE",
        group=Group.VAULT_LOGIN,
        help="Namespace of the auth method, if it is not that of the KV mount; `root` is the root namespace.",
        default=None,
        read=vault_namespace,
    )
    auth_role: str | None = setting(
        "KLEARSTACK_VAULT_AUTH_ROLE",
        group=Group.VAULT_LOGIN,
        help="Role to log in with; required for kubernetes, optional for jwt and cert.",
        default=None,
        read=checked,
    )
    auth_audience: str | None = setting(
        "KLEARSTACK_VAULT_AUTH_AUDIENCE",
        group=Group.VAULT_LOGIN,
        help="Audience of the ID token that is requested from GitHub Actions for jwt.",
        default=None,
        read=checked,
    )
    auth_username: str | None = setting(
        "KLEARSTACK_VAULT_AUTH_USERNAME",
        group=Group.VAULT_LOGIN,
        help="User name for userpass and ldap.",
        default=None,
        read=user_name,
    )
    vault_token: Secret | None = secret_setting(
        "BAO_TOKEN",
        "VAULT_TOKEN",
        help="Vault token; the default is that of the token helper of the `vault` CLI, else of ~/.vault-token.",
    )
    vault_config_path: str | None = setting(
        "BAO_CONFIG_PATH",
        "VAULT_CONFIG_PATH",
        group=Group.VAULT_LOGIN,
        help="Configuration of Vault's command, which may name a token helper; the default is ~/.bao or ~/.vault.",
        flag=False,
        default=None,
    )
    role_id: Secret | None = secret_setting("BAO_ROLE_ID", "VAULT_ROLE_ID", help="AppRole role ID.")
    secret_id: Secret | None = secret_setting("BAO_SECRET_ID", "VAULT_SECRET_ID", help="AppRole secret ID.")
    wrapped_secret_id: Secret | None = secret_setting(
        "BAO_WRAPPED_SECRET_ID",
        "VAULT_WRAPPED_SECRET_ID",
        help="Wrapping token that contains the AppRole secret ID.",
    )
    vault_jwt: Secret | None = secret_setting(
        "BAO_JWT",
        "VAULT_JWT",
        help="JWT to log in with; the default is the pod's service account token (kubernetes), or is requested from "
        "GitHub Actions (jwt).",
    )
    vault_password: Secret | None = secret_setting(
        "BAO_PASSWORD", "VAULT_PASSWORD", help="Password for userpass and ldap.", read=password
    )
    actions_url: str | None = setting(
        "ACTIONS_ID_TOKEN_REQUEST_URL",
        group=Group.VAULT_LOGIN,
        help="Set by GitHub Actions: where a job with `id-token: write` requests its ID token.",
        flag=False,
        default=None,
        read=actions_url,
    )
    actions_token: Secret | None = secret_setting(
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN", help="Set by GitHub Actions: authorizes that request."
    )
