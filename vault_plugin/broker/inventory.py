"""What is stored below one prefix: for callers that look at it or delete it. Nothing is minted."""

from collections.abc import Callable

from vault_plugin.broker.ports import Lock, TokenStore
from vault_plugin.errors import ForeignSecretError
from vault_plugin.timing.deadline import Deadline
from vault_plugin.tokens.jwt import Kind
from vault_plugin.tokens.place import Holding, Place
from vault_plugin.tokens.stored import VaultRef

LOCK_SHARE = 0.5  # of the deadline


class Inventory:
    """Each method has `deadline` seconds, and raises StoreError and its subclasses. Safe among threads.

    `where` names the prefix and its Vault in messages.
    """

    def __init__(self, store: Callable[[], TokenStore], lock: Lock, *, deadline: float, where: str) -> None:
        self.where = where
        self._store = store
        self._lock = lock
        self._deadline = deadline

    def companies(self) -> list[str]:
        """The companies below the prefix, as segments of a path."""
        deadline = Deadline(self._deadline)
        return self._store().inventory(deadline).companies(deadline)

    def places(self, company: str) -> list[Place]:
        """The places of that company, given as a segment."""
        deadline = Deadline(self._deadline)
        return self._store().inventory(deadline).places(company, deadline)

    def holdings(self, place: Place) -> list[Holding]:
        """What the paths of both tokens hold. One that is not ours is not `managed`; one without anything is left out."""
        deadline = Deadline(self._deadline)
        stored = self._store().inventory(deadline)
        found = []
        for kind in Kind:
            try:
                found.append(stored.look(place, kind, deadline))
            except ForeignSecretError:
                ref = VaultRef("", place.path("", kind))
                found.append(Holding(place, kind, ref, 0.0, place.identity, managed=False))
        return [one for one in found if one is not None]

    def delete(self, place: Place, manifest: str | None = None) -> int:
        """Delete what is ours at this place for good, with the lock of its identity; the number of paths.

        With a `manifest`, only the paths that belong to the manifest of that name. Raises ForeignSecretError if a path is not
        ours, after the other one has been deleted; BusyError if another caller holds the lock; OutputError if there can be
        no lock.
        """
        deadline = Deadline(self._deadline)
        with self._lock(place, deadline.part(LOCK_SHARE)):
            stored = self._store().inventory(deadline)
            deleted, foreign = 0, None
            # The access token first, so that whoever finds it finds the refresh token as well.
            for kind in Kind:
                try:
                    deleted += stored.delete(place, kind, deadline, manifest)
                except ForeignSecretError as exc:
                    foreign = exc
        if foreign:
            raise foreign
        return deleted
