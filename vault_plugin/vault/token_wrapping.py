"""Response wrapping: what Vault returns once, to whoever has the wrapping token, and never after the JWT has expired."""

import logging
import time
from collections.abc import Callable, Mapping
from math import floor
from typing import Any

from vault_plugin.errors import TokenError
from vault_plugin.timing.deadline import Deadline
from vault_plugin.tokens.stored import WrappingToken
from vault_plugin.vault.client import VaultClient
from vault_plugin.vault.transport import OutdatedError

SLACK = 0.25  # seconds that Vault may take to make a wrapping token, until it has shown that it takes longer
_log = logging.getLogger(__name__)


def wrap(
    client: VaultClient,
    fields: Mapping[str, Any],
    ttl: float,
    left: Callable[[], float],
    deadline: Deadline,
) -> WrappingToken:
    """Wrap the fields for `ttl` seconds, or for the `left` seconds until they expire if that is less.

    Vault counts from when it makes the wrapping token. One that turns out to last too long is not returned: another one
    takes its place. Raises StoreError and its subclasses; TokenError if too little time is left.
    """
    delay = SLACK
    while (seconds := floor(min(ttl, left() - delay))) > 0:
        began = time.monotonic()
        try:
            wrapping = client.wrap(fields, seconds, deadline, lambda: left() >= seconds)
        except OutdatedError:
            wrapping = None
        if wrapping is not None and left() >= wrapping.ttl:
            _log.info("wrapped the token for %d s: `vault unwrap` returns its fields, once", wrapping.ttl)
            return wrapping
        delay = max(2 * delay, time.monotonic() - began)
    raise TokenError(
        "The token expires before it can be wrapped.", hint="Its lifetime is too short for a wrapping token."
    )
