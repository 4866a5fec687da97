"""hvac on our own transport: logins and KV requests, with Vault's refusals told apart."""

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, TypeVar, cast
from urllib.parse import urlencode

import hvac
from hvac.exceptions import Forbidden, InvalidPath, InvalidRequest, VaultError

from vault_plugin.errors import (
    MountMissingError,
    SettingsError,
    StoreError,
    StoreRefusedError,
    StoreSettingsError,
)
from vault_plugin.network.library_logs import unlogged
from vault_plugin.settings import Settings
from vault_plugin.timing import blocking
from vault_plugin.timing.backoff import full_jitter
from vault_plugin.timing.deadline import Deadline
from vault_plugin.tokens.secret import Secret
from vault_plugin.vault import refusals
from vault_plugin.vault import schema as answers
from vault_plugin.vault.transport import LastWordError, Response, Transport, TransportError, always
from vault_plugin.wording import named

T = TypeVar("T")
YOUNG = 1.0  # seconds during which a login has its role's newest policies
LOGIN_AGAIN = 300.0  # seconds between two logins after refusals
_OF_THE_NODE = (
    "active",
    "leader",
    "sealed",
    "standby",
    "raft",
    "internal error",
    "context",
    "timeout",
    "connect",
)
_OWN_ADDRESS = f"Check that {named('vault_addr')} is Vault's own address."
_BASE = "http://vault"  # hvac wants some base URL; the transport knows the real ones
_log = logging.getLogger(__name__)


class CasMismatchError(Exception):
    """Another version than the one expected is the newest."""


class _UnknownTokenError(StoreRefusedError):
    """Vault does not know our token, or not any more."""

    for_all = True


class _Response:
    """What hvac wants to see of an answer: the few members of requests.Response that it uses."""

    def __init__(self, answer: Response) -> None:
        self.status_code = answer.status
        self.ok = answer.status < 400
        self.headers = answer.headers
        self.text = answer.body.decode(errors="replace")
        self._body = answer.body

    def json(self) -> Any:
        return answers.parsed(self._body) if self.ok else answers.refusal(self._body)


class _Session:
    """What hvac takes for a requests.Session: the same call, carried out by our transport."""

    cert = verify = proxies = None

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._local = threading.local()

    @contextmanager
    def within(
        self,
        deadline: Deadline,
        *,
        repeatable: bool = True,
        in_time: Callable[[], bool] = always,
        is_settled: Callable[[Response], bool] = lambda _: False,
    ) -> Iterator[None]:
        """The limits of what this thread sends inside."""
        self._local.limits = deadline, repeatable, in_time, is_settled
        with unlogged():  # as hvac sees what Vault answered
            yield

    @property
    def sent(self) -> float:
        """When this thread's newest answered request left (monotonic seconds)."""
        return float(self._local.sent)

    @property
    def took(self) -> float:
        """How long that request took, without the waits before it that only a rate limit quota made (seconds)."""
        return float(self._local.took)

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        json: object = None,
        params: Mapping[str, str] | None = None,
        **_transports_own: object,  # timeout, TLS, proxies, redirects
    ) -> _Response:
        deadline, repeatable, in_time, is_settled = self._local.limits
        path = url.removeprefix(_BASE) + (f"?{urlencode(params)}" if params else "")
        body = None if json is None else _encoded(json)
        answer = self._transport.request(
            method.upper(),
            path,
            {**headers, "Content-Type": "application/json"},
            body,
            deadline,
            repeatable=repeatable,
            in_time=in_time,
            is_settled=is_settled,
        )
        self._local.sent = answer.sent
        self._local.took = time.monotonic() - answer.sent + self._transport.gap
        return _Response(answer)

    def close(self) -> None:
        """Nothing to do: connections end with their thread."""


def _encoded(body: object) -> bytes:
    return json.dumps(body).encode()


