"""Connections that this host denies or cannot make: what is reported, and whether it is tried again."""

import errno
import os
import socket
import ssl
from collections.abc import Callable

import pytest

from vault_plugin.endpoint.client import EndpointSource
from vault_plugin.errors import KlearstackVaultError, SourceError
from vault_plugin.failures import is_shared
from vault_plugin.network import sockets
from vault_plugin.network.causes import Cause, failure_of
from vault_plugin.settings.proxies import Proxy
from vault_plugin.timing.clock import ServerClock
from vault_plugin.timing.deadline import Deadline
from vault_plugin.tokens.identity import Identity
from vault_plugin.vault.transport import Transport

SOCKET = "unix:///run/vault-proxy.sock"
PROXY = Proxy("proxy.example", 3128)
DENIED = (errno.EACCES, errno.EPERM)
LOCAL = (errno.EAGAIN, errno.EMFILE, errno.EADDRNOTAVAIL, errno.EPROTOTYPE)
Fail = Callable[[int], None]


@pytest.fixture
def fail(monkeypatch: pytest.MonkeyPatch) -> Fail:
    """Have each attempt to connect fail with that errno."""

    def fail_with(number: int) -> None:
        def connect(*_: object) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(socket.socket, "connect", connect)

    address = (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("192.0.2.1", 443))
    monkeypatch.setattr(sockets, "resolved", lambda *_: [address])
    return fail_with


def request(address: str, proxy: Proxy | None = None) -> tuple[KlearstackVaultError, int]:
    """The error of a request to Vault without a second retry, and how many pauses preceded a try."""
    slept: list[float] = []
    transport = Transport([address], ServerClock(), timeout=5, proxy=proxy, max_retries=1, sleep=slept.append)
    with pytest.raises(KlearstackVaultError) as caught:
        transport.request("GET", "/v1/x", {}, None, Deadline(60))
    return caught.value, len(slept)


def mint(proxy: Proxy | None = None) -> tuple[KlearstackVaultError, int]:
    """The error of a request to the endpoint, and how many pauses preceded a try."""
    slept: list[float] = []
    source = EndpointSource("https://api.example", ServerClock(), timeout=5, proxy=proxy, sleep=slept.append)
    with pytest.raises(KlearstackVaultError) as caught:
        source.obtain(Identity("26", "Acme"), Deadline(60), fallback=True)
    return caught.value, len(slept)


def test_a_denied_connection_to_vault_is_a_wrong_setting_and_is_not_tried_again(fail: Fail) -> None:
    for number in DENIED:
        fail(number)
        reason = os.strerror(number)
        for address, proxy, said in (
            (SOCKET, None, f"{SOCKET} failed: this process has no permission to connect ({reason})."),
            ("https://v.example", None, f"this process has no permission to connect ({reason})."),
            ("https://v.example", PROXY, f"no permission to connect to the proxy {PROXY} ({reason})."),
        ):
            error, pauses = request(address, proxy)
            assert said in str(error), (number, address)
            assert (error.exit_code, error.retryable, pauses) == (78, False, 0), (number, address)
            assert "allow" in error.hint.lower(), (number, address)


def test_a_denied_connection_to_the_endpoint_is_a_wrong_setting_and_is_not_tried_again(fail: Fail) -> None:
    for number in DENIED:
        fail(number)
        reason = os.strerror(number)
        for proxy, said in (
            (None, f"cannot be reached: this process has no permission to connect ({reason})."),
            (PROXY, f"this process has no permission to connect to the proxy {PROXY} ({reason})."),
        ):
            error, pauses = mint(proxy)
            assert said in str(error), (number, proxy)
            assert (error.exit_code, error.retryable, pauses) == (78, False, 0), (number, proxy)
            assert "Allow this user" in error.hint, (number, proxy)


def test_any_other_error_of_this_host_is_reported_in_its_words_and_tried_again(fail: Fail) -> None:
    for number in LOCAL:
        fail(number)
        reason = os.strerror(number)
        for (error, pauses), said in (
            (request(SOCKET), f"failed: the connection failed ({reason})."),
            (request("https://v.example", PROXY), f"the connection to the proxy {PROXY} failed ({reason})."),
            (mint(), f"failed ({reason})."),
            (mint(PROXY), f"the connection to the proxy {PROXY} failed ({reason})."),
        ):
            assert said in str(error), (number, said)
            assert (error.exit_code, error.retryable, pauses > 0) == (69, True, True), (number, said)


def test_what_fails_on_this_host_is_not_shared_with_other_processes(fail: Fail) -> None:
    for number in (*DENIED, *LOCAL):
        fail(number)
        for error, _ in (mint(), mint(PROXY)):
            assert isinstance(error, SourceError)
            assert error.failure is not None
            assert not is_shared(error.failure, 10), number


def test_below_a_file_there_is_no_socket(fail: Fail) -> None:
    for number in (errno.ENOENT, errno.ENOTDIR):
        fail(number)
        error, _ = request(SOCKET)
        assert "there is no socket at that path" in str(error), number
        assert error.exit_code == 69, number


def test_a_deadline_may_be_longer_than_a_socket_waits() -> None:
    with sockets.Socket() as connection, sockets.within(Deadline(999999 * 3600)):
        connection.limit_wait()
        assert connection.gettimeout() == sockets.LONGEST_WAIT


def test_the_number_of_an_error_of_openssl_is_no_errno() -> None:
    exc = ssl.SSLEOFError(errno.EPERM, "EOF occurred in violation of protocol")
    exc.reason = "UNEXPECTED_EOF_WHILE_READING"
    failure = failure_of(exc)
    assert (failure.cause, str(failure)) == (Cause.BROKEN, "the connection broke (SSLEOFError)")
