"""Identities: a user of a company, and the path in Vault that belongs to this identity alone."""

import re
from dataclasses import dataclass, field
from hashlib import sha256

from vault_plugin.errors import SettingsError
from vault_plugin.tokens.jwt import Kind
from vault_plugin.tokens.names import checked

MAX_SEGMENT = 160  # characters; Vault's Raft storage takes 32 KiB for a whole path
# Patterns are compiled when a name is not just letters and digits, which takes longer than the rest.
_PLAIN = r"[A-Za-z0-9_@-]+(\.[A-Za-z0-9_@-]+)*"  # kept as a whole
_KEPT = r"[A-Za-z0-9_@-]|(?<=[^.])\.(?=[^.])"


@dataclass(frozen=True, slots=True)
class Identity:
    """A user of a company, as KlearStack knows them. Both are used exactly as given: no trimming, no folding.

    Raises SettingsError if one is empty, not a string, or has invisible characters (see names.py). Both together are
    enough to mint a token, so `repr` hides them.
    """

    user_id: str = field(repr=False)
    company_name: str = field(repr=False)

    def __post_init__(self) -> None:
        given: dict[str, object] = {"user_id": self.user_id, "company_name": self.company_name}
        for name, value in given.items():
            if not isinstance(value, str):
                raise SettingsError(f"The {name} is not a string.")
            if not value:
                raise SettingsError(f"The {name} is empty.")
            try:
                checked(value)
            except ValueError as exc:
                raise SettingsError(f"The {name} {exc}.") from None

    def path(self, prefix: str, kind: Kind) -> str:
        """The path below the mount: `<prefix>/<company>/<user>/access` or `.../refresh`."""
        return f"{prefix}/{encode(self.company_name)}/{encode(self.user_id)}/{kind}"


def encode(text: str) -> str:
    """Any non-empty text as one path segment, readable and injective.

    Letters, digits, `_`, `@`, `-` and single dots inside are kept; each other byte of the UTF-8 becomes `~XX`. So no
    segment can be `.` or `..`, or a policy's `+` or `*`, and no URL quoting changes it. A segment that would be longer
    than 160 characters is cut, and ends with `~~` (which no other text encodes to) and 128 bits of its SHA-256.
    """
    if len(text) <= MAX_SEGMENT and ((text.isascii() and text.isalnum()) or re.fullmatch(_PLAIN, text)):
        return text
    kept = re.compile(_KEPT)
    parts = [
        char if kept.match(text, at) else "".join(f"~{byte:02X}" for byte in char.encode())
        for at, char in enumerate(text)
    ]
    if sum(map(len, parts)) <= MAX_SEGMENT:
        return "".join(parts)
    tail = "~~" + sha256(text.encode()).hexdigest()[:32]
    head = ""
    while len(head) + len(parts[0]) + len(tail) <= MAX_SEGMENT:
        head += parts.pop(0)
    return head + tail
