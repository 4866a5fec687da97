"""Where tokens and locks are put, tried as root on nodes in a temporary folder and in private mount namespaces."""

import os
import stat
import subprocess
import sys

from support.cli import World
from support.devices import device
from support.fakes import ACME, jwt
from support.fault_proxy import FaultProxy
from support.namespaces import in_namespace

from vault_plugin.locks.singleflight import SingleFlight
from vault_plugin.settings.values import issuer
from vault_plugin.timing.deadline import Deadline
from vault_plugin.tokens.jwt import Kind


def test_a_device_is_written_to_and_stays_a_device(kv2: World) -> None:
    null = device(kv2.home, "null")
    for command in (("get", "--output", str(null)), ("get", "--format", "env", "--output", str(null))):
        done = kv2.run(*command)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert stat.S_ISCHR(null.lstat().st_mode)
    full = device(kv2.home, "full")
    assert kv2.run("get", "--output", str(full)).returncode == 74
    assert stat.S_ISCHR(full.lstat().st_mode)


def test_what_cannot_be_written_costs_no_request(kv2: World) -> None:
    (kv2.home / "folder").mkdir()
    os.mknod(kv2.home / "socket", stat.S_IFSOCK | 0o600)
    with FaultProxy(kv2.vault.address) as proxy:
        for name in ("folder", "socket", "missing/token", "folder/" + "x" * 256):
            done = kv2.run("get", "--output", str(kv2.home / name), VAULT_ADDR=proxy.address)
            assert (done.returncode, done.stdout) == (73, ""), name
            done = kv2.run(
                "get", "--format", "github", VAULT_ADDR=proxy.address, GITHUB_OUTPUT=str(kv2.home / name)
            )
            assert (done.returncode, done.stdout) == (73, ""), name
        assert proxy.requests == []
    assert kv2.endpoint.requests == 0
    assert stat.S_ISSOCK((kv2.home / "socket").lstat().st_mode)


def test_a_fifo_without_a_reader_ends_by_the_deadline(kv2: World) -> None:
    kv2.store()
    os.mkfifo(kv2.home / "fifo")
    done = kv2.run("get", "--deadline", "1", "--output", str(kv2.home / "fifo"))
    assert (done.returncode, done.stdout) == (74, "")
    assert stat.S_ISFIFO((kv2.home / "fifo").lstat().st_mode)


def test_a_lock_folder_alone_is_enough_where_nothing_else_can_be_written(kv2: World) -> None:
    script = f"""
        mkdir -p {kv2.home}/locks; mount --bind {kv2.home}/locks {kv2.home}/locks
        for mounted in / /tmp /var/tmp /dev/shm; do mount -o remount,ro,bind $mounted 2>/dev/null || true; done
        for folder in / /tmp /var/tmp /dev/shm {kv2.home}; do ! test -w $folder; done
        klearstack --help >/dev/null
        klearstack get --help >/dev/null
    """
    # Coverage could not write its data there, and would say so.
    unmeasured = {"COVERAGE_PROCESS_START": "", "COVERAGE_PROCESS_CONFIG": ""}
    done = in_namespace(kv2, script + "klearstack get", **unmeasured)
    assert (done.returncode, done.stderr, kv2.endpoint.mints) == (0, "", 1)
    done = in_namespace(kv2, script + "klearstack get", **unmeasured)  # no lock is needed
    assert (done.returncode, done.stderr, kv2.endpoint.mints) == (0, "", 1)
    done = in_namespace(kv2, script + "klearstack get --renew", KLEARSTACK_LOCK_DIR="")
    assert (done.returncode, done.stdout, kv2.endpoint.mints) == (73, "", 1)
    assert "KLEARSTACK_LOCK_DIR" in done.stderr


def test_no_temporary_folder_is_looked_for_before_it_is_needed(kv2: World) -> None:
    """Python's own search for one, which fails here, is not asked."""
    code = (
        "import sys, tempfile, runpy\n"
        "def none(): raise FileNotFoundError(2, 'no usable temporary directory')\n"
        "tempfile.gettempdir = tempfile._get_default_tempdir = none\n"
        "sys.argv = ['klearstack-vault', *sys.argv[1:]]\n"
        "runpy.run_module('vault_plugin', run_name='__main__')\n"
    )
    for arguments in (["--help"], ["get", "--help"], ["get"], ["get", "--output", str(kv2.home / "token")]):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], env=kv2.environ, capture_output=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, b""), arguments
    demo = subprocess.run(
        [sys.executable, "-c", code, "demo"], env=kv2.environ, capture_output=True, text=True, check=False
    )
    assert demo.returncode == 73
    assert "No temporary folder" in demo.stderr


NO_LOCKS = """
import errno, fcntl, os, sys
def refuse(*_): raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
fcntl.flock = refuse
from vault_plugin.cli import main
main(sys.argv[1:])
"""


def without_locks(world: World, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", NO_LOCKS, *arguments],
        env=world.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_without_locks_check_and_set_carries_on_alone(kv2: World) -> None:
    callers = [without_locks(kv2, "get") for _ in range(4)]
    ended = [(*caller.communicate(timeout=60), caller.returncode) for caller in callers]
    assert {code for _, _, code in ended} == {0}
    assert all(err.count("WARNING: No lock file can be created") <= 1 for _, err, _ in ended)
    assert any(str(kv2.home / "locks") in err for _, err, _ in ended)
    assert len({out for out, _, _ in ended}) == 1  # whoever came first in Vault wins


def test_without_locks_kv_v1_has_nothing_to_rely_on(kv2: World) -> None:
    kv1 = World(kv2.endpoint, kv2.vault, kv2.vault.mount("v1"), kv2.home)
    caller = without_locks(kv1, "get")
    out, err = caller.communicate(timeout=60)
    assert (caller.returncode, out, kv1.endpoint.requests) == (73, "", 0)
    assert str(kv1.home / "locks") in err


def test_a_memo_that_vault_rejects_is_dropped(kv2: World) -> None:
    path = ACME.path("klearstack", Kind.ACCESS)
    key = "\n".join((kv2.vault.address, "", kv2.mount, issuer(kv2.endpoint.url), path))
    locks = SingleFlight(str(kv2.home / "locks"))
    for text in ("garbage", "x" * 1000):
        with locks.lock(key, Deadline(5)) as handle:
            handle.write_memo(text)
        assert kv2.get("--renew")["source"] == "endpoint"
        with locks.lock(key, Deadline(5)) as handle:
            assert handle.memo is None


def test_a_bind_mounted_file_gets_the_token_with_one_warning(kv2: World) -> None:
    for name in ("source", "token"):
        (kv2.home / name).write_text(jwt() * 3)
    done = in_namespace(
        kv2, f"mount --bind {kv2.home}/source {kv2.home}/token; klearstack get --output {kv2.home}/token"
    )
    assert (done.returncode, done.stdout, done.stderr.count("rewritten in place")) == (0, "", 1)
    assert (kv2.home / "source").read_text() == f"{kv2.endpoint.issued[1]}\n"
    assert (kv2.home / "source").stat().st_mode & 0o777 == 0o600
