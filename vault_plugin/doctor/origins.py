"""The settings, where each of them comes from, and what is wrong with them."""

from collections.abc import Iterator
from typing import Any

from vault_plugin.doctor.verdicts import Verdict, failed, ok
from vault_plugin.settings.declarations import ORIGINS, Settings
from vault_plugin.settings.gathering import Survey

_HIDDEN = "(hidden)"
_LONGEST = 200  # characters of a value that is shown


def verdicts_on_settings(survey: Survey) -> Iterator[Verdict]:
    """A line for each setting that has a value, and one for all that is wrong."""
    for name in ORIGINS:
        value = survey.values.get(name, getattr(Settings, name, None))
        if value not in (None, False):
            source = survey.sources.get(name, "default")
            yield ok(f"setting {name}", f"{_shown(name, value)} ({source})")
    if survey.error is not None:
        yield failed("settings", survey.error)


def _shown(name: str, value: Any) -> str:
    """The value, unless it is a credential; an identity is all that it takes to mint a token."""
    origin = ORIGINS[name]
    if origin.secret or origin.identity:
        return _HIDDEN
    if name == "vault_addr":
        return ",".join(value)
    text = f"{value:g}" if isinstance(value, float) else str(value)
    # Certificates have many lines, and a verdict has one.
    return text if text.isprintable() and len(text) <= _LONGEST else f"({len(text)} characters)"
