"""KlearStack's endpoint: an identity in, two fresh tokens out.

POST {url}/access/klearstack/getaccesstokenfromuserid, a urlencoded form, no Authorization. Asking again is safe: it
only mints another pair. What the endpoint answers is checked here and never shown.
"""

import json
import logging
import re
import signal
import threading
import time
from collections.abc import Callable
from contextlib import closing
from queue import Empty, SimpleQueue
from typing import Any

import requests
import urllib3.exceptions
from requests.adapters import HTTPAdapter

from vault_plugin.clock import ServerClock
from vault_plugin.errors import (
    ParameterMissingError,
    SourceBusyError,
    SourceError,
    SourceProtocolError,
    SourceRefusedError,
    TokenError,
    UserMismatchError,
)
from vault_plugin.identity import Identity
from vault_plugin.retry import Deadline, full_jitter, retry_after
from vault_plugin.tokens import Kind, Token, TokenPair
from vault_plugin.values import ENDPOINT_PATH, issuer

MAX_BODY = 64 * 1024  # bytes; a pair of tokens has about 500
TRIES = 4
_log = logging.getLogger(__name__)

_CHECKS = {
    401: "The endpoint wants no login; check --url.",
    403: "Check that this host may call it (IP allow-list).",
    404: "Check --url: it is what stands before /access/klearstack/ in your API's address.",
}
# Its page shows no body of the 500, only: "One or Many Required parameters from company name must be missing".
_PARAMETERS = {name: re.compile(name.replace("_", "[ _]?")) for name in ("company_name", "user_id")}


class _Line:
    """Connections, and the thread in which they are used: both are kept, since each costs as much as a request does.

    There is no requests.Session: it would carry cookies from one identity's request to the next, take a login from
    ~/.netrc and a CA from REQUESTS_CA_BUNDLE. A bare adapter knows none of these, nor does it follow a redirect, whose
    body, of any length, a session reads even if told not to follow it.
    """

    def __init__(self) -> None:
        self._tasks: SimpleQueue[Callable[[HTTPAdapter], TokenPair] | None] = SimpleQueue()
        self._outcomes: SimpleQueue[TokenPair | Exception] = SimpleQueue()
        threading.Thread(target=self._work, name="klearstack-endpoint", daemon=True).start()

    def call(self, task: Callable[[HTTPAdapter], TokenPair], seconds: float) -> TokenPair | Exception:
        """What comes of it. Raises Empty if that takes longer; then nothing but `close` may follow."""
        self._tasks.put(task)
        return self._outcomes.get(timeout=seconds)

    def close(self) -> None:
        """Close the connections when their task is done."""
        self._tasks.put(None)

    def _work(self) -> None:
        # Signals are the main thread's, also when this one is left behind: `exec` waits for them there.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        with closing(HTTPAdapter()) as adapter:
            while (task := self._tasks.get()) is not None:
                try:
                    self._outcomes.put(task(adapter))
                except Exception as exc:  # noqa: BLE001  it is raised where it belongs
                    self._outcomes.put(exc)


