"""The access token for a program that uses it until the second that we name, and the time to name."""

import time
from math import ceil, floor

from vault_plugin.app import connect
from vault_plugin.settings import Settings
from vault_plugin.tokens.jwt import Token

SAFETY = 30.0  # seconds; never more than half of the token's lifetime


def get_bearer(settings: Settings) -> tuple[str, int]:
    """Return the access token and its expiry for the caller (Unix seconds). Raises what Broker.get raises."""
    with connect(settings) as broker:
        grant = broker.get(settings.identity())
    held = grant.access
    return held.token.value.reveal(), expiry_for_caller(held.token, grant.now + held.early, time.time())


def expiry_for_caller(token: Token, now: float, here: float) -> int:
    """Return the time at which the caller asks again: SAFETY before the token expires, by the caller's clock.

    `now` is the time by the servers' clocks, `here` by this host's. All are Unix seconds.
    """
    left = token.expires_at - token.margin(SAFETY) - max(now, here)
    return max(ceil(here) + 1, floor(here + left))
