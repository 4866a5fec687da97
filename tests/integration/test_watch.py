"""`klearstack-vault watch` as a service: tokens stay good, files fresh, and systemd, Prometheus and hooks hear of it."""

import os
import pwd
import re
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

import pytest
from support.cli import World, start
from support.leaks import leaked, watched_processes
from support.ports import own_port
from support.sampling import Sampler
from support.vault import Vault
from support.waiting import until

from vault_plugin.demo.embedded import openbao
from vault_plugin.demo.simulator import Simulator


class Watch:
    """A running `watch`, and what it has said to systemd so far."""

    def __init__(self, world: World, process: subprocess.Popen[str], said: list[str], port: int) -> None:
        self.world, self.process, self.said, self._port = world, process, said, port

    def ready(self) -> None:
        until(lambda: "READY=1" in self.said)

    def end(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        """Exit code and standard error, without what it says at the start and of each new manifest."""
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=60)
        where = f"metrics are at http://127.0.0.1:{self._port}/metrics"
        rest, starts = re.subn(rf"klearstack-vault: keeping the tokens of \d+ identit\w+; {where}\n", "", err)
        assert (out, starts > 0) == ("", True)
        return self.process.returncode, rest

    def serves(self) -> bool:
        """Whether its metrics can be had yet."""
        try:
            return bool(self.metrics())
        except OSError:
            return False

    def metrics(self) -> dict[str, float]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        assert leaked(self.world, self.world.endpoint, text) == []
        return {name: float(value) for name, value in re.findall(r"(?m)^(klearstack\S+) (\S+)$", text)}


