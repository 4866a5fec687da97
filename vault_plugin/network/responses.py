"""Responses that are complete, or an error.

http.client takes the end of a connection for the end of the headers and of a body with a length, and an interim response
other than 100 for the response itself.
"""

import http.client
import json
from typing import Any

from vault_plugin.network.sockets import Socket

SPEAKS_TLS = "TLS, use https://"
_TLS_RECORDS = ("\x15\x03", "\x16\x03")  # the first bytes of an alert and of a handshake


class WrongSchemeError(OSError):
    """The server does not speak the scheme of its URL: which one it speaks, and which URL to use."""


class CompleteResponse(http.client.HTTPResponse):
    """A response whose headers are complete. Interim responses before it are skipped."""

    def __init__(self, sock: Any, *arguments: Any, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        self._socket: Socket = sock

    def begin(self) -> None:
        """Read the headers. Raises IncompleteRead if they end too early, WrongSchemeError if this is TLS."""
        interim = True
        while interim:
            self.__dict__.update(headers=None, msg=None)  # or begin() would not read the next response
            try:
                super().begin()
            except http.client.BadStatusLine as exc:
                if str(exc).startswith(_TLS_RECORDS):
                    raise WrongSchemeError(SPEAKS_TLS) from None
                raise
            if self._socket.ended:
                raise http.client.IncompleteRead(b"")
            interim = self.status < 200
        # requests reads cookies, and prints a traceback for a date that http.cookiejar cannot parse.
        del self.headers["Set-Cookie"], self.headers["Set-Cookie2"]


def cut_short(body: bytes) -> bool:
    """Whether JSON ends too early. For responses that end with the connection, where nothing else shows it."""
    try:
        json.loads(body)
    except UnicodeDecodeError as exc:
        return exc.end == len(body)
    except json.JSONDecodeError as exc:
        return exc.pos >= len(exc.doc.rstrip()) or exc.msg.startswith("Unterminated string")
    except RecursionError:
        pass
    return False
