"""The ID token of a job of GitHub Actions, a JWT to log in with, requested from GitHub."""

import logging
import time
from collections.abc import Callable
from urllib.parse import quote, urlsplit

from vault_plugin.errors import StoreError, StoreRefusedError, StoreSettingsError
from vault_plugin.network.library_logs import unlogged
from vault_plugin.network.sockets import within
from vault_plugin.network.tls import Tls
from vault_plugin.settings import Settings
from vault_plugin.timing.backoff import full_jitter
from vault_plugin.timing.deadline import Deadline
from vault_plugin.tokens.secret import Secret
from vault_plugin.vault import schema
from vault_plugin.vault.connections import FAILURES, Connections, Response
from vault_plugin.wording import named

_log = logging.getLogger(__name__)


def requested(
    settings: Settings, deadline: Deadline, sleep: Callable[[float], object] = time.sleep
) -> Secret:
    """A new ID token, for the audience of the settings, else for GitHub's default one.

    A failed request is repeated until the deadline. Raises StoreRefusedError if GitHub rejects it, StoreError if there is
    no ID token until then.
    """
    url, token = settings.actions_url or "", settings.actions_token
    parts = urlsplit(url)
    origin = f"{parts.scheme}://{parts.netloc}"
    audience = "" if settings.auth_audience is None else f"&audience={quote(settings.auth_audience, safe='')}"
    headers = {
        "Accept": "application/json",
        "Authorization": f"Bearer {token.reveal() if token else ''}",
        "User-Agent": "klearstack-vault",
    }
    connections, delays = Connections((origin,), Tls(None), settings.proxy), full_jitter(0.5, 5.0)
    try:
        while True:
            with unlogged(), within(Deadline(min(settings.timeout, deadline.left()))):
                try:
                    path = f"{parts.path}?{parts.query}{audience}"
                    response = connections.exchange(origin, "GET", path, headers, None)
                    if response.status == 200 and (found := schema.id_token(response.body)):
                        return Secret(found)
                    reason, is_final = _reason(response)
                    kind = StoreRefusedError if is_final else StoreError
                except FAILURES as exc:
                    failure = connections.explain(origin, exc)
                    reason, is_final = str(failure), failure.final
                    kind = StoreSettingsError if failure.misconfigured else StoreError
            delay = next(delays)
            if is_final or delay >= deadline.left():
                raise _error(kind, parts.netloc, reason)
            _log.info("GitHub Actions at %s: %s; trying again in %.2f s", parts.netloc, reason, delay)
            sleep(delay)
    finally:
        connections.close()


def _reason(response: Response) -> tuple[str, bool]:
    """Why a response contains no ID token, and whether a further request is useless."""
    if response.status == 200:
        return "the response contains no ID token", False
    return f"status {response.status}", 300 <= response.status < 500 and response.status != 429


def _error(kind: type[StoreError], host: str, reason: str) -> StoreError:
    hints = {
        StoreRefusedError: "Check that the job has `permissions: id-token: write`, and whether it has run for too long: its "
        f"request token expires. Check {named('auth_audience')}.",
        StoreSettingsError: "Check that this host trusts the CA of that server.",
    }
    message = f"The ID token of the job could not be requested from GitHub Actions at {host}: {reason}."
    return kind(message, hint=hints.get(kind, "Try again later."))
