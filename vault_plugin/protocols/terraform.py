"""The program of Terraform's `data "external"`: a query on standard input, references to tokens on standard output.

Terraform writes query and result to its state in plain text, so neither may contain a secret: the result names the
tokens' paths in Vault, where an ephemeral resource reads them. The result does not change while stored tokens are
reused, or every plan would show a difference.
"""

import json
import re
from collections.abc import Mapping
from typing import cast

from vault_plugin.app import connect
from vault_plugin.broker import Grant
from vault_plugin.errors import QueryError, SettingsError
from vault_plugin.protocols.query import json_object
from vault_plugin.settings import Settings, words
from vault_plugin.settings.declarations import ORIGINS
from vault_plugin.settings.origin import Group
from vault_plugin.timing.clock import format_rfc3339
from vault_plugin.tokens.jwt import Kind
from vault_plugin.tokens.names import checked
from vault_plugin.tokens.stored import VaultRef

REQUIRED = ("user_id", "company_name")
# Neither where a credential of the environment is sent to, nor how: a query decides about neither of them.
_GROUPS = {Group.TOKEN, Group.VAULT_STORAGE, Group.VAULT_LOGIN, Group.LIMITS}
OPTIONAL = (
    *(name for name, origin in ORIGINS.items() if origin.flag and origin.group in _GROUPS),
    "renew",
)
KEYS = REQUIRED + OPTIONAL
# A Vault token or a JWT.
_CREDENTIAL = re.compile(r"(hv[sbr]|[sbr])\.[\w-]{24,}|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]*")
_HINT = "Credentials come from the environment or a file: Terraform stores the query in its state."

_KEYS = {name: f"`{name}` in the query" for name in (*REQUIRED, "renew")}
# What messages call the settings: Terraform users have query keys and variables, and no flags.
WORDS = words(
    lambda name: f"`{name}` in the query" if name in OPTIONAL else None,
    {**_KEYS, "help": "`klearstack-vault terraform --help`", "verbose": "`klearstack-vault get -v`"},
)


class _Settings(Settings):
    min_ttl: float = 120.0  # the default: Terraform uses the token after the plan, in which it was read


def respond(
    text: bytes,
    environ: Mapping[str, str] | None = None,
    *,
    began: float | None = None,
    with_tokens: bool = False,
) -> str:
    """Return the result of one query: a flat JSON object of strings, in ASCII.

    `began`: when the call began, if it was earlier (monotonic seconds). `with_tokens` adds the tokens themselves, for
    `ephemeral "local_command"`, whose output Terraform does not store.

    Raises QueryError if the query is not a JSON object of strings with valid keys and values, or contains a
    credential; and what Settings.from_env and Broker.get raise.
    """
    query = _read(text)
    renew = query.pop("renew", "")
    if renew not in ("", "true", "false"):
        raise QueryError('The query\'s `renew` must be "true" or "false".')
    try:
        settings = _Settings.from_env(
            environ,
            began,
            on_vault_error="fail",  # a token that is not in Vault has no reference
            **query,
        )
    except SettingsError as exc:
        if any(query.get(name) for name in exc.settings):
            raise QueryError(str(exc), hint=exc.hint) from None
        raise
    with connect(settings) as broker:
        grant = broker.get(settings.identity(), tuple(Kind), renew=renew == "true")
    return json.dumps(_result(grant, with_tokens=with_tokens)) + "\n"


def _read(text: bytes) -> dict[str, str]:
    """Parse and validate the query. Raises QueryError."""
    query = json_object(text)
    for name, value in query.items():
        if name not in KEYS:
            raise _unknown_key(name)
        if not isinstance(value, str):
            raise QueryError(f"The query's `{name}` is not a string.")
        if _CREDENTIAL.fullmatch(value.strip()):
            raise QueryError(f"The query's `{name}` looks like a credential.", hint=_HINT)
    if missing := [f"`{name}`" for name in REQUIRED if not query.get(name)]:
        raise QueryError(f"The query lacks {' and '.join(missing)}.")
    for name in REQUIRED:
        try:
            checked(query[name])
        except ValueError as exc:
            raise QueryError(f"The query's `{name}` {exc}.") from None
    return query


def _unknown_key(name: str) -> QueryError:
    """Make the error for a key that a query cannot have; it quotes a plain word only, as others may be secrets."""
    from difflib import get_close_matches  # noqa: PLC0415  no valid query needs it

    shown = f"key `{name}`" if re.fullmatch(r"\w{1,40}", name, re.ASCII) else "key that is not a plain word"
    near = get_close_matches(name, KEYS, 1)
    suggestion = f" Did you mean `{near[0]}`?" if near else ""
    return QueryError(
        f"The query has an unknown {shown}.{suggestion} Valid keys: {', '.join(KEYS)}.", hint=_HINT
    )


def _result(grant: Grant, *, with_tokens: bool) -> dict[str, str]:
    result: dict[str, str] = {}
    for kind, held in grant.tokens.items():
        ref = cast(VaultRef, held.ref)  # not None with on_vault_error="fail"
        result |= {
            "mount": ref.mount,
            "kv_version": "1" if ref.version is None else "2",
            f"{kind}_name": ref.path,
            f"{kind}_version": "" if ref.version is None else str(ref.version),
            f"{kind}_expires_at": format_rfc3339(held.token.expires_at),
        }
        if with_tokens:
            result[f"{kind}_token"] = held.token.value.reveal()
    return result
