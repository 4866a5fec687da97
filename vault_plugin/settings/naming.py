"""What a face calls settings in its messages: by its own names and by their environment variables."""

from collections.abc import Callable, Mapping

from vault_plugin.settings.declarations import ORIGINS
from vault_plugin.wording import Words, by_default, flag


def words(calls: Callable[[str], str | None], others: Mapping[str, str] | None = None) -> Words:
    """A face's words: what it calls a setting (None: it has no name for it), with its variable; `others` come first."""
    others = others or {}

    def word(name: str) -> str:
        if name in others:
            return others[name]
        own = calls(name)
        variable = " or ".join(reversed(ORIGINS[name].env)) if name in ORIGINS else ""
        if own and variable:
            return f"{own} ({variable})"
        return own or variable or f"`klearstack-vault get {flag(name)}`"

    return word


def _flag_of(name: str) -> str | None:
    return None if name in ORIGINS and not ORIGINS[name].flag else flag(name)


by_default(words(_flag_of, {"help": "README", "verbose": "-v"}))
