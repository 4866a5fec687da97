"""Where a file system knows no locks: a real Vault's check-and-set decides between several writers, or nobody writes."""

import errno
import fcntl
import os
from typing import NoReturn

import pytest
from support.cli import World

from vault_plugin.app import connect
from vault_plugin.errors import OutputError
from vault_plugin.settings import Settings
from vault_plugin.tokens.jwt import Kind


def test_without_locks_kv_v2_is_written_with_one_warning_and_kv_v1_is_not(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_: object) -> NoReturn:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    settings = Settings.from_env(world.environ)
    with connect(settings) as broker:
        if world.vault.is_v2(world.mount):
            for _ in range(2):
                broker.get(settings.identity(), (Kind.ACCESS,), renew=True)
            assert caplog.text.count("Without locks") == 1
            assert world.endpoint.mints == 2
        else:
            with pytest.raises(OutputError, match="No locks available"):
                broker.get(settings.identity(), (Kind.ACCESS,), renew=True)
            assert world.endpoint.mints == 0
