"""The endpoint and Vault through a real proxy that requires a login, and through what is none."""

import json
import logging
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.cli import World, kept, run
from support.drip import closing as ending
from support.drip import dripping, serving
from support.fakes import ACME
from support.http_proxy import HttpProxy, tinyproxy
from support.ports import own_port
from support.punctual import SLACK
from support.tls import Doors, behind_tls, doors_of_openbao, pki
from support.vault import Vault

from vault_plugin.app import connect
from vault_plugin.endpoint.client import EndpointSource
from vault_plugin.errors import (
    KlearstackVaultError,
    SourceError,
    SourceSettingsError,
    StoreError,
    StoreSettingsError,
)
from vault_plugin.settings import Settings
from vault_plugin.settings.proxies import Proxy
from vault_plugin.timing.clock import ServerClock
from vault_plugin.timing.deadline import Deadline
from vault_plugin.vault.transport import Transport

NAME = "127.1"  # of 127.0.0.1, which the rules of NO_PROXY do not take for this host


@dataclass
class Far:
    """An endpoint and a Vault with TLS, and the proxy before them."""

    files: dict[str, str]
    doors: Doors
    endpoint: str
    proxy: HttpProxy
    mount: str

    def environ(self, home: Path, **more: str) -> dict[str, str]:
        return kept() | {
            "HOME": str(home),
            "KLEARSTACK_LOCK_DIR": str(home / "locks"),
            "KLEARSTACK_URL": self.endpoint.replace("127.0.0.1", NAME),
            "KLEARSTACK_CACERT": self.files["ca"],
            "KLEARSTACK_USER_ID": "26",
            "KLEARSTACK_COMPANY_NAME": home.name,
            "KLEARSTACK_VAULT_MOUNT": self.mount,
            "VAULT_ADDR": self.doors["tls"].replace("127.0.0.1", NAME),
            "VAULT_CACERT": self.files["ca"],
            "VAULT_TOKEN": self.doors.root_token,
            **more,
        }

    def sides(self) -> tuple[str, str]:
        """What the proxy is asked for, for the endpoint and for Vault."""
        return f"{NAME}:{self.endpoint.rpartition(':')[2]}", f"{NAME}:{self.doors['tls'].rpartition(':')[2]}"


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Far]:
    folder = tmp_path_factory.mktemp("far")
    with ExitStack() as stack:
        proxy = stack.enter_context(tinyproxy(folder, "ci", "CANARY42"))
        files = pki(folder, "127.0.0.1", NAME)
        doors = stack.enter_context(doors_of_openbao(files, folder))
        endpoint = stack.enter_context(behind_tls(files))
        vault = stack.enter_context(closing(Vault(doors["tls"], doors.root_token, verify=files["ca"])))
        yield Far(files, doors, endpoint, proxy, vault.mount("v2"))


def ask_vault(url: str, far_ca: str, proxy: Proxy, seconds: float = 5) -> object:
    with closing(Transport([url], ServerClock(), timeout=5, ca_file=far_ca, proxy=proxy)) as transport:
        return transport.request("GET", "/v1/sys/seal-status", {}, None, Deadline(seconds))


def ask_endpoint(url: str, far_ca: str, proxy: Proxy, seconds: float = 5) -> object:
    with closing(EndpointSource(url, ServerClock(), timeout=5, ca_file=far_ca, proxy=proxy)) as source:
        return source.obtain(ACME, Deadline(seconds))


def ask_both(far: Far, proxy: str, seconds: float = 5, **urls: str) -> list[KlearstackVaultError]:
    """The errors of both sides through that proxy."""
    found: list[KlearstackVaultError] = []
    for ask, url in (
        (ask_endpoint, urls.get("url", far.endpoint)),
        (ask_vault, urls.get("url", far.doors["tls"])),
    ):
        with pytest.raises((SourceError, StoreError)) as caught:
            ask(url, far.files["ca"], Proxy.read(proxy), seconds)
        found.append(caught.value)
    return found


