"""Values that are not shown by accident."""

from typing import Never, final


@final
class Secret:
    """A string that only `reveal()` shows: not `repr`, `str`, `format`, `pickle`, `copy` or `dataclasses.asdict`."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself. `grep -rn 'reveal()'` lists each place where a secret is used."""
        return self._value

    def __repr__(self) -> str:
        return "Secret('**********')"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce__(self) -> Never:
        raise TypeError("a Secret cannot be pickled or copied")
