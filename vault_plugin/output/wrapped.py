"""Output formats of a wrapping token: each says what it is, and that `vault unwrap` returns the fields of the token.

Secrets are revealed here.
"""

import json
from typing import Any

from vault_plugin.broker import Grant
from vault_plugin.output.formats import describe
from vault_plugin.timing.clock import format_rfc3339
from vault_plugin.tokens.stored import WrappingToken

_AS_LOGIN = "VAULT_TOKEN=$KLEARSTACK_WRAPPING_TOKEN"  # not an argument, which process lists show
_OF_TOKENS = {"access_token", "refresh_token", "token_type"}


def described(wrapping: WrappingToken) -> dict[str, Any]:
    """Describe the wrapping token by strings and numbers, under the keys that docs/commands.md documents."""
    return {
        "wrapping_token": wrapping.value.reveal(),
        "wrapping_expires_at": format_rfc3339(int(wrapping.expires_at)),
        "wrapping_expires_in": wrapping.ttl,
        "unwrap": "vault unwrap",
    }


def _json(grant: Grant, wrapping: WrappingToken) -> str:
    public = {name: value for name, value in describe(grant).items() if name not in _OF_TOKENS}
    return json.dumps(described(wrapping) | public)


def _env(_: Grant, wrapping: WrappingToken) -> str:
    # Nothing needs quoting: schema.wrap_info validates the characters of the token.
    return (
        f"export KLEARSTACK_WRAPPING_TOKEN={wrapping.value.reveal()}\n"
        f"export KLEARSTACK_WRAPPING_TOKEN_EXPIRATION={format_rfc3339(int(wrapping.expires_at))}\n"
        f"# A wrapping token, not an API token: `{_AS_LOGIN} vault unwrap` returns the API token once."
    )


def _github(_: Grant, wrapping: WrappingToken) -> str:
    return (
        f"::add-mask::{wrapping.value.reveal()}\n"
        "The step output wrapping_token is a wrapping token, not an API token: `vault unwrap` returns the API token once."
    )


def _raw(_: Grant, wrapping: WrappingToken) -> str:
    return wrapping.value.reveal()


FORMATS = {"raw": _raw, "json": _json, "env": _env, "github": _github}


def render(grant: Grant, wrapping: WrappingToken, form: str) -> str:
    """Render the wrapping token in one of FORMATS, ending in a newline; no token of the grant is shown."""
    return FORMATS[form](grant, wrapping) + "\n"
