"""What other libraries log about our requests is dropped, for it may be a secret; what they log for others is not."""

import http.client
import io
import json
import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import urllib3
from support.cli import World
from support.drip import closing, serving

from vault_plugin.app import connect
from vault_plugin.errors import KlearstackVaultError
from vault_plugin.settings import Settings

CANARY = "hvs.CANARY7351"
JSON = "Content-Type: application/json\r\n"
# Each may hold what a server was sent, or what it issued: all that it sends before a body.
HEADS = {
    "malformed header": f"HTTP/1.1 200 OK\r\n{JSON}{CANARY} is no header\r\n",
    "malformed header of an error": f"HTTP/1.1 403 Forbidden\r\n{JSON}{CANARY} is no header\r\n",
    "folded header": f"HTTP/1.1 200 OK\r\n {CANARY}\r\n{JSON}",
    "redirect": f"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/{CANARY}\r\n",
    "busy": f"HTTP/1.1 429 {CANARY}\r\nRetry-After: 1\r\nX-Told: {CANARY}\r\n",
    "down": f"HTTP/1.1 503 {CANARY}\r\nRetry-After: 1\r\nX-Told: {CANARY}\r\n",
    "cookie": f"HTTP/1.1 200 OK\r\n{JSON}Set-Cookie: a={CANARY}; expires=Mon, 1 Jan {'9' * 5000}\r\n",
    "status line": f"{CANARY}\r\n",
    "both lengths": f"HTTP/1.1 200 OK\r\n{JSON}Content-Length: {CANARY}\r\nTransfer-Encoding: chunked\r\n",
}  # fmt: skip


@pytest.fixture
def root_log() -> Iterator[io.StringIO]:
    """All that reaches the root logger, as after `logging.basicConfig(level=logging.DEBUG)`."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    handler.setFormatter(logging.Formatter(logging.BASIC_FORMAT))
    before = logging.root.level
    logging.root.addHandler(handler)
    logging.root.setLevel(logging.DEBUG)
    yield text
    logging.root.setLevel(before)
    logging.root.removeHandler(handler)


def get(environ: dict[str, str], deadline: str = "30") -> None:
    """As a library's user does."""
    settings = Settings.from_env(environ | {"KLEARSTACK_DEADLINE": deadline})
    with connect(settings) as broker:
        broker.get(settings.identity())


def ask(url: str) -> None:
    """The host program's own request, by the library that we use, too."""
    with urllib3.PoolManager(retries=False) as pool:
        pool.request("GET", url)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("side", ["KLEARSTACK_URL", "VAULT_ADDR"])
def test_no_answer_of_either_side_is_logged(
    kv2: World, root_log: io.StringIO, capfd: pytest.CaptureFixture[str], side: str, head: str
) -> None:
    with closing(f"{HEADS[head]}\r\n{CANARY}".encode()) as url:
        with pytest.raises(KlearstackVaultError):
            get(kv2.environ | {side: url}, "1")
        logged = root_log.getvalue()
        ask_for_control = head.startswith("malformed")
        if ask_for_control:
            ask(url)
    assert logged.count("vault_plugin") == logged.count("\n")
    assert CANARY not in logged + "".join(capfd.readouterr())
    # The same answer, to the program itself.
    assert (CANARY in root_log.getvalue()) == ask_for_control


def test_a_token_that_comes_with_a_malformed_header_is_not_logged_either(
    kv2: World, root_log: io.StringIO
) -> None:
    pair = _minted(kv2)
    raw = json.dumps(pair)
    head = f"HTTP/1.1 200 OK\r\n{JSON}Content-Length: {len(raw)}\r\n{pair['access_token']} is no header\r\n"
    with closing(f"{head}\r\n{raw}".encode()) as url:
        get(kv2.environ | {"KLEARSTACK_URL": url})
    assert not [one for one in pair.values() if one in root_log.getvalue()]


def test_what_the_program_itself_asks_for_meanwhile_is_logged(kv2: World, root_log: io.StringIO) -> None:
    arrived = threading.Event()

    def answer(connection: socket.socket, over: threading.Event) -> None:
        arrived.set()
        over.wait(60)

    raw = f"{HEADS['malformed header']}\r\n{CANARY}".encode()

    def ours(url: str) -> None:
        with suppress(KlearstackVaultError):
            get(kv2.environ | {"KLEARSTACK_URL": url}, "5")

    with closing(raw) as theirs:
        with serving(answer) as url:
            thread = threading.Thread(target=ours, args=(url,))
            thread.start()
            assert arrived.wait(60)
            ask(theirs)
        thread.join()
    assert root_log.getvalue().count("Failed to parse headers") == 1


def test_a_filter_that_a_program_takes_off_is_there_again(kv2: World, root_log: io.StringIO) -> None:
    for logger in list(logging.root.manager.loggerDict.values()):
        if isinstance(logger, logging.Logger) and logger.name.startswith("urllib3"):
            logger.filters.clear()
    with closing(f"{HEADS['malformed header']}\r\n".encode()) as url, pytest.raises(KlearstackVaultError):
        get(kv2.environ | {"KLEARSTACK_URL": url}, "1")
    assert CANARY not in root_log.getvalue()


def test_where_a_program_has_http_client_print_all_requests_ours_are_not_among_them(
    kv2: World, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(http.client.HTTPConnection, "debuglevel", 1)
    get(kv2.environ)
    get(kv2.environ)
    assert capfd.readouterr() == ("", "")


def _minted(kv2: World) -> dict[str, Any]:
    """A pair of tokens, as the endpoint answers it."""
    with urllib3.PoolManager() as pool:
        fields = {"user_id": "26", "company_name": "Acme"}
        url = f"{kv2.endpoint.url}/access/klearstack/getaccesstokenfromuserid"
        answer: dict[str, Any] = pool.request("POST", url, fields=fields, encode_multipart=False).json()
        return answer