@contextmanager
def watching(world: World, text: str, *options: str, **environ: str) -> Iterator[Watch]:
    """`watch` over a manifest of this text, which systemd would have started."""
    path, port = world.home / "watched.yaml", own_port()
    path.write_text(text)
    notify = world.home / "notify"
    notify.unlink(missing_ok=True)
    said: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(str(notify))

        def listen() -> None:
            while heard := ear.recv(4096):
                said.extend(heard.decode().split("\n"))

        listener = threading.Thread(target=listen)
        listener.start()
        process = start(
            "watch",
            str(path),
            "--metrics",
            str(port),
            *options,
            environ=world.environ | {"NOTIFY_SOCKET": str(notify)} | environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            with process:
                try:
                    yield Watch(world, process, said, port)
                finally:
                    process.kill()
        finally:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as mouth:
                mouth.sendto(b"", str(notify))
            listener.join()


def expiries(watch: Watch) -> dict[str, float]:
    """When each identity's token expires (Unix seconds), by its label."""
    shown = re.compile(r"klearstack_vault_token_expiry_timestamp_seconds\{(.*)\}")
    found = {shown.fullmatch(name): value for name, value in watch.metrics().items()}
    return {match[1]: value for match, value in found.items() if match}


def users(*numbers: int, **fields: str) -> str:
    more = "".join(f", {name}: '{value}'" for name, value in fields.items())
    rows = "".join(f"- {{user_id: {number}, company_name: Acme{more}}}\n" for number in numbers)
    return f"identities:\n{rows}"


def test_no_token_is_lacking_at_any_second_and_each_is_renewed_at_two_thirds(kv2: World) -> None:
    kv2.endpoint.access_ttl = 18
    with watching(kv2, users(*range(30))) as watch:
        watch.ready()
        until(lambda: kv2.endpoint.mints >= 30)
        began = time.monotonic()
        until(lambda: len(expiries(watch)) == 30)
        with Sampler(kv2.vault, kv2.mount, range(30)) as sampler:
            until(lambda: len(sampler.samples) >= 29)
        metrics, left = watch.metrics(), [at - time.time() for at in expiries(watch).values()]
        seconds = time.monotonic() - began
        until(lambda: watch.metrics()["klearstack_vault_mints_total"] == kv2.endpoint.mints)
        code, err = watch.end()
    assert (code, err, sampler.lacking) == (0, "", 0)
    assert len(left) == 30
    assert all(-1 < one <= 19 for one in left)  # the metrics may be older than this moment
    # A renewal every 11.4 to 12.6 s: after 28 s, the first minting and two more.
    assert 3 * 30 <= metrics["klearstack_vault_mints_total"] <= 30 * (2 + seconds / 11.4)
    assert leaked(kv2, kv2.endpoint, "".join(watch.said) + err) == []


def test_while_the_endpoint_is_gone_it_is_told_once_and_then_all_recover(bao: Vault, tmp_path: Path) -> None:
    port = own_port()
    endpoint = Simulator(port=port, access_ttl=6).__enter__()
    world = World(endpoint, bao, bao.mount("v2"), tmp_path)

    def lefts() -> list[float]:
        return [at - time.time() for at in expiries(watch).values()]

    with watching(world, users(*range(10)), "--concurrency", "4") as watch:
        watch.ready()
        endpoint.__exit__()
        until(
            lambda: (
                watch.metrics().get('klearstack_vault_failures_total{code="endpoint_unavailable"}', 0) > 10
            )
        )
        until(lambda: min(lefts()) < 0)
        with Simulator(port=port, access_ttl=900) as again:
            until(lambda: again.mints >= 10)
            until(lambda: min(lefts()) > 0)
            code, err = watch.end()
    assert (code, again.mints) == (0, 10)
    warnings = [line for line in err.splitlines() if "WARNING" in line]
    assert ["cannot be reached" in line for line in warnings] == [True, False]
    assert "all tokens can be renewed again" in warnings[1]


def test_it_survives_an_outage_of_vault(tmp_path: Path) -> None:
    with Simulator(access_ttl=8) as endpoint, openbao() as first:
        vault = Vault(first.address, first.root_token)
        world = World(endpoint, vault, "secret", tmp_path)
        with watching(world, users(1, 2), KLEARSTACK_DEADLINE="3", KLEARSTACK_TIMEOUT="1") as watch:
            watch.ready()
            os.kill(first.pid, signal.SIGSTOP)  # it answers nobody, as behind a broken network
            try:
                until(
                    lambda: watch.metrics().get(
                        'klearstack_vault_failures_total{code="vault_unavailable"}', 0
                    )
                )
                assert watch.process.poll() is None
            finally:
                os.kill(first.pid, signal.SIGCONT)
            mints = endpoint.mints
            until(lambda: endpoint.mints >= mints + 2)
            code, _ = watch.end()
        assert code == 0
        vault.close()


def test_files_are_private_whole_and_written_only_when_they_change(kv2: World) -> None:
    kv2.endpoint.access_ttl = 6
    file = kv2.home / "tokens" / "Acme" / "1"
    template = f"{kv2.home}/tokens/{{company_name}}/{{user_id}}"
    with watching(kv2, users(1, 2, file=template)) as watch:
        watch.ready()
        seen: set[str] = set()

        def has_changed_twice() -> bool:
            seen.add(file.read_text())  # never empty, never half
            return len(seen) == 3

        assert file.stat().st_mode & 0o777 == 0o600
        until(has_changed_twice)
        assert watch.end() == (0, "")
    assert len(seen) == 3
    assert seen <= set(kv2.endpoint.issued)
    assert [path.name for path in sorted(file.parent.iterdir())] == ["1", "2"]
    kv2.endpoint.access_ttl = 900
    kv2.get("--renew", KLEARSTACK_USER_ID="1")
    with watching(kv2, users(1, file=template)) as watch:
        watch.ready()
        written = file.stat().st_mtime_ns
        assert file.read_text() == kv2.get(KLEARSTACK_USER_ID="1")["access_token"]
        watch.end()
    with watching(kv2, users(1, file=template)) as watch:
        watch.ready()
        watch.end()
    assert file.stat().st_mtime_ns == written
    with watching(kv2, users(1, file=template), "--mode", "0640") as watch:  # the same token, for others
        watch.ready()
        watch.end()
    assert file.stat().st_mode & 0o777 == 0o640


@pytest.mark.skipif(os.getuid() != 0, reason="only root may give files away")
def test_files_go_to_whom_they_are_for(kv2: World) -> None:
    nobody = pwd.getpwnam("nobody")
    file = kv2.home / "token"
    options = ("--owner", f"nobody:{nobody.pw_gid}", "--mode", "0440")
    with watching(kv2, users(1, file=str(file)), *options) as watch:
        watch.ready()
        watch.end()
    about = file.stat()
    assert (about.st_uid, about.st_gid, about.st_mode & 0o777) == (nobody.pw_uid, nobody.pw_gid, 0o440)
    with watching(kv2, users(1, file=str(file)), "--owner", "0", "--mode", "0440") as watch:
        watch.ready()
        watch.end()
    assert (file.stat().st_uid, file.stat().st_mtime_ns > about.st_mtime_ns) == (0, True)


def test_a_file_that_cannot_be_written_does_not_keep_the_token_from_vault(kv2: World) -> None:
    (kv2.home / "no-folder").write_text("")
    file = str(kv2.home / "no-folder" / "token")
    with watching(kv2, users(1, file=file) + "- {user_id: 2, company_name: Acme}\n") as watch:
        watch.ready()
        assert watch.metrics()['klearstack_vault_failures_total{code="output_not_created"}'] >= 1
        code, err = watch.end()
    assert code == 0
    assert "line 2: No file can be created in" in err
    assert kv2.vault.read(kv2.mount, "klearstack/Acme/1/access") is not None
    assert kv2.endpoint.mints == 2


def test_the_command_after_a_change_knows_no_secret(kv2: World) -> None:
    log = kv2.home / "log"
    script = kv2.home / "changed"
    script.write_text(f'#!/bin/sh\nenv > {log}.env\necho "$@" >> {log}\n')
    script.chmod(0o755)
    template = f"{kv2.home}/{{user_id}}.token"
    with (
        watched_processes() as lines,
        watching(kv2, users(1, 2, file=template), "--on-change", f"{script} 'nginx -s reload'") as watch,
    ):
        watch.ready()
        until(log.exists)
        watch.end()
    assert set(log.read_text().splitlines()) == {"nginx -s reload"}
    shown = Path(f"{log}.env").read_text() + b"\n".join(lines).decode(errors="replace")
    assert leaked(kv2, kv2.endpoint, shown) == []
    assert "KLEARSTACK_USER_ID" not in Path(f"{log}.env").read_text()


def test_a_command_that_fails_is_told_of_and_nothing_more(kv2: World) -> None:
    file, log = str(kv2.home / "token"), kv2.home / "log"
    failing = f"sh -c 'echo >{log}; exit 1'"
    with watching(kv2, users(1, file=file), "--on-change", failing) as watch:
        watch.ready()
        until(log.exists)
        code, err = watch.end()
    assert code == 0
    assert "exited with code 1" in err


def test_systemd_hears_when_it_is_ready_alive_reloading_and_ending(kv2: World) -> None:
    with watching(kv2, users(1), WATCHDOG_USEC="200000") as watch:
        watch.ready()
        until(lambda: watch.said.count("WATCHDOG=1") > 5)
        assert "STATUS=1 valid token, 0 cannot be renewed" in watch.said
        del watch.said[:]
        watch.process.send_signal(signal.SIGHUP)
        until(lambda: "READY=1" in watch.said)
        assert "RELOADING=1" in watch.said
        assert any(re.fullmatch(r"MONOTONIC_USEC=\d+", line) for line in watch.said)
        watch.end()
        until(lambda: "STOPPING=1" in watch.said)


def test_a_reload_takes_up_the_new_manifest(kv2: World) -> None:
    with watching(kv2, users(1, 2)) as watch:
        watch.ready()
        assert expiries(watch).keys() == {'line="2"', 'line="3"'}
        (kv2.home / "watched.yaml").write_text(users(2, 3, name="job").replace("job", "second", 1))
        watch.process.send_signal(signal.SIGHUP)
        until(lambda: kv2.endpoint.mints >= 3)
        until(lambda: expiries(watch).keys() == {'name="second"', 'name="job"'})
        assert watch.metrics()["klearstack_vault_mints_total"] == 3  # it goes on
        assert watch.end() == (0, "")


def test_a_new_manifest_that_will_not_do_leaves_the_old_one_in_force(kv2: World) -> None:
    kv2.endpoint.access_ttl = 6
    with watching(kv2, users(1)) as watch:
        watch.ready()
        (kv2.home / "watched.yaml").write_text("identities: [{}]")
        del watch.said[:]
        watch.process.send_signal(signal.SIGHUP)
        until(lambda: "READY=1" in watch.said)
        mints = kv2.endpoint.mints
        until(lambda: kv2.endpoint.mints > mints)
        code, err = watch.end()
    assert code == 0
    assert "line 1: `user_id` is missing" in err
    assert "remains in use" in err


def test_it_ends_while_it_waits_for_a_manifest(kv2: World) -> None:
    fifo = kv2.home / "m.yaml"
    os.mkfifo(fifo)
    for number, code, is_open in (
        (signal.SIGTERM, 0, False),
        (signal.SIGINT, 130, False),
        (signal.SIGTERM, 0, True),
    ):
        with start("watch", str(fifo), environ=kv2.environ, stderr=subprocess.PIPE) as process:
            until(partial(catches, process.pid, signal.SIGTERM))
            try:
                with fifo.open("w") if is_open else nullcontext():
                    time.sleep(0.3)  # by then it waits, for a writer or for a line
                    process.send_signal(number)
                    assert process.wait(30) == code, (number, is_open)
            finally:
                process.kill()


def catches(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler of that signal."""
    (mask,) = re.findall(r"(?m)^SigCgt:\s*(\w+)$", Path(f"/proc/{pid}/status").read_text())
    return bool(int(mask, 16) >> (number - 1) & 1)


def test_of_two_watchers_one_renews_and_the_other_takes_what_it_finds(kv2: World) -> None:
    kv2.endpoint.access_ttl = 10
    (kv2.home / "two").mkdir()
    other = World(kv2.endpoint, kv2.vault, kv2.mount, kv2.home / "two")  # with locks of its own: another host
    began = time.monotonic()
    with watching(kv2, users(*range(10))) as one:
        one.ready()
        with watching(other, users(*range(10))) as two:
            two.ready()
            time.sleep(20)
            two.end()
        one.end()
    # One alone renews each every 6.3 to 7 s: 4 mints in 21 s, now and then 5; two without regard for each other 7.
    assert kv2.endpoint.mints <= 10 * 1.25 * (1 + (time.monotonic() - began) / 6.3)


def test_who_waits_for_another_process_at_the_same_identity_is_counted(kv2: World) -> None:
    (kv2.home / "two").mkdir()
    other = World(kv2.endpoint, kv2.vault, kv2.mount, kv2.home / "two")
    shared = {"KLEARSTACK_LOCK_DIR": str(kv2.home / "locks"), "KLEARSTACK_TIMEOUT": "60"}
    started: list[Watch] = []

    def both_are_at_it() -> bool:
        until(lambda: len(started) == 2 and all(watch.serves() for watch in started))
        time.sleep(4)  # from then on it takes milliseconds, on an idle machine
        return True

    kv2.answer_when(both_are_at_it)
    with watching(kv2, users(1), **shared) as one, watching(other, users(1), **shared) as two:
        started += [one, two]
        one.ready()
        two.ready()
        counts = [watch.metrics()["klearstack_vault_single_flight_waits_total"] for watch in (one, two)]
        mints = [watch.metrics()["klearstack_vault_mints_total"] for watch in (one, two)]
        one.end()
        two.end()
    assert (sorted(counts), sorted(mints), kv2.endpoint.mints) == ([0, 1], [0, 1], 1)


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [(signal.SIGTERM, 0, ""), (signal.SIGINT, 130, "klearstack-vault: Interrupted.\n")],
)
def test_it_ends_at_a_signal_and_leaves_no_login_behind(
    kv2: World, number: signal.Signals, code: int, said: str
) -> None:
    policy = f'path "{kv2.mount}/*" {{ capabilities = ["create", "update", "read"] }}'
    role_id, secret_id, accessors = kv2.vault.approle(policy)
    before = accessors()
    login = {"KLEARSTACK_VAULT_AUTH": "approle", "VAULT_ROLE_ID": role_id, "VAULT_SECRET_ID": secret_id}
    with watching(kv2, users(1), **login) as watch:
        watch.ready()
        assert watch.end(number) == (code, said)
    assert accessors() <= before


def test_what_hangs_does_not_keep_it_from_ending(kv2: World) -> None:
    kv2.endpoint.fault = "hang"
    with watching(kv2, users(1, 2)) as watch:
        until(lambda: kv2.endpoint.requests >= 2)
        assert watch.end()[0] == 0


def test_the_rate_holds_for_renewals_too(kv2: World) -> None:
    with watching(kv2, users(1, 2), "--rate", "0.00001") as watch:
        until(lambda: kv2.endpoint.mints >= 1)
        time.sleep(1)
        assert watch.end() == (0, "")
    assert kv2.endpoint.mints == 1


def test_a_port_that_is_taken_and_a_manifest_that_will_not_do_are_told_at_the_start(kv2: World) -> None:
    path = kv2.home / "m.yaml"
    path.write_text(users(1))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = kv2.run("watch", str(path), "--metrics", str(taken.getsockname()[1]))
    assert (done.returncode, "Address already in use" in done.stderr) == (73, True)
    path.write_text("identities: [{}]")
    done = kv2.run("watch", str(path))
    assert (done.returncode, "`user_id` is missing" in done.stderr, kv2.endpoint.requests) == (78, True, 0)


def test_an_empty_manifest_is_watched_until_a_reload_fills_it(kv2: World) -> None:
    with watching(kv2, "identities: []") as watch:
        watch.ready()
        (kv2.home / "watched.yaml").write_text(users(1))
        watch.process.send_signal(signal.SIGHUP)
        until(lambda: kv2.endpoint.mints >= 1)
        assert watch.end() == (0, "")
