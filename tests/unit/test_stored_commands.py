"""`status`, `delete` and `sync --prune` on the command line: what they take, what they print, and how they exit."""

import io
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import inf
from pathlib import Path
from typing import Any

import pytest
from support.fakes import NOW, Run, Slots
from support.waiting import until

from vault_plugin.bulk import sync
from vault_plugin.bulk.circuit_breaker import CircuitBreaker
from vault_plugin.commands import status as status_command
from vault_plugin.commands import stored
from vault_plugin.commands import sync as sync_command
from vault_plugin.errors import SourceError, StoreError, StoreRefusedError
from vault_plugin.settings import Settings
from vault_plugin.tokens.identity import Identity
from vault_plugin.tokens.jwt import Kind
from vault_plugin.tokens.place import Holding, Place
from vault_plugin.tokens.secret import Secret
from vault_plugin.tokens.stored import VaultRef

ENOUGH = {
    "KLEARSTACK_URL": "https://api.example",
    "VAULT_ADDR": "https://vault.example",
    "VAULT_TOKEN": "hvs.CANARY",
}


class FakeInventory:
    """What one Vault stores: the seconds left of the tokens of each user of Acme."""

    address, mount, prefix = "https://vault.example", "secret", "klearstack"

    def __init__(self, *users: str, left: float = 800.0) -> None:
        self.left = dict.fromkeys(users, left)
        self.contents: dict[str, Any] = {}
        self.error: dict[str, Exception] = {}
        self.deleted: list[str] = []

    def companies(self) -> list[str]:
        return ["Acme"]

    def places(self, company: str) -> list[Place]:
        return [Place(company, user) for user in {**self.left, **self.contents}]

    def holdings(self, place: Place, *, thorough: bool = False) -> list[Holding]:
        content = self.contents.get(place.user, "ours" if place.user in self.left else "nothing")
        ends = None if content != "ours" else NOW + self.left[place.user]
        return [
            Holding(
                place,
                kind,
                VaultRef(self.mount, place.path(self.prefix, kind), 3),
                NOW,
                content,
                identity=place.identity,
                expires_at=ends,
                manifest="production",
            )
            for kind in Kind
        ]

    def delete(self, place: Place, manifest: str | None = None) -> int:
        if place.user in self.error:
            raise self.error[place.user]
        self.deleted.append(place.user)
        return 2


class FakeTargets(Slots):
    deadline = 60.0

    def __init__(self, *inventories: FakeInventory) -> None:
        self.inventories = inventories
        self.settings: list[Settings] = []
        self.meanwhile: Callable[[str], object] = lambda _: None

    @contextmanager
    def connect_all(self, gather: Sequence[Any], manifest: str = "") -> Iterator["FakeTargets"]:
        self.gather = gather
        self.settings += [one() for one in gather]
        yield self

    def check(self, *_: object, **__: object) -> None:
        return None


@pytest.fixture
def vault(monkeypatch: pytest.MonkeyPatch) -> FakeInventory:
    """A Vault with the tokens of two users."""
    inventory = FakeInventory("1", "2")
    connected(monkeypatch, inventory)
    return inventory


def connected(monkeypatch: pytest.MonkeyPatch, *inventories: FakeInventory) -> FakeTargets:
    for name, text in ENOUGH.items():
        monkeypatch.setenv(name, text)
    for name in ("CI_NODE_INDEX", "CI_NODE_TOTAL", "JOB_COMPLETION_INDEX"):
        monkeypatch.delenv(name, raising=False)
    targets = FakeTargets(*inventories)
    monkeypatch.setattr(stored, "connect_all", targets.connect_all)
    monkeypatch.setattr(sync_command, "connect_all", targets.connect_all)
    return targets


@pytest.fixture
def manifest(tmp_path: Path) -> str:
    """A manifest with the users 1 and 3 of Acme."""
    path = tmp_path / "m.yaml"
    path.write_text(
        "name: production\ndefaults: {company_name: Acme}\nidentities: [{user_id: 1}, {user_id: 3}]\n"
    )
    return str(path)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def on_terminal(monkeypatch: pytest.MonkeyPatch, *names: str, typed: str = "") -> None:
    """Some of the streams as a terminal, on which this is typed."""
    monkeypatch.setattr(sys, "stdin", Terminal(typed) if "stdin" in names else io.StringIO(typed))
    for name in ("stdout", "stderr"):
        if name in names:
            monkeypatch.setattr(getattr(sys, name), "isatty", lambda: True)


