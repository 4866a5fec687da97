"""Output formats of a grant: text for a pipe, a file or another program. Secrets are revealed here."""

import json
from collections.abc import Collection
from typing import Any

from vault_plugin.broker import Grant, GrantedToken
from vault_plugin.errors import KlearstackVaultError, UsageError
from vault_plugin.timing.clock import format_rfc3339
from vault_plugin.tokens.jwt import Kind

_JSON_KEYS = (
    *("access_token", "token_type", "expires_at", "expires_in", "source", "stale", "vault"),
    *("refresh_token", "refresh_expires_at", "refresh_expires_in", "refresh_vault"),
)


def _raw(grant: Grant) -> str:
    return "\n".join(held.token.value.reveal() for held in grant.tokens.values())


def describe(grant: Grant) -> dict[str, Any]:
    """Describe the grant by strings, numbers and booleans, under the keys that docs/commands.md documents."""
    described: dict[str, Any] = {"token_type": "Bearer", "source": grant.source, "stale": grant.stale}
    for kind, held in grant.tokens.items():
        prefix = "refresh_" if kind is Kind.REFRESH else ""
        described |= {
            f"{kind}_token": held.token.value.reveal(),
            f"{prefix}expires_at": format_rfc3339(held.token.expires_at),
            f"{prefix}expires_in": held.ttl(grant.now),
            f"{prefix}vault": _reference(held),
        }
    return {name: described[name] for name in _JSON_KEYS if name in described}


def _reference(held: GrantedToken) -> dict[str, Any] | None:
    ref = held.ref
    if ref is None:
        return None
    return {"mount": ref.mount, "path": ref.path, "version": ref.version, "deletion_time": ref.deletion_time}


def _json(grant: Grant) -> str:
    return json.dumps(describe(grant))


def variables(grant: Grant) -> dict[str, str]:
    """Return the environment variables for the tokens and their expiration, with their values."""
    texts: dict[str, str] = {}
    for kind, held in grant.tokens.items():
        prefix = "KLEARSTACK_REFRESH" if kind is Kind.REFRESH else "KLEARSTACK"
        texts |= {
            f"KLEARSTACK_{kind.upper()}_TOKEN": held.token.value.reveal(),
            f"{prefix}_TOKEN_EXPIRATION": format_rfc3339(held.token.expires_at),
        }
    return texts


def _env(grant: Grant) -> str:
    # Nothing needs quoting: a JWT has only [A-Za-z0-9_.-], which Token.from_jwt validates.
    return "\n".join(f"export {name}={text}" for name, text in variables(grant).items())


def _header(grant: Grant) -> str:
    return f"Authorization: Bearer {grant.access.token.value.reveal()}"


def _curl(grant: Grant) -> str:
    return f'header = "{_header(grant)}"'


def _github(grant: Grant) -> str:
    # The parts are masked as well: a program may print a token without its signature, or the signature alone. Nothing needs
    # escaping, see _env.
    tokens = [held.token.value.reveal() for held in grant.tokens.values()]
    return "\n".join(f"::add-mask::{part}" for token in tokens for part in (token, *token.rsplit(".", 1)))


FORMATS = {
    "raw": _raw,
    "json": _json,
    "env": _env,
    "header": _header,
    "curl": _curl,
    "github": _github,
}


def check(form: str, kinds: Collection[Kind], *, wrapping: bool = False) -> None:
    """Check, before any request, that the format can hold these tokens, or their wrapping token. Raises UsageError."""
    in_header = form in {"header", "curl"}
    if in_header and wrapping:
        raise UsageError("The API's header takes no wrapping token.", hint="Choose another --format.")
    if in_header and list(kinds) != [Kind.ACCESS]:
        raise UsageError("Only the access token goes into a header.", hint="Omit --token.")


def render(grant: Grant, form: str) -> str:
    """Render the grant in one of FORMATS, ending in a newline. Raises UsageError if the format cannot hold it."""
    check(form, grant.tokens)
    return FORMATS[form](grant) + "\n"


def describe_error(exc: KlearstackVaultError) -> dict[str, Any]:
    """Describe the error by strings and booleans."""
    return {"code": exc.code, "message": str(exc), "hint": exc.hint, "retryable": exc.retryable}


def render_error(exc: KlearstackVaultError) -> str:
    """Render the JSON object of a failed call."""
    return json.dumps({"error": describe_error(exc)}) + "\n"