class VaultClient:
    """Logged-in access to the KV mounts of one Vault. Safe among threads.

    Every method raises StoreRefusedError (403), MountMissingError, StoreBusyError or StoreError; none of them quotes what Vault answered.
    """

    def __init__(
        self, transport: Transport, settings: Settings, reread: Callable[[Deadline], Settings] | None = None
    ) -> None:
        self.transport = transport
        self._session = _Session(transport)
        self._settings = settings
        self._reread = reread or (
            lambda _: settings
        )  # when Vault ends our login: credentials are renewed, too
        self._lock = threading.Lock()
        self._logged_in = False
        self._made = self._next_login = 0.0  # when the login was made, and when a refusal may lead to another
        self._client = hvac.Client(
            url=_BASE,
            token="",  # or hvac would look for one itself
            session=cast(Any, self._session),
            namespace=settings.vault_namespace,
            verify=True,
        )
        self._kv: Any = self._client.secrets.kv

    @property
    def took(self) -> float:
        """How long Vault took for this thread's newest answered request (seconds)."""
        return self._session.took

    def kv_version(self, mount: str, deadline: Deadline) -> int:
        """1 or 2, as Vault says. Raises MountMissingError if no KV engine is mounted there."""
        kind, path, version = self._do(
            "look at the mount",
            deadline,
            lambda: answers.mount(self._client.read(f"sys/internal/ui/mounts/{mount}")),
        )
        if kind not in ("kv", "generic") or path != mount:
            raise _missing(mount)
        return version

    def read(self, version: int, mount: str, path: str, deadline: Deadline) -> dict[str, Any] | None:
        """The `data` of the answer, on KV v2 also that of a version that is gone; None if there is nothing."""

        def ask() -> dict[str, Any] | None:
            try:
                if version == 1:
                    return answers.secret_v1(self._kv.v1.read_secret(path, mount_point=mount))
                found = self._kv.v2.read_secret_version(
                    path, mount_point=mount, raise_on_deleted_version=True
                )
            except InvalidPath as exc:
                if _is_unrouted(exc):
                    raise
                found = exc.json or {}  # of a version that is gone, KV v2 still tells the metadata
            return answers.secret_v1(found) if version == 1 else answers.secret_v2(found)

        try:
            return self._do(
                "read",
                deadline,
                ask,
                is_settled=lambda _: self._others_answer(version, mount, path, deadline),
            )
        except LastWordError:
            return self._unreadable(version, mount, path, deadline)

    def _others_answer(self, version: int, mount: str, path: str, deadline: Deadline) -> bool:
        """Whether the mount answers for another path, at which nothing lies."""
        where = f"{mount}/data/{path}" if version == 2 else f"{mount}/{path}"
        headers = {"X-Vault-Token": self._client.token, "X-Vault-Request": "true"}
        if self._settings.vault_namespace:
            headers["X-Vault-Namespace"] = self._settings.vault_namespace
        try:
            answer = self.transport.once("GET", f"/v1/{where}.none", headers, None, deadline.left())
        except TransportError:
            return False
        return answer.status == 404 and b"no handler" not in answer.body

    def _unreadable(self, version: int, mount: str, path: str, deadline: Deadline) -> dict[str, Any]:
        """What KV v2 says of a path whose newest version it cannot read. Raises StoreError where it says nothing."""
        with suppress(StoreError, KeyError, TypeError, answers.MalformedError):
            if version == 2:
                ask = partial(self._kv.v2.read_secret_metadata, path, mount_point=mount)
                about = self._do("read metadata", deadline, ask)["data"]
                newest = about["current_version"]
                marks = {"version": newest, "custom_metadata": about["custom_metadata"]}
                metadata = answers.version_metadata(about["versions"][str(newest)] | marks)
                return {"data": None, "metadata": metadata}
        delete = "kv metadata delete" if version == 2 else "kv delete"
        error = StoreError(
            f"Vault cannot read {mount}/{path} (status 500), though it answers for other paths.",
            hint=f"Delete what is left there: vault {delete} -mount={mount} {path}",
        )
        error.for_all = False
        raise error from None

    def set_metadata(
        self, mount: str, path: str, life: int, custom: dict[str, str], deadline: Deadline
    ) -> None:
        """KV v2: how long each version written from now on is to live (whole seconds), and whose path it is."""
        about = {"max_versions": 1, "delete_version_after": f"{life}s", "custom_metadata": custom}
        self._do(
            "write metadata", deadline, lambda: self._kv.v2.update_metadata(path, mount_point=mount, **about)
        )

    def write(
        self,
        mount: str,
        path: str,
        data: dict[str, str],
        cas: int,
        deadline: Deadline,
        in_time: Callable[[], bool] = always,
    ) -> tuple[dict[str, Any], float]:
        """KV v2: a new version on top of version `cas`; its metadata, and when the request left (monotonic seconds).

        Raises CasMismatchError if another version is the newest, which after a lost answer may be this very one;
        OutdatedError if a repetition is due when `in_time` no longer holds.
        """

        def put() -> dict[str, Any] | None:
            answer = self._kv.v2.create_or_update_secret(path, data, cas=cas, mount_point=mount)
            return answers.version_metadata(answer.get("data")) if isinstance(answer, dict) else None

        metadata = self._do("write", deadline, put, in_time)
        if metadata is None:
            raise StoreSettingsError(
                "Vault took the write without telling a version: the mount is not KV v2 any more."
            )
        return metadata, self._session.sent

    def write_v1(self, mount: str, path: str, data: dict[str, str], deadline: Deadline) -> None:
        """KV v1: replace what is there."""
        write = self._kv.v1.create_or_update_secret
        self._do("write", deadline, lambda: write(path, data, method="POST", mount_point=mount))

    def close(self, deadline: Deadline) -> None:
        """Revoke the Vault token if it was made by our login: they would pile up in Vault."""
        if self._settings.auth == "token" or not self._logged_in:
            return
        try:
            with self._session.within(deadline):
                self._client.auth.token.revoke_self()
        except (VaultError, StoreError) as exc:
            _log.info("Vault's login token was not revoked (%s); it ends by its TTL", type(exc).__name__)

    def _do(
        self,
        doing: str,
        deadline: Deadline,
        call: Callable[[], T],
        in_time: Callable[[], bool] = always,
        *,
        is_settled: Callable[[Response], bool] = lambda _: False,
    ) -> T:
        """Log in if need be, and call; once more with a new login if the old one has ended or may have too old a policy."""
        with self._alone(deadline):
            if not self._logged_in:
                self._log_in(self._settings, deadline)
        token = self._client.token
        limits = partial(self._session.within, deadline, in_time=in_time, is_settled=is_settled)
        try:
            with limits(), self._translated(doing):
                return call()
        except _UnknownTokenError:
            if not self._is_renewed(token, deadline):
                raise
        except StoreRefusedError as refusal:
            if not self._has_new_login(token, deadline):
                raise refusal from None
        with limits(), self._translated(doing):
            return call()

    def _has_new_login(self, token: str, deadline: Deadline) -> bool:
        """Whether there is another login of ours than the one that was refused: a role's new policy is for new ones."""
        with self._alone(deadline):
            if self._client.token != token:
                return True
            now = time.monotonic()
            if self._settings.auth == "token" or now < max(self._made + YOUNG, self._next_login):
                return False
            self._next_login = now + LOGIN_AGAIN
            try:
                self._log_in(self._reread_in_time(deadline.half()), deadline)
            except (StoreError, SettingsError) as exc:
                _log.info("no new login to Vault after a refusal: %s", exc)
            return bool(self._client.token != token)

    @contextmanager
    def _alone(self, deadline: Deadline) -> Iterator[None]:
        """One login at a time; whoever waits for another's does so no longer than the own deadline."""
        if not self._lock.acquire(timeout=deadline.left()):
            raise StoreError(
                "Vault's login was not finished before the deadline passed.",
                hint="Vault's own log says more.",
            )
        try:
            yield
        finally:
            self._lock.release()

    def _is_renewed(self, ended: str, deadline: Deadline) -> bool:
        """Whether there is another token than the one that has ended, making one if need be."""
        with self._alone(deadline):
            if self._client.token == ended:
                self._log_in(self._reread_in_time(deadline), deadline)
            return bool(self._client.token != ended)

    def _reread_in_time(self, deadline: Deadline) -> Settings:
        """The settings with credentials that can be read: a file may be empty or gone while it is replaced.

        Raises StoreRefusedError, which says what cannot be read, at the deadline.
        """
        for pause in full_jitter(0.1, 1.0):
            try:
                return blocking.call("credentials", partial(self._reread, deadline.half()), deadline.left())
            except (SettingsError, TimeoutError) as exc:
                reason = f"{exc}".rstrip(".") if isinstance(exc, SettingsError) else "not before the deadline"
                _log.info("the credentials for Vault cannot be read anew: %s", reason)
                if pause >= deadline.left():
                    error = StoreRefusedError(
                        f"Vault's login has ended, and its credentials cannot be read anew: {reason}.",
                        hint="Check the file that holds them.",
                    )
                    error.for_all = True
                    raise error from None
                time.sleep(pause)
        raise AssertionError  # pragma: no cover  the pauses never end

    def _log_in(self, settings: Settings, deadline: Deadline) -> None:
        errors: list[str] = []

        def is_settled(answer: Response) -> bool:
            errors[:] = _errors(answer)
            return _is_about_the_request(errors)

        where = f"{settings.auth} login at {settings.auth_mount or settings.auth}"
        try:
            # AppRole's is not repeatable: a secret id may be good for a single use.
            once = settings.auth == "approle"
            with self._session.within(deadline, repeatable=not once, is_settled=is_settled):
                self._login(settings)
            if settings.auth != "token":  # whose token was checked where it was read
                answers.login_token(self._client.token)
        except LastWordError:
            refusal = refusals.of_login(errors)
            raise StoreError(
                f"Vault fails at the {where} (status 500), though it is up: {refusal.reason}.",
                hint=refusal.hint,
            ) from None
        except VaultError as exc:
            refusal = refusals.of_login([str(error) for error in exc.errors or ()])
            raise StoreRefusedError(
                f"Vault refused the {where}: {refusal.reason}.", hint=refusal.hint
            ) from None
        except (KeyError, TypeError, answers.MalformedError):  # the first two are what hvac makes of it
            self._client.token = ""
            raise StoreSettingsError(
                "Vault's answer to the login holds no token.", hint=_OWN_ADDRESS
            ) from None
        self._logged_in = True
        self._made = time.monotonic()

    def _login(self, settings: Settings) -> None:
        logins = self._client.auth
        mount, jwt = settings.auth_mount or settings.auth, _revealed(settings.vault_jwt)
        if settings.auth == "token":
            self._client.token = _revealed(settings.vault_token)
        elif settings.auth == "approle":
            role_id, secret_id = _revealed(settings.role_id), _revealed(settings.secret_id)
            logins.approle.login(role_id, secret_id, mount_point=mount)
        elif settings.auth == "jwt":
            logins.jwt.jwt_login(settings.auth_role, jwt, path=mount)
        else:
            logins.kubernetes.login(settings.auth_role, jwt, mount_point=mount)

    @contextmanager
    def _translated(self, doing: str) -> Iterator[None]:
        """hvac's exceptions as ours. They hold Vault's answer, so that none may be a cause."""
        try:
            yield
        except InvalidRequest as exc:
            if any("check-and-set" in str(error) for error in exc.errors or ()):
                raise CasMismatchError from None
            raise StoreRefusedError(f"Vault would not {doing}: it calls the request invalid (400).") from None
        except Forbidden as exc:
            raise self._denied(doing, exc) from None
        except answers.MalformedError:
            raise StoreSettingsError(
                f"The answer to the request to {doing} is not one that Vault gives.",
                hint=_OWN_ADDRESS,
            ) from None
        except InvalidPath as exc:
            if _is_unrouted(exc):
                raise _missing(self._settings.mount) from None
            raise StoreRefusedError(
                f"Vault has no path to {doing} (404).", hint=f"Check {named('mount')}."
            ) from None
        except VaultError as exc:  # what may pass does not get here
            raise StoreRefusedError(
                f"Vault would not {doing} ({type(exc).__name__}).", hint="Vault's log says more."
            ) from None

    def _denied(self, doing: str, exc: Forbidden) -> StoreRefusedError:
        """What a 403 means, as an error; at -v the capability that is missing is logged."""
        failure = f"Vault denied permission to {doing} (403)."
        told = " ".join(str(error) for error in exc.errors or ())
        # Vault says "1 error occurred: ..." if a policy denied it, and less if it does not know the token.
        if "error occurred" not in told and "preflight" not in told:
            hint = "Vault does not know the Vault token: it has been revoked, has expired, or is wrong."
            return _UnknownTokenError(failure, hint=hint)
        method, path = str(exc.method).upper(), str(exc.url).removeprefix(_BASE)
        lacking = refusals.capability(method, path)
        _log.info("Vault denied %s %s: the policy has to give %s there", method, path, lacking)
        if "preflight" in told:
            refusal = refusals.of_mount(self._settings.mount, self._settings.path_prefix)
            return StoreRefusedError(refusal.reason, hint=refusal.hint)
        hint = (
            "The policy of the Vault token lacks a capability, or the mount does not exist: "
            f"{named('verbose')} names the request and the capability, README shows the policy."
        )
        return StoreRefusedError(failure, hint=hint)


def _errors(answer: Response) -> list[str]:
    """What Vault lists as errors; nothing where it lists none."""
    try:
        errors = answers.refusal(answer.body)["errors"]
    except answers.MalformedError:
        return []
    return [str(error) for error in errors]


def _is_about_the_request(errors: list[str]) -> bool:
    """Whether a 500 tells of what a login was given, or of its backend's configuration, and not of a node without a leader."""
    told = " ".join(errors).lower()
    return bool(told) and not any(word in told for word in _OF_THE_NODE)


def _is_unrouted(exc: VaultError) -> bool:
    """Whether a 404 says that nothing is mounted there; a path without a secret has an empty list of errors."""
    return any("no handler for route" in str(error) for error in exc.errors or ())


def _missing(mount: str) -> MountMissingError:
    return MountMissingError(
        f"No KV secrets engine is mounted at {mount}, which {named('mount')} names.",
        hint="`vault secrets list` shows what is mounted.",
    )


def _revealed(secret: Secret | None) -> str:
    return "" if secret is None else secret.reveal()