# status


def test_a_company_name_without_a_manifest_is_refused_since_it_would_limit_nothing(
    vault: FakeInventory, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run("status", "--company-name", "Acme")
    assert (done.code, done.out) == (64, "")
    assert "without one, the tokens of all companies are shown" in done.err
    monkeypatch.setenv("KLEARSTACK_COMPANY_NAME", "Acme")
    assert run("status").code == 0


def test_status_is_by_its_exit_code_what_monitoring_wants(
    vault: FakeInventory, run: Run, manifest: str
) -> None:
    assert run("status", "--exit-code").code == 0
    assert run("status", "--exit-code", "--warn", "800s").code == 3
    assert run("status", "--warn", "800s").code == 0
    assert run("status", "--exit-code", "--warn", "800s", manifest).code == 4  # 3 is missing
    vault.left["2"] = -1.0
    assert run("status", "--exit-code", "--warn", "800s").code == 4
    vault.left.clear()
    assert run("status").code == 0
    done = run("status", "--exit-code")
    assert (done.code, done.out, done.err) == (4, "No tokens in secret/klearstack\n", "")


def test_an_unmanaged_secret_is_shown_only_where_a_token_should_be(
    vault: FakeInventory, run: Run, manifest: str
) -> None:
    vault.contents["3"] = "unmanaged"
    assert "4 tokens in secret/klearstack: 4 valid" in run("status").out
    done = run("status", manifest, "--exit-code")
    assert (done.code, "2 replaced by an unmanaged secret, 2 valid" in done.out) == (4, True)


def test_the_format_of_a_manifest_is_by_its_name(vault: FakeInventory, run: Run, tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("user_id,company_name\n1,Acme\n")
    assert "2 tokens" in run("status", str(tmp_path / "m.csv")).out
    done = run("status", str(tmp_path / "m.txt"))
    assert (done.code, "Its name has to end in .yaml, .jsonl or .csv." in done.err) == (64, True)


def test_status_needs_no_endpoint_and_no_identity(
    monkeypatch: pytest.MonkeyPatch, vault: FakeInventory, run: Run
) -> None:
    monkeypatch.delenv("KLEARSTACK_URL")
    targets = connected(monkeypatch, vault)
    monkeypatch.delenv("KLEARSTACK_URL")
    assert run("status", "--mount", "kv").code == 0
    assert [(one.mount, one.url) for one in targets.settings] == [("kv", status_command.NO_ENDPOINT)]


def test_json_has_the_tokens_of_all_vaults(monkeypatch: pytest.MonkeyPatch, run: Run, manifest: str) -> None:
    connected(monkeypatch, FakeInventory("1", left=9.9), FakeInventory("3"))
    done = run("status", "--format", "json", manifest)
    rows = json.loads(done.out)["tokens"]
    assert [(row["user_id"], row["kind"], row["expires_in"], row["state"]) for row in rows] == [
        *(("3", kind, None, "missing") for kind in Kind),
        *(("1", kind, 9, "expiring") for kind in Kind),
        *(("1", kind, None, "missing") for kind in Kind),
        *(("3", kind, 800, "valid") for kind in Kind),
    ]


def test_several_vaults_have_a_table_each(monkeypatch: pytest.MonkeyPatch, run: Run, manifest: str) -> None:
    connected(monkeypatch, FakeInventory("1"), FakeInventory("1", "3"))
    done = run("status", manifest)
    assert done.out.count("COMPANY") == 2
    assert (
        "\n\n4 tokens in secret/klearstack at https://vault.example: 2 missing, 2 valid\n\nCOMPANY"
        in done.out
    )


@pytest.mark.parametrize(
    ("streams", "environ", "is_coloured"),
    [
        ("stdout", {"TERM": "xterm"}, True),
        ("stdout", {"TERM": "xterm", "NO_COLOR": "1"}, False),
        ("stdout", {"TERM": "xterm", "NO_COLOR": ""}, True),
        ("stdout", {"TERM": "dumb"}, False),
        ("", {"TERM": "xterm"}, False),
    ],
)
def test_colours_are_for_terminals_that_want_them(
    monkeypatch: pytest.MonkeyPatch,
    vault: FakeInventory,
    run: Run,
    streams: str,
    environ: dict[str, str],
    is_coloured: bool,
) -> None:
    for name, text in environ.items():
        monkeypatch.setenv(name, text)
    on_terminal(monkeypatch, streams)
    assert ("\x1b[" in run("status").out) is is_coloured


def test_a_table_is_as_wide_as_the_terminal_or_columns_say(
    monkeypatch: pytest.MonkeyPatch, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    connected(monkeypatch, FakeInventory("x" * 100))
    monkeypatch.delenv("COLUMNS", raising=False)
    assert "x" * 100 in run("status").out
    monkeypatch.setenv("COLUMNS", "80")
    assert max(map(len, run("status").out.splitlines())) <= 80


# delete


def test_delete_without_a_terminal_needs_yes_before_any_request(
    monkeypatch: pytest.MonkeyPatch, vault: FakeInventory, run: Run
) -> None:
    for names in ((), ("stdin",), ("stderr",)):
        on_terminal(monkeypatch, *names)
        done = run("delete", "--all")
        assert (done.code, done.out, "--yes" in done.err) == (64, "", True)
    monkeypatch.setattr(sys, "stdin", None)
    assert run("delete", "--all").code == 64
    assert vault.deleted == []


@pytest.mark.parametrize(
    ("typed", "code"), [("y\n", 0), ("YES\n", 0), ("n\n", 64), ("\n", 64), ("", 64), ("yy\n", 64)]
)
def test_delete_asks_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, vault: FakeInventory, run: Run, typed: str, code: int
) -> None:
    on_terminal(monkeypatch, "stdin", "stderr", typed=typed)
    done = run("delete", "--all")
    question = "Delete 4 paths of 2 identities in secret/klearstack at https://vault.example? [y/N] "
    assert done.err.startswith(question)
    assert not code or done.err == f"{question}klearstack-vault: Nothing was deleted.\n"
    assert done.code == code
    assert sorted(vault.deleted) == ([] if code else ["1", "2"])
    assert done.out == ("" if code else "4 paths of 2 identities deleted\n")


def test_nothing_is_asked_where_there_is_nothing(
    monkeypatch: pytest.MonkeyPatch, vault: FakeInventory, run: Run
) -> None:
    on_terminal(monkeypatch, "stdin", "stderr")
    done = run("delete", "--user-id", "9", "--company-name", "Acme")
    assert (done.code, done.out, done.err) == (0, "0 paths of 0 identities deleted\n", "")


def test_a_dry_run_lists_and_deletes_nothing(vault: FakeInventory, run: Run, manifest: str) -> None:
    done = run("delete", "--dry-run", manifest)
    assert done.out == (
        "would delete secret/klearstack/Acme/1/access\nwould delete secret/klearstack/Acme/1/refresh\n"
        "2 paths of 1 identity would be deleted\n"
    )
    assert (done.code, vault.deleted) == (0, [])


def test_one_identity_is_that_of_the_settings(
    monkeypatch: pytest.MonkeyPatch, vault: FakeInventory, run: Run
) -> None:
    done = run("delete", "--yes")
    assert (done.code, "--user-id (KLEARSTACK_USER_ID) is missing" in done.err) == (78, True)
    monkeypatch.setenv("KLEARSTACK_USER_ID", "2")
    monkeypatch.setenv("KLEARSTACK_COMPANY_NAME", "Acme")
    assert run("delete", "--yes").out == "2 paths of 1 identity deleted\n"
    assert vault.deleted == ["2"]


def test_what_is_meant_must_be_clear(vault: FakeInventory, run: Run) -> None:
    for argv in (
        ("--all", "m.yaml"),
        ("--all", "--user-id", "1"),
        ("--all", "--company-name", "Acme"),
        ("--all", "--company-name", ""),
        ("--all", "--dry-run", "--company-name=Acme"),
        ("--user-id", "1", "m.yaml"),
        ("--user-id", "-"),
        ("--company-name", "-"),
    ):
        assert run("delete", "--yes", *argv).code == 64, argv
        assert vault.deleted == [], argv


def test_all_is_not_limited_to_a_company_but_its_variable_is_harmless(
    monkeypatch: pytest.MonkeyPatch, vault: FakeInventory, run: Run
) -> None:
    monkeypatch.setenv("KLEARSTACK_COMPANY_NAME", "Globex")
    done = run("delete", "--all", "--yes", "--company-name", "Globex")
    assert (done.code, done.out, vault.deleted) == (64, "", [])
    assert "--company-name does not limit --all, which deletes the tokens of all companies." in done.err
    assert run("delete", "--all", "--yes").out == "4 paths of 2 identities deleted\n"


def test_an_unmanaged_secret_is_reported_where_it_was_named(
    vault: FakeInventory, run: Run, manifest: str
) -> None:
    vault.contents["3"] = "unmanaged"
    done = run("delete", manifest, "--yes")
    assert (done.code, done.out) == (0, "2 paths of 1 identity deleted\n")
    assert "2 paths left alone: klearstack-vault does not manage what is there" in done.err
    assert run("delete", "--all", "--yes").err == ""


def test_the_credential_for_one_identity_is_read_once_until_the_login_ends(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    targets = connected(monkeypatch, FakeInventory("1"))
    fifo = tmp_path / "token"
    os.mkfifo(fifo)
    monkeypatch.delenv("VAULT_TOKEN")
    monkeypatch.setenv("VAULT_TOKEN_FILE", str(fifo))
    monkeypatch.setenv("KLEARSTACK_DEADLINE", "10")
    for number in "12":
        writer = threading.Thread(target=fifo.write_text, args=[f"hvs.{number}\n"])
        writer.start()
        if number == "1":
            assert run("delete", "--user-id", "1", "--company-name", "Acme", "--yes").code == 0
        else:
            targets.settings.append(targets.gather[0](deadline="5"))
        writer.join()
    assert [one.vault_token for one in targets.settings] == [Secret("hvs.1"), Secret("hvs.2")]
    assert targets.settings[1].deadline < 6


def test_the_credential_for_a_manifest_is_read_once_also_after_it_was_validated(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, manifest: str
) -> None:
    targets = connected(monkeypatch, FakeInventory("1"))
    fifo = tmp_path / "token"
    os.mkfifo(fifo)
    monkeypatch.delenv("VAULT_TOKEN")
    monkeypatch.setenv("VAULT_TOKEN_FILE", str(fifo))
    monkeypatch.setenv("KLEARSTACK_DEADLINE", "10")
    for command in (("status",), ("delete", "--yes"), ("sync", "--check")):
        writer = threading.Thread(target=fifo.write_text, args=[f"hvs.{command[0]}\n"])
        writer.start()
        assert run(*command, manifest).code == 0, command
        writer.join()
        assert targets.settings[-1].vault_token == Secret(f"hvs.{command[0]}")
    assert len(targets.settings) == 3


def test_failures_are_reported_and_the_others_are_deleted(vault: FakeInventory, run: Run) -> None:
    vault.error["1"] = StoreRefusedError("No.", hint="Ask.")
    done = run("delete", "--all", "--yes")
    assert (done.code, done.out) == (5, "2 paths of 1 identity deleted\n")
    assert done.err == "klearstack-vault: 1 identity failed: No. Ask.\n"
    del vault.left["2"]
    done = run("delete", "--all", "--yes")  # of one identity alone, its error is that of the command
    assert (done.code, done.err) == (77, "klearstack-vault: No. Ask.\n")


def test_what_was_deleted_is_reported_also_if_vault_fails(vault: FakeInventory, run: Run) -> None:
    vault.left["3"] = 800.0
    vault.error |= {"1": StoreRefusedError("No.", hint="Ask."), "3": StoreError("It is down.")}
    done = run("delete", "--all", "--yes", "--concurrency", "1")
    assert (done.code, done.out, done.err) == (
        69,
        "2 paths of 1 identity deleted\n",
        "klearstack-vault: 1 identity failed: No. Ask.\nklearstack-vault: It is down.\n",
    )


def test_of_several_vaults_each_path_names_its_own_and_an_identity_counts_once(
    monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    first, second = FakeInventory("1"), FakeInventory("1", "2")
    second.address = "https://other.example"
    connected(monkeypatch, first, second)
    done = run("delete", "--all", "--dry-run")
    assert done.out == (
        "would delete secret/klearstack/Acme/1/access at https://other.example\n"
        "would delete secret/klearstack/Acme/1/refresh at https://other.example\n"
        "would delete secret/klearstack/Acme/1/access at https://vault.example\n"
        "would delete secret/klearstack/Acme/1/refresh at https://vault.example\n"
        "would delete secret/klearstack/Acme/2/access at https://other.example\n"
        "would delete secret/klearstack/Acme/2/refresh at https://other.example\n"
        "6 paths of 2 identities would be deleted\n"
    )
    assert run("delete", "--all", "--yes").out == "6 paths of 2 identities deleted\n"


# sync --prune


def pruning(run: Run, manifest: str, *argv: str) -> tuple[int, list[str], str]:
    """Exit code, the lines about what is pruned, and standard error."""
    done = run("sync", "--prune", *argv, manifest)
    return done.code, done.out.splitlines()[1:], done.err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("defaults: {company_name: A}\nidentities: [{user_id: 1}]", "--prune needs a manifest with a name"),
        ("name: production\nidentities: []", "The manifest {path} has no identities"),
    ],
)
def test_a_manifest_that_cannot_be_pruned_is_refused(
    vault: FakeInventory, run: Run, tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(text)
    done = run("sync", "--prune", "--yes", str(path))
    assert (done.code, done.out, said.format(path=path) in done.err) == (78, "", True)


def test_a_csv_file_has_no_name_and_the_hint_says_who_has(
    vault: FakeInventory, run: Run, tmp_path: Path
) -> None:
    path = tmp_path / "m.csv"
    path.write_text("user_id,company_name\n1,Acme\n")
    done = run("sync", "--prune", str(path))
    assert (done.code, "`name` at the top of a YAML manifest" in done.err) == (78, True)


def test_yes_is_for_prune_alone(vault: FakeInventory, run: Run, manifest: str) -> None:
    assert run("sync", "--yes", manifest).code == 64


def test_what_is_to_be_pruned_is_listed(vault: FakeInventory, run: Run, manifest: str) -> None:
    lines = [f"would delete secret/klearstack/Acme/2/{kind}" for kind in Kind]
    assert pruning(run, manifest, "--check") == (0, [*lines, "2 paths of 1 identity would be pruned"], "")
    assert pruning(run, manifest, "--check", "--detailed-exitcode")[0] == 2
    assert vault.deleted == []
    done = run("sync", "--prune", "--check", "--report", "-", manifest)
    assert ("would delete" in done.out, "2 paths of 1 identity would be pruned\n" in done.err) == (
        False,
        True,
    )


def test_many_need_yes_before_anything_is_minted(vault: FakeInventory, run: Run, manifest: str) -> None:
    code, lines, err = pruning(run, manifest)
    assert (code, lines, vault.deleted) == (64, [], [])
    assert "2 paths of 1 identity would be pruned, which is more than 10 %: nothing was changed." in err


def test_a_report_that_cannot_be_written_is_refused_before_vault_is_asked(
    monkeypatch: pytest.MonkeyPatch, vault: FakeInventory, run: Run, manifest: str, tmp_path: Path
) -> None:
    def asked(*_: object, **__: object) -> None:
        raise AssertionError("Vault was asked")

    monkeypatch.setattr(vault, "companies", asked)
    monkeypatch.setattr(sync_command, "connect_all", asked)
    for argv in ((), ("--prune", "--yes"), ("--check",)):
        done = run("sync", *argv, "--report", str(tmp_path), manifest)
        assert (done.code, done.out, str(tmp_path) in done.err) == (73, "", True)
    assert vault.deleted == []


class Minting(FakeTargets):
    """All tokens are fresh, unless a run is to fail, or a number of them."""

    error: Exception | None = None
    failures = inf

    def ensure(self, identity: Identity, **_: object) -> Any:
        self.meanwhile(identity.user_id)
        if self.error and self.failures:
            self.failures -= 1
            raise self.error

        class Fresh:
            result = "fresh"
            grant = type("", (), {"access": type("", (), {"token": type("", (), {"expires_at": NOW})})})

        return Fresh()


@pytest.fixture
def minting(monkeypatch: pytest.MonkeyPatch, vault: FakeInventory) -> Minting:
    targets = Minting(vault)
    monkeypatch.setattr(sync_command, "connect_all", targets.connect_all)
    return targets


def test_what_is_pruned_counts_as_a_change(
    minting: Minting, vault: FakeInventory, run: Run, manifest: str
) -> None:
    pruned = ["2 paths of 1 identity pruned"]
    assert pruning(run, manifest, "--yes") == (0, pruned, "")
    assert pruning(run, manifest, "--yes", "--detailed-exitcode") == (2, pruned, "")
    assert vault.deleted == ["2", "2"]
    del vault.left["2"]
    nothing = ["0 paths of 0 identities pruned"]
    assert pruning(run, manifest, "--detailed-exitcode") == (0, nothing, "")


def test_what_is_not_pruned_is_reported(
    minting: Minting, vault: FakeInventory, run: Run, manifest: str
) -> None:
    vault.error["2"] = StoreRefusedError("No.", hint="Ask.")
    code, lines, err = pruning(run, manifest, "--yes", "--detailed-exitcode")
    assert (code, lines) == (5, ["0 paths of 0 identities pruned"])
    assert err == "klearstack-vault: 1 identity not pruned: No. Ask.\n"
    vault.error["2"] = StoreError("It is down.")
    code, lines, err = pruning(run, manifest, "--yes")
    assert (code, lines) == (69, ["0 paths of 0 identities pruned"])
    assert err == "klearstack-vault: It is down.\n"


def test_mints_that_fail_do_not_keep_others_from_being_pruned_but_a_run_that_stops_does(
    minting: Minting, vault: FakeInventory, run: Run, manifest: str
) -> None:
    minting.error = StoreRefusedError("No.")
    assert pruning(run, manifest, "--yes")[:2] == (5, ["2 paths of 1 identity pruned"])
    vault.deleted.clear()
    done = run("sync", "--prune", "--yes", "--stop-after", "1", "--concurrency", "1", manifest)
    assert (done.code, vault.deleted) == (5, [])
    assert done.out.endswith("\n2 paths of 1 identity not pruned (1 consecutive failures)\n")


def test_an_outage_that_is_over_does_not_keep_what_is_gone_from_being_pruned(
    monkeypatch: pytest.MonkeyPatch, minting: Minting, vault: FakeInventory, run: Run, manifest: str
) -> None:
    monkeypatch.setattr(
        sync, "CircuitBreaker", lambda *_, **__: CircuitBreaker(20, workers=1, uniform=lambda *_: 0.0)
    )
    minting.error, minting.failures = SourceError("The endpoint is down."), 1
    assert pruning(run, manifest, "--yes", "--concurrency", "1") == (0, ["2 paths of 1 identity pruned"], "")


def test_what_a_signal_leaves_unpruned_is_reported_and_exits_5(
    minting: Minting, vault: FakeInventory, run: Run, manifest: str
) -> None:
    def stopped(user: str) -> None:
        if user == "3":  # the last one, so that no identity is left
            os.kill(os.getpid(), signal.SIGTERM)
            until(lambda: signal.getsignal(signal.SIGTERM) == signal.SIG_DFL)

    minting.meanwhile = stopped
    code, lines, err = pruning(run, manifest, "--yes", "--concurrency", "1")
    assert (code, lines, err) == (5, ["2 paths of 1 identity not pruned (SIGTERM)"], "")
    assert vault.deleted == []


@pytest.fixture(autouse=True)
def _no_logs_are_left() -> Iterator[None]:
    yield
    logging.getLogger("vault_plugin").handlers.clear()
