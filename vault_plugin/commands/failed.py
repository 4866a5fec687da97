"""The failures of a run on standard error."""

from collections import Counter

import click

from vault_plugin.commands.options import identities

PARTIAL = 5  # exit code of a run that has done a part of what it should
SHOWN = 10  # kinds of failures, and lines of each; --report has all of them


class Failures:
    """Failures by message: one line for each kind, however often it occurred."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._lines: dict[str, list[int]] = {}  # of the manifest, the first ones of each kind
        self._others = 0

    def add(self, error: str, line: int) -> None:
        """Count a failure of the identity on that line of the manifest."""
        if error not in self._lines and len(self._lines) == SHOWN:
            self._others += 1
            return
        self._counts[error] += 1
        lines = self._lines.setdefault(error, [])
        if len(lines) < SHOWN:
            lines.append(line)

    def report(self) -> None:
        """Write them to standard error."""
        for error, lines in self._lines.items():
            where, count = ", ".join(map(str, sorted(lines))), self._counts[error]
            if count == 1:
                where = f"line {where}"
            else:
                more = f" and {count - len(lines):,} more" if count > len(lines) else ""
                where = f"{identities(count)} failed (lines {where}{more})"
            click.echo(f"klearstack-vault: {where}: {error}", err=True)
        if self._others:
            others = identities(self._others)
            click.echo(f"klearstack-vault: {others} failed in other ways: --report lists all.", err=True)
