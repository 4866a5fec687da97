"""Responses of which nothing is missing, whatever the connection did.

http.client takes the end of a connection for the end of the headers and of a body with a length, and an interim response
other than 100 for the response itself.
"""

import http.client
import json
from typing import Any

from vault_plugin.network.sockets import Socket

SPEAKS_TLS = "TLS, use https://"
_TLS_RECORDS = ("\x15\x03", "\x16\x03")  # how an alert and a handshake begin


class WrongSchemeError(OSError):
    """The server speaks the other one of `http://` and `https://`: which one, and what to use."""


class CompleteResponse(http.client.HTTPResponse):
    """A response whose headers are whole, after any interim ones.

    http.client takes the end of the connection for the end of the headers, and 103 for the response itself.
    """

    def __init__(self, sock: Any, *arguments: Any, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        self._socket: Socket = sock

    def begin(self) -> None:
        """Read the headers. Raises IncompleteRead if they are cut, WrongSchemeError if this is TLS."""
        interim = True
        while interim:
            self.__dict__.update(headers=None, msg=None)  # or no other would be read
            try:
                super().begin()
            except http.client.BadStatusLine as exc:
                if str(exc).startswith(_TLS_RECORDS):
                    raise WrongSchemeError(SPEAKS_TLS) from None
                raise
            if self._socket.ended:
                raise http.client.IncompleteRead(b"")
            interim = self.status < 200
        # Nobody wants cookies, but requests reads them, and a date that http.cookiejar fails at makes it print a traceback.
        del self.headers["Set-Cookie"], self.headers["Set-Cookie2"]


def cut_short(body: bytes) -> bool:
    """Whether JSON ends too early. For responses whose end is the connection's: nothing else tells there."""
    try:
        json.loads(body)
    except UnicodeDecodeError as exc:
        return exc.end == len(body)
    except json.JSONDecodeError as exc:
        return exc.pos >= len(exc.doc.rstrip()) or exc.msg.startswith("Unterminated string")
    except RecursionError:
        pass
    return False
