"""The login to Vault: one function for each auth method, and when a login is made, renewed and revoked."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple, cast

from hvac.adapters import JSONAdapter
from hvac.api.auth_methods import JWT, AppRole, Kubernetes
from hvac.exceptions import VaultError

from vault_plugin.errors import SettingsError, StoreError, StoreRefusedError, StoreSettingsError
from vault_plugin.network.library_logs import unlogged
from vault_plugin.settings import Settings
from vault_plugin.timing import blocking
from vault_plugin.timing.backoff import full_jitter
from vault_plugin.timing.deadline import Deadline
from vault_plugin.tokens.secret import Secret
from vault_plugin.vault import login_errors, schema
from vault_plugin.vault.connections import Response
from vault_plugin.vault.hvac_adapter import Limits, Session, adapter
from vault_plugin.vault.retries import PermanentError
from vault_plugin.vault.transport import Transport
from vault_plugin.wording import named

NEW_POLICIES = 1.0  # seconds during which a new login has the newest policies of its role
LOGIN_EVERY = 300.0  # seconds between two logins that follow a denial
_log = logging.getLogger(__name__)


class _Method(NamedTuple):
    """An auth method: `send` makes the login request; whether its credential can be used for a second one."""

    send: Callable[[JSONAdapter, Settings, str], object]
    repeatable: bool = True


def _approle(vault: JSONAdapter, settings: Settings, mount: str) -> object:
    role_id, secret_id = _revealed(settings.role_id), _revealed(settings.secret_id)
    return AppRole(vault).login(role_id, secret_id, use_token=False, mount_point=mount)


def _jwt(vault: JSONAdapter, settings: Settings, mount: str) -> object:
    jwt = _revealed(settings.vault_jwt)
    return JWT(vault).jwt_login(settings.auth_role, jwt, use_token=False, path=mount)


def _kubernetes(vault: JSONAdapter, settings: Settings, mount: str) -> object:
    jwt = _revealed(settings.vault_jwt)
    return Kubernetes(vault).login(cast(str, settings.auth_role), jwt, use_token=False, mount_point=mount)


_METHODS = {
    "approle": _Method(_approle, repeatable=False),  # A secret id may be valid for a single use.
    "jwt": _Method(_jwt),
    "kubernetes": _Method(_kubernetes),
}


class Login:
    """The Vault token that requests carry: the given one, or that of our own login. Safe among threads.

    Its methods raise StoreRefusedError if Vault rejects the login, StoreSettingsError if the response is not Vault's,
    StoreError if Vault fails or the deadline passes. None of them quotes what Vault said.
    """

    def __init__(
        self, transport: Transport, settings: Settings, reread: Callable[[Deadline], Settings]
    ) -> None:
        """`reread` gives the settings with the credentials of the moment, for a login after the first one."""
        self._transport = transport
        self._settings = settings
        self._reread = reread
        self._lock = threading.Lock()
        self._token: str | None = None
        self._made = self._next_login = 0.0  # monotonic seconds

    def token(self, deadline: Deadline) -> str:
        """The Vault token, after a login if there was none yet."""
        with self._alone(deadline):
            return self._log_in(self._settings, deadline) if self._token is None else self._token

    def renewed(self, expired: str, deadline: Deadline) -> str | None:
        """Another token than the one that Vault does not know any more; None if there is none."""
        with self._alone(deadline):
            if self._token == expired:
                self._log_in(self._reread_in_time(deadline), deadline)
            return self._token if self._token != expired else None

    def with_new_policies(self, denied: str, deadline: Deadline) -> str | None:
        """Another token than the one that was denied a request; None if there is none.

        The policies of a role may have changed since the login, and apply to new logins only.
        """
        with self._alone(deadline):
            now = time.monotonic()
            if self._token == denied and self._settings.auth != "token":
                if now < max(self._made + NEW_POLICIES, self._next_login):
                    return None
                self._next_login = now + LOGIN_EVERY
                try:
                    self._log_in(self._reread_in_time(deadline.half()), deadline)
                except (StoreError, SettingsError) as exc:
                    _log.info("the login to Vault after a denied request failed: %s", exc)
            return self._token if self._token != denied else None

    def revoke(self, deadline: Deadline) -> None:
        """Revoke the token of our login, since Vault keeps it until its TTL ends. Raises nothing."""
        if self._settings.auth == "token" or self._token is None:
            return
        try:
            with unlogged():
                self._adapter(self._token, Limits(deadline)).post("/v1/auth/token/revoke-self")
        except (VaultError, StoreError) as exc:
            _log.info("the token of the Vault login was not revoked (%s); it expires", type(exc).__name__)

    def _adapter(self, token: str, limits: Limits) -> JSONAdapter:
        return adapter(Session(self._transport, limits), token, self._settings.vault_namespace)

    @contextmanager
    def _alone(self, deadline: Deadline) -> Iterator[None]:
        """Let one thread at a time log in; the others wait for it until their own deadline."""
        if not self._lock.acquire(timeout=deadline.left()):
            raise StoreError(
                "The login to Vault did not finish before the deadline.", hint="See Vault's server log."
            )
        try:
            yield
        finally:
            self._lock.release()

    def _reread_in_time(self, deadline: Deadline) -> Settings:
        """The settings with credentials that can be read: a file may be empty or missing while it is replaced.

        Raises StoreRefusedError, which says what cannot be read, at the deadline.
        """
        reason = "not before the deadline"  # A reason that is known from an earlier try is reported instead.
        for delay in full_jitter(0.1, 1.0):
            try:
                return blocking.call("credentials", partial(self._reread, deadline.half()), deadline.left())
            except (SettingsError, TimeoutError) as exc:
                reason = f"{exc}".rstrip(".") if isinstance(exc, SettingsError) else reason
                _log.info("the credentials for Vault cannot be read again: %s", reason)
                if delay >= deadline.left():
                    error = StoreRefusedError(
                        f"The login to Vault has expired, and its credentials cannot be read again: {reason}.",
                        hint="Check the file that contains them.",
                    )
                    error.for_all = True
                    raise error from None
                time.sleep(delay)
        raise AssertionError  # pragma: no cover  the delays never end

    def _log_in(self, settings: Settings, deadline: Deadline) -> str:
        """Log in, and keep the token."""
        if settings.auth == "token":
            token = _revealed(settings.vault_token)
        else:
            token = self._sent_login(settings, deadline)
        self._token, self._made = token, time.monotonic()
        return token

    def _sent_login(self, settings: Settings, deadline: Deadline) -> str:
        """The token of a login request."""
        errors: list[str] = []

        def is_permanent(response: Response) -> bool:
            errors[:] = schema.errors(response.body)
            return login_errors.is_about_the_request(errors)

        method = _METHODS[settings.auth]
        mount = settings.auth_mount or settings.auth
        where = f"{settings.auth} login at {mount}"
        limits = Limits(deadline, repeatable=method.repeatable, is_permanent=is_permanent)
        try:
            with unlogged():
                return schema.login_token(method.send(self._adapter("", limits), settings, mount))
        except PermanentError:
            reason, hint = login_errors.explained(errors)
            raise StoreError(f"Vault failed at the {where} (status 500): {reason}.", hint=hint) from None
        except VaultError as exc:
            reason, hint = login_errors.explained([str(error) for error in exc.errors or ()])
            raise StoreRefusedError(f"Vault rejected the {where}: {reason}.", hint=hint) from None
        except schema.MalformedError:
            raise StoreSettingsError(
                "Vault's response to the login contains no token.",
                hint=f"Check that {named('vault_addr')} is Vault's own address.",
            ) from None


def _revealed(secret: Secret | None) -> str:
    return "" if secret is None else secret.reveal()
