"""Where a file system knows no locks: a real Vault's check-and-set decides between several writers, or nobody writes."""

import errno
import fcntl
import os
import shlex
import sys
from typing import NoReturn

import pytest
from support import lockless, notes
from support.cli import World
from support.namespaces import in_namespace

from vault_plugin.app import connect
from vault_plugin.errors import OutputError
from vault_plugin.settings import Settings
from vault_plugin.tokens import Kind


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


@pytest.mark.parametrize("locking", [errno.ENOLCK, errno.EOPNOTSUPP], ids=["ENOLCK", "EOPNOTSUPP"])
def test_on_a_real_file_system_without_locks(kv2: World, locking: int) -> None:
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        raise notes.skipped("there is no /dev/fuse", "a real file system without locks")
    locks, kv1 = kv2.home / "locks", kv2.vault.mount("v1")
    script = f"""mkdir {locks}
        timeout 60 {shlex.quote(sys.executable)} -S {lockless.__file__} {locks} {locking} & server=$!
        until mountpoint -q {locks}; do sleep 0.02; done
        klearstack get
        code=0; KLEARSTACK_VAULT_MOUNT={kv1} klearstack get || code=$?
        echo $code
        kill $server
    """
    done = in_namespace(kv2, script)
    assert done.stdout.split() == [kv2.endpoint.issued[1], "73"]
    assert done.stderr.count(f"No lock file can be made in {locks} ({os.strerror(locking)}).") == 2
    assert done.stderr.count("WARNING") == 1
    assert (done.returncode, kv2.endpoint.mints) == (0, 1)
