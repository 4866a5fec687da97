"""No test of this room reaches a network, or sees the settings of whoever runs it."""

import logging
import os
import socket
from collections.abc import Iterator
from typing import NoReturn

import pytest
from support.fakes import Done, Run

from vault_plugin import cli
from vault_plugin.settings import environment


@pytest.fixture(autouse=True)
def _own_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    def refuse(*_args: object, **_kwargs: object) -> NoReturn:
        pytest.fail("a unit test asked for the network")  # no Exception: nothing under test can swallow it

    for name in ("connect", "connect_ex", "sendto", "bind"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("getaddrinfo", "gethostbyname"):
        monkeypatch.setattr(socket, name, refuse)
    for name in os.environ:
        if name.startswith(("KLEARSTACK_", "BAO_", "VAULT_", "ACTIONS_ID_TOKEN_")):
            monkeypatch.delenv(name)
    home = tmp_path_factory.getbasetemp() / "home"
    home.mkdir(exist_ok=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr(environment, "REWRITTEN", 0.0)  # so that no credential is waited for
    ours = logging.getLogger("vault_plugin")
    before = ours.level, list(ours.handlers)
    yield
    ours.setLevel(before[0])
    ours.handlers[:] = before[1]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*argv: str) -> Done:
        with pytest.raises(SystemExit) as caught:
            cli.main(argv)
        assert isinstance(caught.value.code, int | None)
        return Done(caught.value.code or 0, *capsys.readouterr())

    return call
