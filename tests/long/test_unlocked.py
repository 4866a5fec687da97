"""A real file system without locks, made by FUSE, which not every machine has."""

import errno
import os
import shlex
import sys

import pytest
from support import lockless, notes
from support.cli import World
from support.namespaces import in_namespace


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
    assert done.stderr.count(f"No lock file can be created in {locks} ({os.strerror(locking)}).") == 2
    assert done.stderr.count("WARNING") == 1
    assert (done.returncode, kv2.endpoint.mints) == (0, 1)
