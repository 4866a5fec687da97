"""The proxy that other tests trust: what it lets through, and what it does to whom."""

import json
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import pytest
from support.fault_proxy import FaultProxy
from support.vault import Vault


class Client:
    """One keep-alive connection through the proxy."""

    def __init__(self, vault: Vault, connection: HTTPConnection) -> None:
        self._headers = {"X-Vault-Token": vault.root_token}
        self._connection = connection

    def ask(self, method: str, path: str, **data: str) -> tuple[int, Any]:
        body = json.dumps({"data": data}) if data else None
        self._connection.request(method, f"/v1/{path}", body, self._headers)
        answer = self._connection.getresponse()
        return answer.status, json.loads(answer.read() or b"null")


@pytest.fixture
def proxy(bao: Vault) -> Iterator[FaultProxy]:
    with FaultProxy(bao.address) as proxy:
        yield proxy


@pytest.fixture
def client(bao: Vault, proxy: FaultProxy) -> Iterator[Client]:
    with closing(HTTPConnection(urlsplit(proxy.address).netloc, timeout=5)) as connection:
        yield Client(bao, connection)


def test_requests_pass_on_one_connection_whatever_their_length(
    bao: Vault, proxy: FaultProxy, client: Client
) -> None:
    mount, long = bao.mount("v2"), "x" * 100_000  # the server sends that in chunks
    assert client.ask("POST", f"{mount}/data/a", text=long)[0] == 200
    for _ in range(2):
        assert client.ask("GET", f"{mount}/data/a")[1]["data"]["data"] == {"text": long}
    assert client.ask("DELETE", f"{mount}/data/a") == (204, None)
    assert client.ask("GET", f"{mount}/data/b")[0] == 404
    assert [line.split()[0] for line in proxy.requests] == ["POST", "GET", "GET", "DELETE", "GET"]
    assert proxy.connections() == 1


@pytest.mark.parametrize(("when", "executed"), [("before", False), ("after", True)])
def test_a_reset_loses_the_request_or_its_answer(
    bao: Vault, proxy: FaultProxy, client: Client, when: str, executed: bool
) -> None:
    mount = bao.mount("v2")
    proxy.reset(lambda line: "/data/" in line, when=when, times=1)
    assert client.ask("GET", f"{mount}/config")[0] == 200
    with pytest.raises(ConnectionResetError):
        client.ask("POST", f"{mount}/data/a", name="value")
    assert bao.read(mount, "a") == ({"name": "value"} if executed else None)
    assert proxy.all_happened()


@pytest.mark.parametrize(("when", "executed"), [("before", False), ("after", True)])
def test_another_answer_than_the_servers(
    bao: Vault, proxy: FaultProxy, client: Client, when: str, executed: bool
) -> None:
    mount = bao.mount("v2")
    proxy.answer(lambda line: line.startswith("POST"), 503, when=when, times=1, body=b'"canned"')
    assert client.ask("POST", f"{mount}/data/a", name="value") == (503, "canned")
    assert bao.read(mount, "a") == ({"name": "value"} if executed else None)
    assert client.ask("POST", f"{mount}/data/a", name="other")[0] == 200
    assert bao.read(mount, "a") == {"name": "other"}
