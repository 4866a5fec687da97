"""What is stored, as a table for people and as JSON for programs. Neither has a token."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import ceil
from typing import Literal

from vault_plugin.broker.inventory import Inventory
from vault_plugin.output.columns import filled, width
from vault_plugin.timing.clock import format_rfc3339
from vault_plugin.tokens.names import checked
from vault_plugin.tokens.place import Holding

State = Literal["valid", "expiring", "expired", "missing", "unmanaged"]
BAR = 8  # columns
GAP = "  "
HEADS = ("COMPANY", "USER", "TOKEN", "REMAINING", "VERSION", "MINTED", "MANIFEST")
_CUT = (0, 1, 6)  # the columns that are cut where the table is too wide
_LEAST = 8  # columns that each of those keeps
_COLOURED = 3  # the column that shows the state
# Select Graphic Rendition: green, yellow, red.
_COLOURS: dict[State, str] = {"valid": "32", "expiring": "33"}
_RED = "31"
_WORDS: dict[State, str] = {
    "missing": "missing",
    "unmanaged": "replaced by an unmanaged secret",
    "expired": "expired",
    "expiring": "about to expire",
    "valid": "valid",
}
_UNITS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def state_of(one: Holding, warn: float) -> State:
    """What is to be said of it; a token is `expiring` if it has at most `warn` seconds left."""
    if one.content == "unmanaged":
        return "unmanaged"
    if one.left is None:
        return "missing"
    if one.left == 0:
        return "expired"
    return "expiring" if one.left <= warn else "valid"


def in_order(holdings: Iterable[Holding]) -> list[Holding]:
    """Sort them: what is missing comes first, then what expires first."""
    return sorted(holdings, key=lambda one: (int(one.expires_at or 0), one.place, one.kind))


def summary(holdings: Sequence[Holding], warn: float, where: str) -> str:
    """Sum up how many are in which state, in a line; `where` names the prefix."""
    counts = Counter(state_of(one, warn) for one in holdings)
    texts = [f"{counts[state]:,} {word}" for state, word in _WORDS.items() if counts[state]]
    total = f"{len(holdings):,} token{'' if len(holdings) == 1 else 's'}"
    return f"{total} in {where}: {', '.join(texts)}\n" if texts else f"No tokens in {where}\n"


def render_json(stored: Mapping[Inventory, Iterable[Holding]], warn: float) -> str:
    """Render one JSON object of what is stored in these Vaults."""
    rows = [_described(one, warn, vault.address) for vault, held in stored.items() for one in held]
    return json.dumps({"tokens": rows}) + "\n"


def _described(one: Holding, warn: float, address: str) -> dict[str, object]:
    ours = one.content == "ours"
    return {
        "company_name": one.identity.company_name if one.identity else None,
        "user_id": one.identity.user_id if one.identity else None,
        "kind": str(one.kind),
        "state": state_of(one, warn),
        "expires_at": _date(one.expires_at),
        "expires_in": one.left,
        "lifetime": None if one.life is None else round(one.life),
        "minted_at": _date(one.minted_at),
        "managed_by": "klearstack-vault" if ours else None,
        "manifest": one.manifest or None,
        "issued_by": one.issued_by or None,
        "vault": {
            "address": address,
            "mount": one.ref.mount,
            "path": one.ref.path,
            "version": one.ref.version,
            "deletion_time": one.ref.deletion_time,
        },
    }


def _date(moment: float | None) -> str | None:
    return None if moment is None else format_rfc3339(int(moment))


def render_table(holdings: Sequence[Holding], warn: float, *, columns: int | None, colours: bool) -> str:
    """Render a table, in so many columns; None: as many as it needs."""
    rows = [_cells(one, warn) for one in holdings]
    needed = [max(map(width, column)) for column in zip(HEADS, *rows, strict=True)]
    if columns is not None:
        _shrink(needed, columns - len(GAP) * (len(HEADS) - 1))
    lines = [_line(HEADS, needed)]
    for one, cells in zip(holdings, rows, strict=True):
        colour = _COLOURS.get(state_of(one, warn), _RED) if colours else ""
        lines.append(_line(cells, needed, colour))
    return "".join(f"{line}\n" for line in lines)


def _shrink(needed: list[int], room: int) -> None:
    """Take columns away from the widest of those that may be cut, until all of them have room."""
    while sum(needed) > room:
        widest = max(_CUT, key=lambda number: needed[number])
        if needed[widest] <= _LEAST:
            return
        needed[widest] -= 1


def _line(cells: Sequence[str], columns: Sequence[int], colour: str = "") -> str:
    texts = [filled(cell, number) for cell, number in zip(cells, columns, strict=True)]
    if colour:
        texts[_COLOURED] = f"\x1b[{colour}m{texts[_COLOURED]}\x1b[0m"
    return GAP.join(texts).rstrip()


def _cells(one: Holding, warn: float) -> tuple[str, ...]:
    company, user = one.place.company, one.place.user
    if one.identity:
        company, user = one.identity.company_name, one.identity.user_id
    version = "-" if one.ref.version is None else str(one.ref.version)
    minted = "-" if one.minted_at is None else f"{_span(one.now - one.minted_at, 1)} ago"
    return (
        company,
        user,
        str(one.kind),
        f"{_bar(one)} {_remaining(one, warn)}",
        version,
        minted,
        _shown(one.manifest) or "-",
    )


def _remaining(one: Holding, warn: float) -> str:
    state = state_of(one, warn)
    return _span(one.left or 0, 2) if state in {"valid", "expiring"} else state


def _bar(one: Holding) -> str:
    """The remaining part of the lifetime; full if the lifetime is not known."""
    if not one.left:
        return "░" * BAR
    part = 1.0 if not one.life else min(1.0, one.left / one.life)
    return f"{'█' * ceil(part * BAR):░<{BAR}}"


def _span(seconds: float, parts: int) -> str:
    """So many seconds in one or two units, such as `14m 32s`."""
    left = max(0, int(seconds))
    texts: list[str] = []
    for unit, sign in _UNITS:
        if left >= unit or texts:
            texts.append(f"{left // unit}{sign}")
            left %= unit
    return " ".join(texts[:parts]) or "0s"


def _shown(manifest: str) -> str:
    """The name of a manifest, which others may have written to Vault; a question mark if it has invisible characters."""
    try:
        return checked(manifest)
    except ValueError:
        return "?"
