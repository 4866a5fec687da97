"""No test of this room reaches a network, or sees the settings of whoever runs it."""

import os
import socket
from pathlib import Path
from typing import NoReturn

import hypothesis
import pytest

hypothesis.settings.register_profile("unit", deadline=None)  # a slow machine is no failure
hypothesis.settings.load_profile("unit")


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
        if name.startswith(("KLEARSTACK_", "BAO_", "VAULT_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(_empty_home(tmp_path_factory)))


def _empty_home(factory: pytest.TempPathFactory) -> Path:
    home = factory.getbasetemp() / "home"
    home.mkdir(exist_ok=True)
    return home
