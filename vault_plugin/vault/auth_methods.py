"""The login request of each auth method, which hvac makes."""

from collections.abc import Callable
from typing import NamedTuple, cast
from urllib.parse import quote

from hvac.adapters import JSONAdapter
from hvac.api.auth_methods import JWT, AppRole, Cert, Kubernetes, Ldap, Userpass

from vault_plugin.settings import Settings
from vault_plugin.tokens.secret import Secret


class Method(NamedTuple):
    """An auth method: `send` makes the login request; whether its credential can be used for a second one."""

    send: Callable[[JSONAdapter, Settings, str], object]
    repeatable: bool = True


def revealed(secret: Secret | None) -> str:
    """The value of a credential; empty if there is none."""
    return "" if secret is None else secret.reveal()


def _approle(vault: JSONAdapter, settings: Settings, mount: str) -> object:
    role_id, secret_id = revealed(settings.role_id), revealed(settings.secret_id)
    return AppRole(vault).login(role_id, secret_id, use_token=False, mount_point=mount)


def _jwt(vault: JSONAdapter, settings: Settings, mount: str) -> object:
    jwt = revealed(settings.vault_jwt)
    return JWT(vault).jwt_login(settings.auth_role, jwt, use_token=False, path=mount)


def _kubernetes(vault: JSONAdapter, settings: Settings, mount: str) -> object:
    jwt = revealed(settings.vault_jwt)
    return Kubernetes(vault).login(cast(str, settings.auth_role), jwt, use_token=False, mount_point=mount)


def _cert(vault: JSONAdapter, settings: Settings, mount: str) -> object:
    # The transport presents the certificate; hvac requires the name of a file that exists.
    name, file = settings.auth_role or "", cast(str, settings.vault_client_cert)
    return Cert(vault).login(name, cert_pem=file, mount_point=mount, use_token=False)


def _userpass(vault: JSONAdapter, settings: Settings, mount: str) -> object:
    user = quote(settings.auth_username or "", safe="")  # Here hvac does not quote it.
    return Userpass(vault).login(user, revealed(settings.vault_password), use_token=False, mount_point=mount)


def _ldap(vault: JSONAdapter, settings: Settings, mount: str) -> object:
    user, password = settings.auth_username or "", revealed(settings.vault_password)
    return Ldap(vault).login(user, password, use_token=False, mount_point=mount)


METHODS = {
    "approle": Method(_approle, repeatable=False),  # A secret id may be valid for a single use.
    "jwt": Method(_jwt),
    "kubernetes": Method(_kubernetes),
    "cert": Method(_cert),
    "userpass": Method(_userpass),
    "ldap": Method(_ldap),
}
