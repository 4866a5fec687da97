"""hvac over our transport: hvac's adapter for one call, whose limits the transport keeps."""

import json
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast
from urllib.parse import urlencode

from hvac.adapters import JSONAdapter

from vault_plugin.timing.deadline import Deadline
from vault_plugin.vault import schema
from vault_plugin.vault.connections import Response
from vault_plugin.vault.transport import Transport, always, never

BASE = "http://vault"  # hvac requires a base URL; the transport knows the addresses of the nodes.


class Limits(NamedTuple):
    """How a call may be sent and sent again; see Transport.request."""

    deadline: Deadline
    repeatable: bool = True
    in_time: Callable[[], bool] = always
    is_permanent: Callable[[Response], bool] = never


class Session:
    """What hvac takes for a requests.Session: sends one call of hvac's API through our transport.

    `sent` is when its newest request with a response was sent (monotonic seconds); `took` is how long Vault took for it
    (seconds), with the gap that the rate limit quota leaves between two requests.
    """

    cert = verify = proxies = None
    sent = took = 0.0

    def __init__(self, transport: Transport, limits: Limits) -> None:
        self._transport = transport
        self._limits = limits

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        json: object = None,
        params: Mapping[str, str] | None = None,
        **_of_requests: object,  # The transport has its own timeout, TLS, proxies and redirects.
    ) -> "_Response":
        response = self._transport.request(
            method.upper(),
            url.removeprefix(BASE) + (f"?{urlencode(params)}" if params else ""),
            {**headers, "Content-Type": "application/json"},
            None if json is None else _encoded(json),
            **self._limits._asdict(),
        )
        self.sent = response.sent
        self.took = time.monotonic() - response.sent + self._transport.quota.gap
        return _Response(response)


def adapter(session: Session, token: str, namespace: str | None) -> JSONAdapter:
    """hvac's adapter for one call. Without a token it sends none, also not one that hvac would find by itself."""
    return JSONAdapter(BASE, token, session=cast(Any, session), namespace=namespace)


class _Response:
    """The members of requests.Response that hvac uses."""

    def __init__(self, response: Response) -> None:
        self.status_code = response.status
        self.ok = response.status < 400
        self.headers = response.headers
        self.text = response.body.decode(errors="replace")
        self._body = response.body

    def json(self) -> Any:
        return schema.parsed(self._body) if self.ok else schema.error_body(self._body)


def _encoded(body: object) -> bytes:
    return json.dumps(body).encode()
