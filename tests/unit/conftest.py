"""No test of this room reaches a network, or sees the settings of whoever runs it."""

import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from support.fakes import Done, Run

from vault_plugin import cli
from vault_plugin.settings import environment


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_kwargs: object) -> NoReturn:
        pytest.fail("a unit test asked for the network")  # no Exception: nothing under test can swallow it

    for name in ("connect", "connect_ex", "sendto", "bind"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("getaddrinfo", "gethostbyname"):
        monkeypatch.setattr(socket, name, refuse)


@pytest.fixture(autouse=True)
def _clean_environ(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    for name in os.environ:
        if name.startswith(("KLEARSTACK_", "BAO_", "VAULT_", "ACTIONS_ID_TOKEN_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(_empty_home(tmp_path_factory)))


def _empty_home(factory: pytest.TempPathFactory) -> Path:
    home = factory.getbasetemp() / "home"
    home.mkdir(exist_ok=True)
    return home


@pytest.fixture(autouse=True)
def _no_credential_is_rewritten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "REWRITTEN", 0.0)  # so that none is waited for


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*argv: str) -> Done:
        with pytest.raises(SystemExit) as caught:
            cli.main(argv)
        assert isinstance(caught.value.code, int | None)
        return Done(caught.value.code or 0, *capsys.readouterr())

    return call


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    ours = logging.getLogger("vault_plugin")
    before = ours.level, list(ours.handlers)
    yield
    ours.setLevel(before[0])
    ours.handlers[:] = before[1]
