"""What is stored below one prefix: for callers that look at it or delete it. Nothing is minted."""

from collections.abc import Callable

from vault_plugin.broker.ports import Lock, StoredPaths, TokenStore
from vault_plugin.errors import ForeignSecretError
from vault_plugin.timing.deadline import Deadline
from vault_plugin.tokens.jwt import Kind
from vault_plugin.tokens.place import Holding, Place
from vault_plugin.tokens.stored import VaultRef

LOCK_SHARE = 0.5  # of the deadline


class Inventory:
    """The tokens below `prefix` in the mount of one Vault. Safe among threads.

    Each method has `deadline` seconds, and raises StoreError and its subclasses.
    """

    def __init__(
        self,
        store: Callable[[], TokenStore],
        lock: Lock,
        *,
        deadline: float,
        address: str,
        mount: str,
        prefix: str,
    ) -> None:
        self.address = address
        self.mount = mount
        self.prefix = prefix
        self._store = store
        self._lock = lock
        self._deadline = deadline

    def companies(self) -> list[str]:
        """The companies below the prefix, as segments of a path."""
        stored, deadline = self._begin()
        return stored.companies(deadline)

    def places(self, company: str) -> list[Place]:
        """The places of that company, given as a segment."""
        stored, deadline = self._begin()
        return stored.places(company, deadline)

    def holdings(self, place: Place, *, thorough: bool = False) -> list[Holding]:
        """What the paths of the access token and of the refresh token hold.

        With `thorough`, also metadata without any version, where there is no token.
        """
        stored, deadline = self._begin()
        return [self._look(stored, place, kind, deadline, thorough=thorough) for kind in Kind]

    def _look(
        self, stored: StoredPaths, place: Place, kind: Kind, deadline: Deadline, *, thorough: bool
    ) -> Holding:
        nothing = Holding(
            place,
            kind,
            VaultRef(self.mount, place.path(self.prefix, kind)),
            0.0,
            "nothing",
            identity=place.identity,
        )
        try:
            return stored.look(place, kind, deadline, thorough=thorough) or nothing
        except ForeignSecretError:
            return nothing._replace(content="unmanaged")

    def delete(self, place: Place, manifest: str | None = None) -> int:
        """Delete what is ours at this place for good, with the lock of its identity; the number of paths.

        With a `manifest`, only the paths that belong to the manifest of that name. Raises BusyError if another caller holds
        the lock; OutputError if there can be no lock.
        """
        deadline, deleted = Deadline(self._deadline), 0
        with self._lock(place, deadline.part(LOCK_SHARE)):
            stored = self._store().inventory(deadline)
            # The access token first, so that whoever finds it finds the refresh token as well.
            for kind in Kind:
                try:
                    deleted += stored.delete(place, kind, deadline, manifest)
                except ForeignSecretError:
                    continue  # It is left alone.
        return deleted

    def _begin(self) -> tuple[StoredPaths, Deadline]:
        deadline = Deadline(self._deadline)
        return self._store().inventory(deadline), deadline
