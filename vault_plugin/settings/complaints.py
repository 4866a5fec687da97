"""All that is wrong with the settings, told at once."""

from vault_plugin.errors import SettingsError
from vault_plugin.wording import named


class Complaints:
    """All that is wrong with the settings, as one error."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self.settings: set[str] = set()  # those that are complained about
        self.missing: set[str] = set()

    def add(self, complaint: str, *about: str) -> None:
        """Add a text, after the name of the first of these settings."""
        self._texts.append(named(about[0]) + complaint)
        self.settings.update(about)

    def add_missing(self, name: str, also: str = "") -> None:
        """Add that no source has a required setting."""
        self.add(f" is missing{also}", name)
        self.missing.add(name)

    def error(self) -> SettingsError | None:
        """The error; None if there is no complaint."""
        if not self._texts:
            return None
        error = SettingsError("; ".join(self._texts) + ".", hint=f"See {named('help')}.")
        error.settings, error.missing = frozenset(self.settings), frozenset(self.missing)
        return error
