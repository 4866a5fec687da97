"""Every setting, declared once. Command line, documentation and checks are made from these declarations.

A value comes from a flag, else from its environment variables in their order, each of which may instead name a file
(the same name with `_FILE` appended), else from the default. An empty variable is unset; an empty flag as well, unless
the setting is required.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, replace

from vault_plugin.errors import SettingsError
from vault_plugin.settings.gathering import gather, gather_one, warn_of_form
from vault_plugin.settings.logins import LOGINS
from vault_plugin.settings.origin import Group, Origin, identity_setting, secret_setting, setting
from vault_plugin.settings.values import (
    duration,
    endpoint_url,
    positive_duration,
    vault_addresses,
    vault_path,
)
from vault_plugin.tokens.identity import Identity
from vault_plugin.tokens.secret import Secret

NOTICEABLE = 0.1  # seconds that reading files may take without being subtracted from the deadline


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The values of all settings. Durations are seconds. Build it with `from_env`."""

    user_id: str = identity_setting(
        "KLEARSTACK_USER_ID", help="User ID; `-` reads a line from standard input."
    )
    company_name: str = identity_setting(
        "KLEARSTACK_COMPANY_NAME", help="Company name; `-` reads the next line from standard input."
    )
    url: str = setting(
        "KLEARSTACK_URL",
        group=Group.ENDPOINT,
        help="Base URL of the KlearStack API.",
        read=endpoint_url,
    )
    ca_cert: str | None = setting(
        "KLEARSTACK_CACERT",
        group=Group.ENDPOINT,
        help="PEM file of the endpoint's CA, if it is not a public one.",
        default=None,
    )
    allow_plain_http: bool = setting(
        group=Group.ENDPOINT,
        help="Allow plain http to a remote endpoint, which exposes tokens to the network.",
        default=False,
    )
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
    mount: str = setting(
        "KLEARSTACK_VAULT_MOUNT",
        group=Group.VAULT_STORAGE,
        help="Mount path of the KV secrets engine (v1 or v2).",
        default="secret",
        read=vault_path,
    )
    path_prefix: str = setting(
        "KLEARSTACK_VAULT_PATH_PREFIX",
        group=Group.VAULT_STORAGE,
        help="Path prefix below the mount.",
        default="klearstack",
        read=vault_path,
    )
    min_ttl: float = setting(
        "KLEARSTACK_MIN_TTL",
        group=Group.TOKEN,
        help="Minimum remaining lifetime; capped at half of the token's lifetime.",
        default=60.0,
        read=duration,
    )
    timeout: float = setting(
        "KLEARSTACK_TIMEOUT",
        group=Group.LIMITS,
        help="Connect and read timeout.",
        default=10.0,
        read=positive_duration,
    )
    deadline: float = setting(
        "KLEARSTACK_DEADLINE",
        group=Group.LIMITS,
        help="Overall timeout.",
        default=60.0,
        read=positive_duration,
    )
    on_vault_error: str = setting(
        "KLEARSTACK_ON_VAULT_ERROR",
        group=Group.VAULT_CONNECTION,
        help="If Vault is not available: fail, or bypass it (mint a token and do not store it).",
        default="fail",
        choices=("fail", "bypass"),
    )
    on_user_mismatch: str = setting(
        "KLEARSTACK_ON_USER_MISMATCH",
        group=Group.TOKEN,
        help="If a token names another user: fail, or warn and use it.",
        default="fail",
        choices=("fail", "warn"),
    )
    lock_dir: str | None = setting(
        "KLEARSTACK_LOCK_DIR",
        group=Group.LIMITS,
        help="Directory for lock files shared by all processes on this host.",
        flag=False,
        default=None,  # the lock folder is only chosen when it is needed
    )

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, /, **flags: str | bool | None) -> "Settings":
        """Gather all settings; a flag that is None was not given.

        The time that reading files has taken is subtracted from the deadline.

        Raises SettingsError, which names at once all that is missing, unreadable or wrong.
        """
        values, deadline = gather(ORIGINS, environ, flags, cls.deadline)
        warn_of_form(ORIGINS, values)
        settings = cls(**values)
        slow = settings.deadline - deadline.left() > NOTICEABLE
        return replace(settings, deadline=deadline.left()) if slow else settings

    @classmethod
    def for_many(cls, environ: Mapping[str, str] | None = None, /, **flags: str | bool | None) -> "Settings":
        """The same for a caller that has identities of its own: none is required here. Raises SettingsError."""
        placeholders = {name: "-" for name, origin in ORIGINS.items() if origin.identity}
        return cls(**gather(ORIGINS, environ, {**flags, **placeholders}, cls.deadline)[0])

    def identity(self) -> Identity:
        """The identity whose token is requested. Raises SettingsError if it is not valid."""
        return Identity(self.user_id, self.company_name)


ORIGINS: dict[str, Origin] = {one.name: one.metadata["origin"] for one in fields(Settings)}


def default_company(given: str | None, environ: Mapping[str, str] | None = None) -> str | None:
    """The company of identities that name none; None if there is none. Raises SettingsError."""
    company: str | None = gather_one(
        "company_name", ORIGINS["company_name"], given, environ, Settings.deadline
    )
    return company


def known_deadline(given: str | bool | None = None, environ: Mapping[str, str] | None = None) -> float:
    """The overall timeout (seconds) for what comes before the other settings are read; the default if it is invalid."""
    found = None
    with suppress(SettingsError):
        found = gather_one("deadline", ORIGINS["deadline"], given, environ, Settings.deadline)
    return Settings.deadline if found is None else float(found)
