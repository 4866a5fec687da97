"""The settings of each Vault that a manifest names."""

import os
from collections.abc import Mapping

from vault_plugin.errors import SettingsError
from vault_plugin.manifest.row import Row
from vault_plugin.settings import Settings
from vault_plugin.settings.credentials import for_another_vault
from vault_plugin.settings.declarations import ORIGINS
from vault_plugin.settings.gathering import Flags
from vault_plugin.settings.origin import without_logins

_SETTINGS = {
    "address": "vault_addr",
    "namespace": "vault_namespace",
    "cacert": "vault_cacert",
    "capath": "vault_capath",
    "tls_server_name": "vault_tls_server_name",
    "proxy": "vault_proxy",
    "client_cert": "vault_client_cert",
    "client_key": "vault_client_key",
    "auth": "auth",
    "auth_mount": "auth_mount",
    "auth_role": "auth_role",
    "mount": "mount",
    "path_prefix": "path_prefix",
}
# By file only: a manifest is no place for a secret.
_CREDENTIALS = {
    "token_file": "VAULT_TOKEN_FILE",
    "role_id_file": "VAULT_ROLE_ID_FILE",
    "secret_id_file": "VAULT_SECRET_ID_FILE",
    "jwt_file": "VAULT_JWT_FILE",
}
KEYS = (*_SETTINGS, *_CREDENTIALS)


def settings_of(row: Row | None, flags: Flags, environ: Mapping[str, str] | None = None) -> Settings:
    """A target's settings: its own first, then those of the command line and the environment.

    A login in the environment belongs to the Vault that the environment names: a target with an address of its own gets
    none of that, and no setting of the connection to that Vault. Raises SettingsError.
    """
    environ = os.environ if environ is None else environ
    fields = {} if row is None else row.fields
    own = {_SETTINGS[name]: text for name, text in fields.items() if name in _SETTINGS}
    own["on_vault_error"] = "fail"  # a token of many identities must be stored
    credentials = {_CREDENTIALS[name]: text for name, text in fields.items() if name in _CREDENTIALS}
    if "vault_addr" not in own:
        if credentials:
            environ = without_logins(environ, ORIGINS)
        return Settings.for_many({**environ, **credentials}, **{**flags, **own})
    rest, kept = for_another_vault(environ, flags)
    try:
        return Settings.for_many({**rest, **credentials}, **{**kept, **own})
    except SettingsError as exc:
        raise SettingsError(
            f"a target with an address of its own uses no login or connection setting of another Vault: {exc}"
        ) from None
