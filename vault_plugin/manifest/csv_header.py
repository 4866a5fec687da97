"""What is invalid about a CSV's header line. Messages quote none of it: without a header, it contains values."""

from collections.abc import Collection, Sequence

_SEPARATORS = {";": "`;`", "\t": "tabs", "|": "`|`"}


def encoding_fault(line: str) -> str:
    """Name the encoding of a line that is not UTF-8 (read with `surrogateescape`). Empty if it is UTF-8."""
    if line.startswith(("\udcff\udcfe", "\udcfe\udcff")) or "\0" in line[:2]:
        return "is UTF-16: save the file as UTF-8"
    if "\0" in line or any("\udc80" <= char <= "\udcff" for char in line):
        return "is not UTF-8"
    return ""


def named(header: Sequence[str]) -> list[str]:
    """Return the names without blank ones at the end, which spreadsheets add."""
    names = list(header)
    while names and not names[-1].strip():
        names.pop()
    return names


def header_fault(names: Sequence[str], keys: Collection[str]) -> str:
    """Say why these are not unique names of columns in `keys` with `user_id` among them. Empty if they are."""
    wanted = ", ".join(keys)
    if not names:
        return f"is blank: the first line names the columns ({wanted})"
    if not {_plain(name) for name in names} & set(keys):
        for separator, shown in _SEPARATORS.items():
            parts = {_plain(part) for name in names for part in name.split(separator)}
            if parts & set(keys):
                return f"separates the columns with {shown}: use commas"
        return f"names no column: the header line ({wanted}) is missing"
    faults = filter(None, (_fault(names, number, keys) for number in range(1, len(names) + 1)))
    return next(faults, "" if "user_id" in names else "has no column user_id")


def _fault(names: Sequence[str], number: int, keys: Collection[str]) -> str:
    """Say what is invalid about the name of one column."""
    name = names[number - 1]
    if not name.strip():
        return f"has no name for column {number}"
    if name not in keys:
        cause = "is not spelled like one of" if _plain(name) in keys else "is not one of"
        return f"names a column that {cause} {', '.join(keys)}: column {number}"
    first = names.index(name) + 1
    return f"has the same name for the columns {first} and {number}" if first < number else ""


def _plain(name: str) -> str:
    """Return the name that was probably meant."""
    return name.strip(" \t\"'").lower().replace(" ", "_")
