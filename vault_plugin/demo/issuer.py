"""What the simulated endpoint issues: signed tokens, as configured, and with faults on request."""

import base64
import hmac
import json
import re
import secrets
import threading
import time
from collections.abc import Callable

from vault_plugin.demo.faults import FAULTS, NONE, Claims, Fault, Pair
from vault_plugin.errors import TokenError
from vault_plugin.tokens.jwt import Kind, Token


class Issuer:
    """Signs tokens, and counts requests and mints.

    `access_ttl` and `refresh_ttl` are the tokens' lifetimes, `latency` delays each response: all in seconds. `fault` is
    a name of FAULTS or ""; it affects the next `fault_count` requests, or all. All may change at any time.
    """

    def __init__(
        self,
        *,
        access_ttl: float = 900,
        refresh_ttl: float = 86400 * 2,
        latency: float = 0.0,
        fault: str = "",
        fault_count: int | None = None,
    ) -> None:
        self.access_ttl, self.refresh_ttl, self.latency = access_ttl, refresh_ttl, latency
        self.fault, self.fault_count = fault, fault_count
        self.ahead = 0.0  # seconds by which its clock is ahead of this host's
        self.requests = 0  # POSTs, whatever the response
        self.mints = 0  # responses of status 200 with tokens, valid or not
        self.issued: list[str] = []  # every token sent, whatever the status
        self.lock = threading.Lock()  # guards all of these
        self._key = secrets.token_bytes(32)

    @property
    def fault(self) -> str:
        return self._fault

    @fault.setter
    def fault(self, name: str) -> None:
        if name and name not in FAULTS:
            raise ValueError(f"There is no fault {name!r}, only {', '.join(sorted(FAULTS))}.")
        self._fault = name

    def next_fault(self) -> Fault:
        """Return the fault for the next request; after `fault_count` requests there is none."""
        with self.lock:
            fault = FAULTS.get(self.fault, NONE) if self.fault_count != 0 else NONE
            if self.fault_count is not None:
                self.fault_count -= 1
                if self.fault_count <= 0:
                    self.fault, self.fault_count = "", None
            return fault

    def mint(self, user_id: str, spoil: Callable[[Claims], object] = NONE.spoil) -> Pair:
        """Sign two new tokens; return the body of a valid response."""
        refresh, access = self._sign("refresh", user_id, spoil), self._sign("access", user_id, spoil)
        return {"refresh_token": refresh, "access_token": access, "release_version": "7.8.9"}

    def bearer(self, authorization: str) -> str | None:
        """Return the user of the access token in this header; None if it was not issued here or has expired."""
        scheme, _, raw = authorization.partition(" ")
        with self.lock:
            was_issued = scheme.lower() == "bearer" and raw in self.issued
        try:
            token = Token.from_jwt(raw, Kind.ACCESS)
        except TokenError:
            return None
        return token.user_id if was_issued and token.ttl(time.time() + self.ahead) else None

    def _sign(self, token_type: str, user_id: str, spoil: Callable[[Claims], object]) -> str:
        now = time.time() + self.ahead
        ttl = self.access_ttl if token_type == "access" else self.refresh_ttl  # noqa: S105  no password
        claims: Claims = {"token_type": token_type, "exp": int(now + ttl), "iat": int(now)}
        claims["jti"] = secrets.token_hex(16)
        claims["user_id"] = int(user_id) if re.fullmatch("[0-9]{1,18}", user_id) else user_id
        spoil(claims)
        signed = f"{_segment({'typ': 'JWT', 'alg': 'HS256'})}.{_segment(claims)}"
        return f"{signed}.{_segment(hmac.digest(self._key, signed.encode(), 'sha256'))}"


def _segment(part: Claims | bytes) -> str:
    content = part if isinstance(part, bytes) else json.dumps(part, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