def test_https_proxy_leads_to_both_sides_and_no_proxy_past_it(
    far: Far, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def asked(flags: dict[str, str] | None = None, **environ: str) -> set[str]:
        """Whom the proxy is asked for by a call that mints and one that reads."""
        before = len(far.proxy.connects())
        settings = Settings.from_env(far.environ(tmp_path, **environ), **(flags or {}))
        assert "CANARY" not in repr(settings)
        with caplog.at_level(logging.DEBUG):
            for renew in (True, False):
                with connect(settings) as broker:
                    assert broker.get(settings.identity(), renew=renew).access.token.value.reveal()
        return set(far.proxy.connects()[before:])

    url, (endpoint, vault) = far.proxy.url, far.sides()
    dead = f"http://127.0.0.1:{own_port()}"
    assert asked(HTTPS_PROXY=url) == {endpoint, vault}
    assert asked(https_proxy=url.removeprefix("http://"), no_proxy=f"x.example,{endpoint}") == {vault}
    assert asked(HTTPS_PROXY=url, NO_PROXY="*") == set()
    assert asked(HTTPS_PROXY=url, VAULT_PROXY_ADDR="none") == {endpoint}
    # Vault's own proxy is used for all addresses, as Vault's tools do it.
    assert asked(VAULT_HTTP_PROXY=url, NO_PROXY="*") == {vault}
    assert asked(HTTPS_PROXY=url, BAO_PROXY_ADDR=url, VAULT_HTTP_PROXY=dead) == {endpoint, vault}
    # Flags rank above variables, and that of the endpoint is the endpoint's alone.
    assert asked({"proxy": "none", "vault_proxy": "none"}, HTTPS_PROXY=dead, VAULT_PROXY_ADDR=dead) == set()
    assert asked({"proxy": "none"}, HTTPS_PROXY=url) == {vault}
    assert asked({"proxy": "none"}) == set()
    assert caplog.records
    assert "CANARY" not in caplog.text
    assert "Y2k6" not in caplog.text  # the login, encoded


def test_a_whole_process_goes_through_the_proxy_and_tells_nothing_of_its_login(
    far: Far, tmp_path: Path
) -> None:
    environ = far.environ(tmp_path, HTTPS_PROXY=far.proxy.url)
    before = len(far.proxy.connects())
    done = run("get", "-vv", environ=environ)
    assert done.returncode == 0, done.stderr
    assert set(far.proxy.connects()[before:]) == set(far.sides())
    refused = run("get", "--format", "json", environ=environ | {"HTTPS_PROXY": far.proxy.address})
    assert (refused.returncode, json.loads(refused.stdout)["error"]["code"]) == (78, "vault_settings")
    for text in (done.stderr, refused.stdout + refused.stderr):
        assert not re.search("CANARY|Y2k6", text)


def test_a_vault_without_tls_is_never_asked_through_a_proxy(kv2: World, far: Far, tmp_path: Path) -> None:
    dead = f"http://127.0.0.1:{own_port()}"
    kv2.get(VAULT_PROXY_ADDR=dead, HTTPS_PROXY=dead)
    environ = far.environ(tmp_path, VAULT_ADDR=far.doors["unix"], VAULT_PROXY_ADDR=dead)
    assert run("get", environ=environ).returncode == 0


def test_what_a_proxy_says_is_told_with_its_address_and_without_its_login(far: Far, tmp_path: Path) -> None:
    login = "http://ci:CANARY42@"
    closed = own_port()
    with ExitStack() as stack:
        picky = stack.enter_context(tinyproxy(tmp_path, "ci", "CANARY42", "ConnectPort 1"))
        ssh = stack.enter_context(serving(lambda one, _: one.sendall(b"SSH-2.0-x\r\n"), at_once=True))
        eager = stack.enter_context(ending(b"HTTP/1.1 200 OK\r\n\r\nwelcome"))
        eager_by_one = stack.enter_context(ending(b"HTTP/1.1 200 OK\r\n\r\nw"))
        cut = stack.enter_context(ending(b"HTTP/1.1 200 OK\r\nServer: "))
        silent = stack.enter_context(ending(b""))
        web = stack.enter_context(ending(b"HTTP/1.1 501 Unsupported method\r\n\r\n"))
        cases: list[tuple[str, str, bool, dict[str, str]]] = [
            (far.proxy.address, "requires a login, or rejects the one given (status 407)", True, {}),
            (far.proxy.url.replace("CANARY42", "CANARY43"), "rejects the one given (status 401)", True, {}),
            (f"{login}127.0.0.1:{closed}", "refused the connection", False, {}),
            (f"{login}nosuch.invalid:3128", "does not resolve", False, {}),
            (picky.url, "does not allow connections to it (status 403)", True, {}),
            (web.replace("http://", login), "does not allow connections to it (status 501)", True, {}),
            (
                far.proxy.url,
                "could not connect to it (status 500)",
                False,
                {"url": f"https://127.0.0.1:{closed}"},
            ),
            (ssh.replace("http://", login), "is not an HTTP proxy", True, {}),
            (eager.replace("http://", login), "is not an HTTP proxy", True, {}),
            (eager_by_one, "is not an HTTP proxy", True, {}),
            (cut, "closed the connection", False, {}),
            (silent.replace("http://", login), "closed the connection", False, {}),
        ]
        for url, said, of_settings, urls in cases:
            errors = ask_both(far, url, 0.6, **urls)
            if any("did not respond in time" in str(error) for error in errors):  # on a loaded machine
                errors = ask_both(far, url, 10, **urls)
            for error in errors:
                text = str(error) + error.hint
                assert said in text, (url, text)
                assert f"{Proxy.read(url)}" in text
                assert "CANARY" not in text
                assert isinstance(error, SourceSettingsError | StoreSettingsError) is of_settings, text
                assert error.retryable is not of_settings


def test_no_proxy_outlasts_the_deadline(far: Far) -> None:
    with ExitStack() as stack:
        for where in ("status", "headers", "nothing"):
            url = stack.enter_context(dripping(where))
            for ask, server in ((ask_endpoint, far.endpoint), (ask_vault, far.doors["tls"])):
                started = time.monotonic()
                with pytest.raises((SourceError, StoreError), match=r"the proxy .* did not respond in time"):
                    ask(server, far.files["ca"], Proxy.read(url), 0.4)
                assert time.monotonic() - started < 0.4 + SLACK


def test_a_proxy_that_answers_in_the_servers_place_is_found_out(far: Far, tmp_path: Path) -> None:
    foreign = pki(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(foreign["server"], foreign["server-key"])
    received: list[bytes] = []

    def intercept(connection: socket.socket, _: threading.Event) -> None:
        connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        with suppress(OSError), context.wrap_socket(connection, server_side=True) as inner:
            received.append(inner.recv(100))

    with serving(intercept) as url:
        for error in ask_both(far, url):
            assert "does not verify" in str(error)
            assert isinstance(error, SourceSettingsError | StoreSettingsError)
    assert received == []


def test_an_unknown_proxy_is_one_line_and_nothing_is_contacted(kv2: World) -> None:
    done = kv2.run("get", VAULT_PROXY_ADDR="socks5://u:CANARY@p.example")
    assert (done.returncode, done.stdout, kv2.endpoint.requests) == (78, "", 0)
    assert done.stderr.count("\n") == 1
    assert "VAULT_PROXY_ADDR" in done.stderr
    assert "must look like http://[user:password@]host[:port]" in done.stderr
    assert "CANARY" not in done.stderr