class EndpointSource:
    """The token source. Safe among threads."""

    def __init__(
        self,
        url: str,
        clock: ServerClock,
        *,
        timeout: float,
        ca_file: str | None = None,
        sleep: Callable[[float], None] = time.sleep,
        latest: Callable[[], float] | None = None,
        accept_other_users: bool = False,
    ) -> None:
        """`latest` (Unix seconds) is by the clock that is furthest on, Vault's or the endpoint's."""
        self._url = url + ENDPOINT_PATH
        self._issuer = issuer(url)
        self._clock = clock
        self._latest = latest or clock.now
        self._accept_other_users = accept_other_users
        self._timeout = timeout
        self._verify: str | bool = ca_file or True
        self._sleep = sleep
        self._idle: list[_Line] = []  # as many as there were callers at a time

    def obtain(self, identity: Identity, deadline: Deadline) -> TokenPair:
        """Mint a pair of tokens.

        Raises SourceRefusedError, ParameterMissingError, SourceProtocolError and TokenError at once; what may pass
        is tried up to four times inside the deadline, then raised as SourceError or SourceBusyError.
        """
        pauses = full_jitter(0.5, 8.0)
        for left in reversed(range(TRIES)):
            try:
                return self._ask_in_time(identity, deadline)
            except SourceError as exc:
                pause = max(next(pauses), getattr(exc, "retry_after", 0.0))
                if not (exc.retryable and left and pause < deadline.left()):
                    raise
                _log.info("%s Trying again in %.2f s", exc, pause)
                self._sleep(pause)
        raise AssertionError  # pragma: no cover  the last try returns or raises

    def _ask_in_time(self, identity: Identity, deadline: Deadline) -> TokenPair:
        """One request, given up at the deadline even if the endpoint goes on sending a byte now and then.

        requests bounds each wait but not their sum; a line that is left behind ends with its request.
        """
        try:
            line = self._idle.pop()
        except IndexError:
            line = _Line()
        try:
            outcome = line.call(lambda adapter: self._ask(adapter, identity, deadline), deadline.left())
        except Empty:
            line.close()
            raise self._unavailable("did not finish its answer in time") from None
        self._idle.append(line)
        if isinstance(outcome, Exception):
            raise outcome from None
        return outcome

    def close(self) -> None:
        """Close all connections that nobody uses at the moment."""
        while self._idle:
            self._idle.pop().close()

    def _ask(self, adapter: HTTPAdapter, identity: Identity, deadline: Deadline) -> TokenPair:
        sent = time.monotonic()
        try:
            with self._post(adapter, identity, deadline) as response:
                body = self._body(response, deadline)
        except requests.exceptions.SSLError:
            raise SourceError(
                f"The TLS certificate of {self._url} does not verify.",
                hint="Name its CA's PEM file with --ca-cert; verification cannot be turned off.",
            ) from None
        except (requests.exceptions.Timeout, urllib3.exceptions.TimeoutError):
            raise self._unavailable("did not answer in time") from None
        except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError):
            raise self._unavailable("cannot be reached, or broke the connection") from None
        self._clock.observe_date(response.headers.get("Date"), sent)
        if response.status_code != 200:
            raise self._refusal(response, body)
        return self._pair(body, identity)

    def _post(self, adapter: HTTPAdapter, identity: Identity, deadline: Deadline) -> requests.Response:
        request = requests.Request(
            "POST",
            self._url,
            data={"user_id": identity.user_id, "company_name": identity.company_name},
            headers={
                "Accept": "application/json",
                "Accept-Encoding": "identity",
                "User-Agent": "klearstack-vault",
            },
        )
        wait = max(0.001, min(self._timeout, deadline.left()))
        return adapter.send(request.prepare(), stream=True, timeout=(wait, wait), verify=self._verify)

    @staticmethod
    def _body(response: requests.Response, deadline: Deadline) -> bytes:
        body = b""
        while len(body) <= MAX_BODY and deadline.left():
            chunk = response.raw.read1(MAX_BODY, decode_content=False)
            if not chunk:
                break
            body += chunk
        expected = response.headers.get("Content-Length", "")
        if len(body) <= MAX_BODY and expected.isdigit() and len(body) < int(expected):
            raise requests.exceptions.ConnectionError
        return body

    def _pair(self, body: bytes, identity: Identity) -> TokenPair:
        if len(body) > MAX_BODY:
            raise SourceProtocolError(f"The answer of {self._url} is too long to be two tokens.")
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            raise SourceProtocolError(
                f"The answer of {self._url} is not JSON.",
                hint="Check --url: is it the API's, not a web page's?",
            ) from None
        if not isinstance(answer, dict):
            raise SourceProtocolError(f"The answer of {self._url} is no JSON object.")
        access, refresh = (self._token(answer, kind) for kind in Kind)
        if access.expires_at > refresh.expires_at:
            _log.warning("the endpoint's access token outlives its refresh token")
        self._must_name(identity, access, refresh)
        version = answer.get("release_version")
        return TokenPair(access, refresh, str(version) if isinstance(version, str | int | float) else "")

    def _must_name(self, identity: Identity, *tokens: Token) -> None:
        """Raise UserMismatchError if the tokens are another user's, or warn of it if that is accepted."""
        if all(token.names(identity.user_id) for token in tokens):
            return
        if not self._accept_other_users:
            raise UserMismatchError(
                f"{self._url} answered with a token that names another user than the one asked for.",
                hint="Check --user-id and --url; if the endpoint names its users otherwise, accept that with "
                "--on-user-mismatch warn (KLEARSTACK_ON_USER_MISMATCH).",
            )
        _log.warning("the endpoint's token names another user than the one asked for")

    def _token(self, answer: dict[str, Any], kind: Kind) -> Token:
        raw = answer.get(f"{kind}_token")
        if not isinstance(raw, str) or not raw:
            raise SourceProtocolError(f"The answer of {self._url} has no `{kind}_token`.")
        token = Token.from_jwt(raw, kind)
        now = self._clock.now()
        if not token.ttl(now):
            raise TokenError(
                f"The {kind} token of {self._url} has already expired.",
                hint="Compare the endpoint's clock with its tokens.",
            )
        token = token._replace(issued_by=self._issuer)
        if token.issued_at is None:
            return token._replace(issued_at=int(now))
        # A misdated token would count as newer than all that are minted after it.
        if token.issued_at > token.expires_at or token.is_ahead(self._latest()):
            raise TokenError(
                f"The {kind} token of {self._url} says that it was issued in the future or after it expires (`iat`).",
                hint="Compare the endpoint's clock with its tokens, and with Vault's clock.",
            )
        return token

    def _refusal(self, response: requests.Response, body: bytes) -> SourceError:
        """What a status other than 200 means; the body is looked at, but not shown."""
        status = response.status_code
        text = body.decode(errors="replace").lower()
        named = [name for name, pattern in _PARAMETERS.items() if pattern.search(text)]
        if status == 500 and (named or ("missing" in text and "param" in text)):
            return ParameterMissingError(
                f"{self._url} misses a required parameter: {' or '.join(named) or 'it does not say which'}.",
                hint="Check --user-id and --company-name: the endpoint may not know them.",
            )
        if status == 429:
            busy = SourceBusyError(
                f"{self._url} asks to slow down (429).", hint="Try again later.", retryable=True
            )
            busy.retry_after = retry_after(response.headers.get("Retry-After"))
            return busy
        if status >= 500:
            return self._unavailable(f"answers with status {status}")
        if 300 <= status < 400:
            return SourceRefusedError(
                f"{self._url} redirects ({status}), which is not followed.",
                hint="Check --url: https, the right host?",
            )
        return SourceRefusedError(
            f"{self._url} refuses (status {status}).",
            hint=_CHECKS.get(status, "Check --user-id, --company-name and --url."),
        )

    def _unavailable(self, what: str) -> SourceError:
        return SourceError(f"{self._url} {what}.", hint="Check --url, or try again later.", retryable=True)
