"""The login to Vault: when it is made, made again and ended."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

from hvac.adapters import JSONAdapter
from hvac.exceptions import VaultError

from vault_plugin.errors import SettingsError, StoreError, StoreRefusedError, StoreSettingsError
from vault_plugin.network.library_logs import unlogged
from vault_plugin.settings import Settings
from vault_plugin.timing import blocking
from vault_plugin.timing.backoff import full_jitter
from vault_plugin.timing.deadline import Deadline
from vault_plugin.vault import id_token, login_errors, schema, wrapping
from vault_plugin.vault.auth_methods import METHODS, revealed
from vault_plugin.vault.connections import Response
from vault_plugin.vault.hvac_adapter import Limits, Session, adapter
from vault_plugin.vault.rejection import Rejection
from vault_plugin.vault.retries import PermanentError
from vault_plugin.vault.schema import Lease
from vault_plugin.vault.transport import Transport
from vault_plugin.wording import named

NEW_POLICIES = 1.0  # seconds during which a new login has the newest policies of its role
LOGIN_EVERY = 300.0  # seconds between two logins that follow a denial, or a rejection of the same credentials
_log = logging.getLogger(__name__)


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
        self._lease: Lease | None = None  # that of the newest login; None for a token that was given
        self._made = self._next_login = 0.0  # monotonic seconds
        self._rejection: Rejection | None = None  # of the newest login
        self._superseded: list[str] = []  # tokens of ours that are still valid
        self.on_new_token: Callable[[], object] = lambda: None

    def token(self, deadline: Deadline) -> str:
        """The Vault token, after a login if there was none yet."""
        with self._alone(deadline):
            return self._log_in(self._first(deadline), deadline) if self._token is None else self._token

    def current(self, deadline: Deadline) -> tuple[str, Lease | None, float] | None:
        """The token, its lease if it is that of a login, and when it was made; None if there is no token yet."""
        with self._alone(deadline):
            if self._token is None and self._settings.auth == "token":
                self._log_in(self._settings, deadline)
            return (self._token, self._lease, self._made) if self._token else None

    def looked_up(self, token: str, deadline: Deadline) -> Lease | None:
        """The lease of a token; None if Vault denies the request, as the policy of the token decides."""
        with unlogged(), suppress(VaultError, schema.MalformedError):
            return schema.lease_of_lookup(
                self.adapter(token, Limits(deadline)).get("/v1/auth/token/lookup-self")
            )
        return None

    def extended(self, token: str, deadline: Deadline) -> Lease | None:
        """Renew a token; its lease after that. None if Vault denies it, which is no error while the token is valid."""
        try:
            with unlogged():
                return schema.lease_of_renewal(
                    self.adapter(token, Limits(deadline)).post("/v1/auth/token/renew-self")
                )
        except (VaultError, schema.MalformedError) as exc:
            _log.info(
                "the Vault token cannot be renewed (%s); it is used until it expires", type(exc).__name__
            )
        return None

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
            if self._token == denied and self.is_own:
                if now < max(self._made + NEW_POLICIES, self._next_login):
                    return None
                self._next_login = now + LOGIN_EVERY
                try:
                    self._log_in(self._reread_in_time(deadline.half()), deadline)
                    self._superseded.append(denied)
                except (StoreError, SettingsError) as exc:
                    _log.info("the login to Vault after a denied request failed: %s", exc)
            return self._token if self._token != denied else None

    def revoke(self, deadline: Deadline) -> None:
        """Revoke the tokens of our logins, since Vault keeps them until their TTL ends. Raises nothing."""
        if not self.is_own or self._token is None:
            return
        for token in (self._token, *self._superseded):
            try:
                with unlogged():
                    self.adapter(token, Limits(deadline)).post("/v1/auth/token/revoke-self")
            except (VaultError, StoreError) as exc:
                _log.info("the token of the Vault login was not revoked (%s); it expires", type(exc).__name__)

    @property
    def is_own(self) -> bool:
        """Whether the token is that of a login of ours."""
        return self._settings.auth in METHODS

    def adapter(self, token: str, limits: Limits) -> JSONAdapter:
        """hvac's adapter for a request about this token, in the namespace of the login."""
        return adapter(Session(self._transport, limits), token, self.namespace)

    @property
    def namespace(self) -> str | None:
        """The namespace of the login."""
        own, of_kv = self._settings.auth_namespace, self._settings.vault_namespace
        return of_kv if own is None else own

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

    def _first(self, deadline: Deadline) -> Settings:
        """The settings for the first login; after a rejection, those of the moment, which may have been corrected."""
        if self._rejection is None:
            return self._settings
        try:
            return self._reread_once(deadline)
        except (SettingsError, TimeoutError):
            raise self._rejection.error() from None

    def _reread_once(self, deadline: Deadline) -> Settings:
        """The settings with the credentials of the moment. Raises SettingsError, and TimeoutError at the deadline."""
        return blocking.call("credentials", partial(self._reread, deadline.half()), deadline.left())

    def _reread_in_time(self, deadline: Deadline) -> Settings:
        """The settings with credentials that can be read: a file may be empty or missing while it is replaced.

        Raises StoreRefusedError, which says what cannot be read, at the deadline.
        """
        unread = reason = "not before the deadline"
        for delay in full_jitter(0.1, 1.0):
            try:
                return self._reread_once(deadline)
            except (SettingsError, TimeoutError) as exc:
                # A try that the deadline cut short, which is about no setting, does not replace a known reason.
                if isinstance(exc, SettingsError) and (exc.settings or reason is unread):
                    reason = f"{exc}".rstrip(".")
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
        """Log in, and keep the token. What Vault has just rejected is not sent again."""
        lease = None
        if self._rejection and self._rejection.concerns(settings):
            raise self._rejection.error()
        if settings.auth in METHODS:
            try:
                token, lease = self._sent_login(self._with_credential(settings, deadline), deadline)
            except StoreRefusedError as exc:
                exc.for_all = True
                self._rejection = Rejection(settings, exc, LOGIN_EVERY)
                raise
        else:  # With `none`, another program adds a token.
            token = revealed(settings.vault_token) if settings.auth == "token" else ""
        self._token, self._lease, self._made, self._rejection = token, lease, time.monotonic(), None
        self.on_new_token()
        return token

    def _with_credential(self, settings: Settings, deadline: Deadline) -> Settings:
        """The settings with a credential that has to be requested first."""
        if settings.auth == "jwt" and settings.vault_jwt is None:
            return settings.replace(vault_jwt=id_token.requested(settings, deadline))
        wrapped = settings.wrapped_secret_id
        if settings.auth == "approle" and settings.secret_id is None and wrapped is not None:
            with unlogged():
                vault = self.adapter(wrapped.reveal(), Limits(deadline, repeatable=False))
                return settings.replace(secret_id=wrapping.unwrapped_secret_id(vault, wrapped, deadline))
        return settings

    def _sent_login(self, settings: Settings, deadline: Deadline) -> tuple[str, Lease]:
        """The token of a login request, and its lease."""
        errors: list[str] = []

        def is_permanent(response: Response) -> bool:
            errors[:] = schema.errors(response.body)
            return login_errors.is_about_the_request(errors)

        method = METHODS[settings.auth]
        mount = settings.auth_mount or settings.auth
        where = f"{settings.auth} login at {mount}"
        limits = Limits(deadline, repeatable=method.repeatable, is_permanent=is_permanent)
        try:
            with unlogged():
                return schema.login(method.send(self.adapter("", limits), settings, mount))
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
