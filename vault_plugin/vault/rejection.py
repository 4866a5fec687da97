"""A login that Vault has rejected: it is not sent again at once, since each rejection may count towards a lock of the account."""

import time

from vault_plugin.errors import StoreError
from vault_plugin.settings import Settings
from vault_plugin.settings.declarations import ORIGINS
from vault_plugin.settings.origin import Group

_CREDENTIALS = tuple(name for name, origin in ORIGINS.items() if origin.group is Group.VAULT_LOGIN)


class Rejection:
    """The newest rejection of a login, and the credentials that it was made with."""

    def __init__(self, settings: Settings, error: StoreError, seconds: float) -> None:
        """It holds for so long."""
        self._credentials = _credentials(settings)
        self._error = error.again()  # without a traceback, whose frames hold credentials
        self._end = time.monotonic() + seconds

    def error(self) -> StoreError:
        """An error that equals that of the rejection."""
        return self._error.again()

    def concerns(self, settings: Settings) -> bool:
        """Whether a login with these settings would be the same one, too early."""
        # The content of a certificate is not in the settings, and no account is locked by one.
        same = settings.auth != "cert" and self._credentials == _credentials(settings)
        return same and time.monotonic() < self._end


def _credentials(settings: Settings) -> tuple[object, ...]:
    return tuple(getattr(settings, name) for name in _CREDENTIALS)
