"""Settings: where each is declared, how its text is read, and where it comes from."""

from vault_plugin.settings.declarations import Settings
from vault_plugin.settings.naming import words

__all__ = ["Settings", "words"]
