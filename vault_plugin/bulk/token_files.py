"""The files in which `watch` keeps tokens for other programs."""

from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from vault_plugin.bulk.hook import Hook
from vault_plugin.output.private_files import PRIVATE, Rights, holds, make_folders, write_file
from vault_plugin.tokens.jwt import Token


class TokenFiles(NamedTuple):
    """The rights of token files, and the hook to call after each change."""

    rights: Rights = PRIVATE
    on_change: Hook | None = None

    def write(self, path: Path, token: Token) -> None:
        """Make the file contain the token; a file that contains it already is left alone. Raises OutputError."""
        text = token.value.reveal()
        if holds(path, text, self.rights):
            return
        with suppress(OSError):  # write_file reports what is wrong
            make_folders(path.parent, self.rights)
        write_file(path, text, mode=self.rights.mode, owner=self.rights.owner)
        if self.on_change is not None:
            self.on_change.call()
