"""What a service tells systemd, and where; that it arrives is tests/integration's business."""

import os
import socket
from typing import Any, Self

import pytest

from vault_plugin.bulk.systemd import Notifier


class FakeSocket:
    """Takes datagrams, or fails to."""

    sent: list[tuple[str, str]]
    failure: OSError | None

    def __init__(self, family: int, kind: int) -> None:
        assert (family, kind) == (socket.AF_UNIX, socket.SOCK_DGRAM)
        if self.failure:
            raise self.failure

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.__class__.sent.append(("closed", ""))

    def sendto(self, data: bytes, address: str) -> None:
        self.__class__.sent.append((address, data.decode()))


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    FakeSocket.sent, FakeSocket.failure = [], None
    monkeypatch.setattr(socket, "socket", FakeSocket)
    return FakeSocket.sent


def tell_all(notifier: Notifier) -> None:
    notifier.ready()
    notifier.reloading()
    notifier.send_status("3 tokens are good", alive=True)
    notifier.send_status("a worker hangs", alive=False)
    notifier.stopping()


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}])
def test_without_a_service_manager_nothing_is_told(sent: list[Any], environ: dict[str, str]) -> None:
    tell_all(Notifier(environ))
    assert sent == []


@pytest.mark.parametrize(
    ("path", "address"),
    [("/run/systemd/notify", "/run/systemd/notify"), ("@abstract/name", "\0abstract/name"), ("@", "\0")],
)
def test_a_socket_may_be_a_file_or_an_abstract_one(
    sent: list[tuple[str, str]], path: str, address: str
) -> None:
    Notifier({"NOTIFY_SOCKET": path}).ready()
    assert sent == [(address, "READY=1"), ("closed", "")]


def test_what_is_told_is_as_sd_notify_has_it(
    sent: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.monotonic_ns", lambda: 1_234_567_999)
    tell_all(Notifier({"NOTIFY_SOCKET": "/s"}))
    assert [text for address, text in sent if address == "/s"] == [
        "READY=1",
        "RELOADING=1\nMONOTONIC_USEC=1234567",
        "WATCHDOG=1\nSTATUS=3 tokens are good",
        "STATUS=a worker hangs",
        "STOPPING=1",
    ]


def test_a_service_manager_that_does_not_listen_is_no_failure(sent: list[Any]) -> None:
    FakeSocket.failure = ConnectionRefusedError()
    tell_all(Notifier({"NOTIFY_SOCKET": "/s"}))
    assert sent == []


def test_the_watchdog_wants_to_hear_twice_as_often_as_it_bites_if_it_is_ours() -> None:
    for usec, pid, seconds in (
        ("30000000", None, 15.0),
        ("30000000", "", 15.0),
        ("30000000", str(os.getpid()), 15.0),
        ("1", None, 5e-7),
        ("30000000", str(os.getpid() + 1), None),
        ("30000000", "x", None),
        ("0", None, None),
        ("", None, None),
        ("-1", None, None),
        ("1.5", None, None),
        ("\u00b2", None, None),
        (None, None, None),
    ):
        environ = {"WATCHDOG_USEC": usec, "WATCHDOG_PID": pid}
        notifier = Notifier({name: text for name, text in environ.items() if text is not None})
        assert notifier.watchdog == seconds, (usec, pid)


def test_the_environment_is_the_processs_unless_another_is_given(
    sent: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/s")
    monkeypatch.setenv("WATCHDOG_USEC", "2000000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    notifier = Notifier()
    notifier.ready()
    assert (notifier.watchdog, sent[0]) == (1.0, ("/s", "READY=1"))
