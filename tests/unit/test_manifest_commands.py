"""`sync` and `watch` on the command line: what they take, what they print, and how they exit."""

import grp
import io
import json
import logging
import os
import pwd
import re
import resource
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.devices import device
from support.fakes import NOW, Run, Slots, jwt, token
from support.waiting import until

from vault_plugin import cli
from vault_plugin.broker import Grant, GrantedToken
from vault_plugin.bulk import probes, service
from vault_plugin.bulk.report import SyncResult as Told
from vault_plugin.bulk.targets import EnsureResult
from vault_plugin.bulk.token_files import TokenFiles
from vault_plugin.commands import options as common
from vault_plugin.commands import sync as sync_command
from vault_plugin.commands import watch as watch_command
from vault_plugin.commands.progress import Progress
from vault_plugin.errors import SourceError, SourceRefusedError, WriteError
from vault_plugin.manifest.entries import Entry
from vault_plugin.output.destination import Output
from vault_plugin.output.private_files import Rights
from vault_plugin.settings import Settings
from vault_plugin.tokens.identity import Identity
from vault_plugin.tokens.jwt import Kind
from vault_plugin.tokens.stored import VaultRef

ENOUGH = {
    "KLEARSTACK_URL": "https://api.example",
    "VAULT_ADDR": "https://vault.example",
    "VAULT_TOKEN": "hvs.CANARY",
}
MANIFEST = "user_id,company_name\n0,Acme\n1,Acme\n2,Acme\n"


class FakeTargets(Slots):
    """Vaults in which users become what `results` says; by default, their tokens are minted."""

    deadline = 60.0

    def __init__(self) -> None:
        self.results: dict[str, str] = {}
        self.settings: list[Settings] = []
        self.asked: list[str] = []
        self.meanwhile: Callable[[], object] = lambda: None

    @contextmanager
    def connect_all(self, gather: Sequence[Callable[[], Settings]], manifest: str) -> Iterator["FakeTargets"]:
        self.settings += [one() for one in gather]
        yield self

    def _outcome(self, identity: Identity) -> EnsureResult:
        self.asked.append(identity.user_id)
        self.meanwhile()
        result: Any = self.results.get(identity.user_id, "minted")
        if result == "down":
            raise SourceError("The endpoint does not answer.", hint="Wait.")
        if result == "failed":
            raise SourceRefusedError("The endpoint says no.", hint="Ask.")
        held = {Kind.ACCESS: GrantedToken(token(), VaultRef("secret", "p", 1))}
        return EnsureResult(
            result, Grant(held, "endpoint" if result == "minted" else "vault", stale=False, now=NOW)
        )

    def check(
        self, identity: Identity, *, min_ttl: float | None = None, repair: bool = False
    ) -> EnsureResult | None:
        found = self._outcome(identity)
        return found if found.result == "fresh" else None

    def ensure(
        self, identity: Identity, *, min_ttl: float | None = None, cautious: bool = False, renew: bool = False
    ) -> EnsureResult:
        return self._outcome(identity)


class FakeService:
    """In place of the service: what it would have run."""

    def __init__(self) -> None:
        self.plan: service.Plan | None = None
        self.watcher_of: Any = None
        self.ended = signal.SIGTERM
        self.meanwhile: Callable[[], object] = lambda: None

    def run(self, load: Callable[[], service.Plan], watcher_of: Any) -> signal.Signals:
        self.plan, self.watcher_of = load(), watcher_of
        self.meanwhile()
        return self.ended


@pytest.fixture
def fake_service(monkeypatch: pytest.MonkeyPatch) -> FakeService:
    fake = FakeService()
    monkeypatch.setattr(service, "run", fake.run)
    return fake


@pytest.fixture
def targets(monkeypatch: pytest.MonkeyPatch, fake_service: FakeService) -> FakeTargets:
    """All settings are there, and neither Vaults nor the service behind the commands."""
    fake = FakeTargets()
    for name, text in ENOUGH.items():
        monkeypatch.setenv(name, text)
    for name in ("CI_NODE_INDEX", "CI_NODE_TOTAL", "JOB_COMPLETION_INDEX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sync_command, "connect_all", fake.connect_all)
    return fake


@pytest.fixture
def manifest(tmp_path: Path) -> str:
    (tmp_path / "m.csv").write_text(MANIFEST)
    return str(tmp_path / "m.csv")


# Both


def test_a_wrong_command_line_exits_64(run: Run, targets: FakeTargets, manifest: str) -> None:
    for argv, what in (
        (("--rate", "0"), "--rate has an invalid value."),
        (("--rate", "-1"), "--rate has an invalid value."),
        (("--concurrency", "0"), "--concurrency has an invalid value."),
        (("--concurrency", "257"), "--concurrency has an invalid value."),
        (("--format", "xml"), "--format must be one of yaml, jsonl, csv."),
        (("--shard", "4/3"), "--shard takes I/N"),
        (("--user-id", "26"), "Unknown option."),
        (("--on-vault-error", "bypass"), "Unknown option."),
        (("--company-name", "-"), "default company of a manifest is not read from"),
    ):
        for command in ("sync", "watch"):
            done = run(command, *argv, manifest)
            assert (done.code, done.out, targets.settings) == (64, "", []), (command, argv)
            assert what in done.err, (command, argv)


@pytest.mark.parametrize("command", ["sync", "watch"])
@pytest.mark.parametrize(
    "argv", [("--company-name", ""), ("--company-name", "A\u200b"), ("--url", ""), ("--vault-addr", "")]
)
def test_an_empty_flag_becomes_nothing_else(
    run: Run,
    targets: FakeTargets,
    manifest: str,
    command: str,
    argv: Sequence[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KLEARSTACK_COMPANY_NAME", "Initech")
    done = run(command, *argv, manifest)
    assert (done.code, done.out, targets.settings) == (78, "", [])
    assert f"{argv[0]} (" in done.err


@pytest.mark.parametrize("command", ["sync", "watch"])
def test_a_manifest_must_be_named(run: Run, command: str) -> None:
    done = run(command)
    assert done.code == 64
    assert "MANIFEST is missing." in done.err


@pytest.mark.parametrize("command", ["sync", "watch"])
def test_what_is_wrong_with_a_manifest_exits_78_before_anything_is_contacted(
    run: Run, targets: FakeTargets, tmp_path: Path, command: str
) -> None:
    (tmp_path / "m.csv").write_text(f"user_id,{jwt()}\n1,x\n")
    (tmp_path / "m.jsonl").write_text(f'{{"user_id": 1}}\n{{"user_id": 2, "{jwt()}": "x"}}\n')
    for name, problem in (
        ("m.csv", "line 1: names a column that is not one of"),
        ("m.jsonl", "line 1: `company_name` is missing"),
    ):
        done = run(command, str(tmp_path / name))
        assert (done.code, done.out, targets.settings) == (78, "", [])
        assert f"The manifest {tmp_path / name} is invalid; no request was sent:\n" in done.err
        assert problem in done.err
        assert not any(part in done.err for part in jwt().split("."))


def test_a_manifest_on_standard_input_is_called_so(
    run: Run, targets: FakeTargets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"identities: [{}]")))
    done = run("sync", "-")
    assert (done.code, done.out) == (78, "")
    assert "The manifest on standard input is invalid; no request was sent:\n  line 1: " in done.err


@pytest.mark.parametrize("command", ["sync", "watch"])
def test_a_manifest_whose_name_tells_no_format_exits_64_and_one_that_is_not_there_78(
    run: Run, targets: FakeTargets, tmp_path: Path, command: str
) -> None:
    (tmp_path / "m").write_text(MANIFEST)
    assert run(command, str(tmp_path / "m")).code == 64
    assert run(command, str(tmp_path / "missing.csv")).code == 78


# sync


def test_sync_makes_all_good_and_says_how_many(run: Run, targets: FakeTargets, manifest: str) -> None:
    targets.results = {"0": "fresh", "1": "copied"}
    done = run("sync", manifest)
    assert done == (0, "3 identities: 1 fresh, 1 minted, 1 copied\n", "")
    assert sorted(targets.asked) == ["0", "1", "2"]


def test_a_thousand_is_written_for_people(run: Run, targets: FakeTargets, tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("user_id\n" + "".join(f"{number}\n" for number in range(1234)))
    done = run("sync", "--company-name", "Acme", str(tmp_path / "m.csv"))
    assert done.out == "1,234 identities: 1,234 minted\n"


def test_of_nothing_there_is_nothing_to_do(run: Run, targets: FakeTargets, tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text("identities: []\n")
    assert run("sync", str(tmp_path / "m.yaml")) == (0, "0 identities: nothing to do\n", "")


def test_a_failure_exits_5_and_is_told_with_its_line_and_what_to_do(
    run: Run, targets: FakeTargets, manifest: str
) -> None:
    targets.results = {"1": "failed"}
    done = run("sync", manifest)
    assert (done.code, done.out) == (5, "3 identities: 2 minted, 1 failed\n")
    assert done.err == "klearstack-vault: line 3: The endpoint says no. Ask.\n"


def test_the_first_failures_are_told_and_the_report_has_all(
    run: Run, targets: FakeTargets, tmp_path: Path
) -> None:
    (tmp_path / "m.csv").write_text("user_id\n" + "".join(f"{number}\n" for number in range(30)))
    targets.results = {str(number): "failed" for number in range(30)}
    report = tmp_path / "report"
    done = run(
        "sync", "--company-name", "A", "--stop-after", "0", "--report", str(report), str(tmp_path / "m.csv")
    )
    assert re.sub(r"lines [0-9, ]+ and", "lines ... and", done.err) == (
        "klearstack-vault: 30 identities failed (lines ... and 20 more): The endpoint says no. Ask.\n"
    )
    lines = [json.loads(line) for line in report.read_text().splitlines()]
    assert sorted(int(line["user_id"]) for line in lines) == list(range(30))
    assert all(line["error"]["code"] == "endpoint_refused" for line in lines)
    assert report.stat().st_mode & 0o777 == 0o600


def test_each_kind_of_failure_is_one_line_and_there_are_not_too_many(
    run: Run, targets: FakeTargets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "m.csv").write_text("user_id\n" + "".join(f"{number}\n" for number in range(24)))

    def fail(identity: Identity, **_: object) -> EnsureResult:
        raise SourceRefusedError(f"Kind {int(identity.user_id) % 12}.", hint="Ask.")

    monkeypatch.setattr(targets, "ensure", fail)
    arguments = ("--company-name", "A", "--stop-after", "0", "--concurrency", "1", str(tmp_path / "m.csv"))
    done = run("sync", *arguments)
    said = done.err.splitlines()
    assert said[0] == "klearstack-vault: 2 identities failed (lines 2, 14): Kind 0. Ask."
    assert (len(said), said[-1]) == (
        11,
        "klearstack-vault: 4 identities failed in other ways: --report lists all.",
    )
    logging.getLogger("vault_plugin").handlers.clear()
    done = run("sync", "-v", *arguments)
    assert done.err.count("INFO: line ") == 24


def test_a_single_identity_is_one(
    run: Run, targets: FakeTargets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "PROBE_DELAY", (0.01, 0.01))
    (tmp_path / "m.csv").write_text("user_id\n0\n")
    one = ("--company-name", "A", str(tmp_path / "m.csv"))
    assert run("sync", *one).out == "1 identity: 1 minted\n"
    targets.results = {"0": "down"}
    assert "1 identity failed: " in run("sync", "--stop-after", "1", *one).err


def test_watch_says_at_its_start_what_it_keeps_and_where_metrics_are(
    run: Run, targets: FakeTargets, fake_service: FakeService, manifest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def served(stats: object, host: str, port: int) -> Iterator[int]:
        yield port or 9123

    monkeypatch.setattr("vault_plugin.bulk.metrics.served", served)
    for address, where in (
        ("0", "127.0.0.1:9123"),
        ("[::1]:9100", "[::1]:9100"),
        ("x.example:1", "x.example:1"),
    ):
        assert run("watch", "--metrics", address, manifest).err == (
            f"klearstack-vault: keeping the tokens of 3 identities; metrics are at http://{where}/metrics\n"
        )


def test_too_many_failures_in_a_row_leave_the_rest(run: Run, targets: FakeTargets, manifest: str) -> None:
    targets.results = dict.fromkeys("012", "failed")
    done = run("sync", "--stop-after", "2", "--concurrency", "1", manifest)
    assert (done.code, done.out) == (5, "3 identities: 2 failed, 1 not tried (2 consecutive failures)\n")


def test_an_outage_that_lasts_is_told_once(run: Run, targets: FakeTargets, manifest: str) -> None:
    targets.results = dict.fromkeys("012", "down")
    done = run("sync", "--stop-after", "1", "--concurrency", "1", manifest)
    assert done.code == 5
    assert done.err.count("failed: The endpoint does not answer. Wait.") == 1


@pytest.mark.parametrize(
    ("results", "argv", "code"),
    [
        ({}, ("--detailed-exitcode",), 2),
        ({"0": "fresh", "1": "copied", "2": "fresh"}, ("--detailed-exitcode",), 2),
        (dict.fromkeys("012", "fresh"), ("--detailed-exitcode",), 0),
        ({"0": "failed"}, ("--detailed-exitcode",), 5),
        ({}, (), 0),
        ({}, ("--check",), 0),
        ({}, ("--check", "--detailed-exitcode"), 2),
        (dict.fromkeys("012", "fresh"), ("--check", "--detailed-exitcode"), 0),
    ],
)
def test_a_detailed_exit_code_says_whether_anything_changes(
    run: Run, targets: FakeTargets, manifest: str, results: dict[str, str], argv: Sequence[str], code: int
) -> None:
    targets.results = results
    assert run("sync", *argv, manifest).code == code


def test_a_check_says_what_would_be_minted(run: Run, targets: FakeTargets, manifest: str) -> None:
    targets.results = {"1": "fresh"}
    assert run("sync", "--check", manifest).out == "3 identities: 1 fresh, 2 to be minted\n"


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_it_exits_by_it_and_leaves_the_rest(
    run: Run, targets: FakeTargets, tmp_path: Path, number: signal.Signals
) -> None:
    (tmp_path / "m.csv").write_text("user_id\n" + "".join(f"{user}\n" for user in range(1000)))
    before = signal.getsignal(number)

    def stopped() -> None:
        if len(targets.asked) == 3:
            os.kill(os.getpid(), number)
        if len(targets.asked) >= 3:
            until(lambda: signal.getsignal(number) == signal.SIG_DFL)

    targets.meanwhile = stopped
    done = run(
        "sync", "--company-name", "A", "--concurrency", "1", "--rate", "1000000", str(tmp_path / "m.csv")
    )
    assert done.code == 128 + number
    assert f"not tried ({number.name})" in done.out
    assert ("klearstack-vault: Interrupted." in done.err) is (number == signal.SIGINT)
    assert signal.getsignal(number) == before


def test_a_signal_that_comes_when_all_is_done_changes_nothing(
    run: Run, targets: FakeTargets, manifest: str
) -> None:
    def last() -> None:
        if len(targets.asked) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
            until(lambda: signal.getsignal(signal.SIGTERM) == signal.SIG_DFL)

    targets.meanwhile = last
    done = run("sync", "--concurrency", "1", manifest)
    assert (done.code, done.out) == (0, "3 identities: 3 minted\n")


def test_what_a_deadline_leaves_undone_exits_5_although_nothing_failed(
    run: Run, targets: FakeTargets, manifest: str
) -> None:
    done = run("sync", "--deadline", "0.000001", "--rate", "0.001", manifest)
    assert done.code == 5
    assert "not tried (the deadline has passed)" in done.out
    assert "failed" not in done.out


@pytest.mark.parametrize("deadline", ["0", "x", "-1", ""])
def test_a_deadline_is_a_duration(run: Run, targets: FakeTargets, manifest: str, deadline: str) -> None:
    done = run("sync", "--deadline", deadline, manifest)
    assert (done.code, targets.asked) == (64, [])
    assert re.search("--deadline (is not a duration such as|must be more than 0 seconds)", done.err)
    assert run("sync", "--deadline", "1h30m", manifest).code == 0


def test_flags_reach_each_targets_settings(run: Run, targets: FakeTargets, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("hvs.other")
    (tmp_path / "m").write_text(
        f"targets:\n- {{}}\n- {{address: 'https://b.example', token_file: {tmp_path}/token}}\nidentities:\n- user_id: 1\n"
    )
    done = run(
        "sync",
        "--company-name",
        "Acme",
        "--mount",
        "kv",
        "--min-ttl",
        "5m",
        "--format",
        "yaml",
        str(tmp_path / "m"),
    )
    assert done.code == 0
    assert [(one.mount, one.min_ttl) for one in targets.settings] == [("kv", 300)] * 2
    assert [one.vault_addr[0] for one in targets.settings] == ["https://vault.example", "https://b.example"]


def test_the_company_may_come_from_the_environment(
    run: Run, targets: FakeTargets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "m.csv").write_text("user_id\n1\n")
    monkeypatch.setenv("KLEARSTACK_COMPANY_NAME", "Acme")
    assert run("sync", str(tmp_path / "m.csv")).code == 0


@pytest.mark.parametrize("command", ["sync", "watch"])
def test_a_line_of_standard_input_is_no_company_even_if_the_environment_says_so(
    run: Run, targets: FakeTargets, manifest: str, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("KLEARSTACK_COMPANY_NAME", "-")
    done = run(command, manifest)
    assert (done.code, targets.asked) == (64, [])
    assert "default company of a manifest is not read from" in done.err


def test_a_shard_is_a_part(run: Run, targets: FakeTargets, manifest: str) -> None:
    codes = [run("sync", "--shard", f"{number}/2", manifest).code for number in (1, 2)]
    assert (codes, sorted(targets.asked)) == ([0, 0], ["0", "1", "2"])


def test_a_manifest_may_come_from_standard_input(
    run: Run, targets: FakeTargets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(MANIFEST.encode())))
    assert run("sync", "--format", "csv", "-").out == "3 identities: 3 minted\n"


def test_a_report_that_cannot_be_made_exits_73_before_anything_is_done(
    run: Run, targets: FakeTargets, manifest: str, tmp_path: Path
) -> None:
    done = run("sync", "--report", str(tmp_path / "missing" / "report"), manifest)
    assert (done.code, done.out, targets.asked) == (73, "", [])


def test_a_report_may_go_to_standard_output(
    targets: FakeTargets, manifest: str, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("-", "/dev/stdout"):
        with pytest.raises(SystemExit):
            cli.main(("sync", "--report", name, manifest))
        out, err = capfd.readouterr()
        assert [json.loads(line)["result"] for line in out.splitlines()] == ["minted"] * 3
        assert err.endswith("3 identities: 3 minted\n")


def test_a_report_on_a_full_disk_exits_74(
    run: Run, targets: FakeTargets, manifest: str, tmp_path: Path
) -> None:
    full = device(tmp_path, "full")
    done = run("sync", "--report", str(full), manifest)
    assert (done.code, done.out) == (74, "")
    assert done.err == f"klearstack-vault: {full} cannot be written (No space left on device).\n"


def test_a_report_of_which_the_disk_takes_half_a_line_is_told(tmp_path: Path) -> None:
    done = Told(Entry(1, Identity("26", "Acme"), None), "fresh")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with sync_command._reporting(Output(str(tmp_path / "report")), Progress(1)) as tell:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
        try:
            with pytest.raises(WriteError, match="cannot be written"):
                tell(done)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_terminal_is_shown_how_far_it_is(
    run: Run, targets: FakeTargets, manifest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    done = run("sync", manifest)
    assert "100%" in done.err
    assert done.out == "3 identities: 3 minted\n"


# watch


def test_watch_hands_the_manifest_to_the_service(
    run: Run, targets: FakeTargets, fake_service: FakeService, manifest: str
) -> None:
    told = "klearstack-vault: keeping the tokens of 3 identities\n"
    assert run("watch", "--rate", "2.5", "--concurrency", "3", manifest) == (0, "", told)
    assert fake_service.plan is not None
    assert [(line, one.user_id) for line, one, *_ in fake_service.plan.entries] == [
        (2, "0"),
        (3, "1"),
        (4, "2"),
    ]
    assert [one().mount for one in fake_service.plan.targets] == ["secret"]
    how = fake_service.watcher_of.keywords
    assert (how["rate"], how["concurrency"], how["files"]) == (2.5, 3, TokenFiles())
    assert fake_service.watcher_of([], [])  # a Watcher takes all of that


def test_watch_ends_well_by_sigterm_and_by_its_number_otherwise(
    run: Run, targets: FakeTargets, fake_service: FakeService, manifest: str
) -> None:
    assert run("watch", manifest).code == 0
    fake_service.ended = signal.SIGINT
    done = run("watch", manifest)
    assert (done.code, done.err.splitlines()[1:]) == (130, ["klearstack-vault: Interrupted."])


def test_watch_takes_no_standard_input_which_cannot_be_reloaded(
    run: Run, targets: FakeTargets, fake_service: FakeService
) -> None:
    done = run("watch", "--format", "csv", "-")
    assert done.code == 64
    assert "cannot be reloaded. Name a file." in done.err


@pytest.mark.parametrize(
    ("text", "mode"), [("0600", 0o600), ("640", 0o640), ("0o440", 0o440), ("770", 0o770), ("0", 0)]
)
def test_a_mode_is_octal(
    run: Run, targets: FakeTargets, fake_service: FakeService, manifest: str, text: str, mode: int
) -> None:
    assert run("watch", "--mode", text, manifest).code == 0
    assert fake_service.watcher_of.keywords["files"] == TokenFiles(Rights(mode))


def test_a_mode_that_lets_others_in_or_is_none_is_refused(
    run: Run, targets: FakeTargets, fake_service: FakeService, manifest: str
) -> None:
    for text in ("", "x", "rw", "8", "-1", "644", "0601", "602", "1600", "4600"):
        done = run("watch", "--mode", text, manifest)
        assert (done.code, fake_service.plan) == (64, None), text
        assert "--mode has an invalid value." in done.err, text


def test_an_owner_is_told_by_names_or_numbers(
    run: Run, targets: FakeTargets, fake_service: FakeService, manifest: str
) -> None:
    me, mine = pwd.getpwuid(0), grp.getgrgid(0)
    for text, owner in (
        ("0", (0, -1)),
        ("12:34", (12, 34)),
        ("4294967294:4294967294", (4294967294, 4294967294)),
        (me.pw_name, (0, -1)),
        (f"{me.pw_name}:", (0, -1)),
        (f"{me.pw_name}:{mine.gr_name}", (0, 0)),
        (f"7:{mine.gr_name}", (7, 0)),
    ):
        assert run("watch", "--owner", text, manifest).code == 0
        assert fake_service.watcher_of.keywords["files"] == TokenFiles(Rights(0o600, owner))


def test_an_owner_that_there_is_not_is_refused(
    run: Run, targets: FakeTargets, fake_service: FakeService, manifest: str
) -> None:
    too_large = ("4294967295", "4294967296", "0:4294967295", "9" * 5000, f"0:{'9' * 5000}")
    for text in ("", ":", ":0", "no-such-user-here", "0:no-such-group-here", "-1", "0:-1", *too_large):
        done = run("watch", f"--owner={text}", manifest)
        assert (done.code, fake_service.plan) == (64, None), text
        assert "--owner must be USER or USER:GROUP" in done.err, text


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("9000", ("127.0.0.1", 9000)),
        (":9000", ("127.0.0.1", 9000)),
        ("0.0.0.0:9000", ("0.0.0.0", 9000)),
        ("[::1]:65535", ("::1", 65535)),
        ("0", ("127.0.0.1", 0)),
    ],
)
def test_metrics_are_served_at_an_address(
    run: Run,
    targets: FakeTargets,
    fake_service: FakeService,
    manifest: str,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    address: object,
) -> None:
    log: list[object] = []

    @contextmanager
    def served(stats: object, host: str, port: int) -> Iterator[int]:
        log.append((host, port))
        yield port
        assert stats is fake_service.watcher_of.keywords["stats"]
        log.append("closed")

    monkeypatch.setattr("vault_plugin.bulk.metrics.served", served)
    fake_service.meanwhile = lambda: log.append("watched")
    assert run("watch", "--metrics", text, manifest).code == 0
    assert log == [address, "watched", "closed"]


def test_an_address_without_a_port_is_refused(
    run: Run, targets: FakeTargets, fake_service: FakeService, manifest: str
) -> None:
    for text in ("", "x", "h:", "65536", "-1", "h:x", "1.5", "h:9000:", "9" * 5000):
        done = run("watch", f"--metrics={text}", manifest)
        assert (done.code, fake_service.plan) == (64, None), text
        assert "--metrics must be PORT or HOST:PORT." in done.err, text


def test_the_hook_is_there_until_the_end(
    run: Run, targets: FakeTargets, fake_service: FakeService, manifest: str, tmp_path: Path
) -> None:
    def change() -> None:
        fake_service.watcher_of.keywords["files"].on_change.call()

    fake_service.meanwhile = change
    assert run("watch", "--on-change", f"touch '{tmp_path}/a b'", manifest).code == 0
    assert (tmp_path / "a b").exists()


def test_a_hook_whose_quote_does_not_end_exits_64(
    run: Run, targets: FakeTargets, fake_service: FakeService, manifest: str
) -> None:
    done = run("watch", "--on-change", "x 'y", manifest)
    assert (done.code, fake_service.plan) == (64, None)
    assert "--on-change takes a command" in done.err


def test_sync_does_not_load_the_metrics_server(run: Run, targets: FakeTargets, manifest: str) -> None:
    assert watch_command.watch.name == "watch"
    assert not hasattr(watch_command, "served")


# What the parts warn of


def told(name: str, level: int, text: str, *arguments: object) -> None:
    logging.getLogger(name).log(level, text, *arguments)


@pytest.mark.parametrize("repeat", [True, False])
def test_among_many_identities_a_part_warns_once(repeat: bool, capsys: pytest.CaptureFixture[str]) -> None:
    common.log_to_stderr(1, repeat=repeat)
    for number in (1, 2):
        for part in common.ONCE:
            told(part, logging.WARNING, "the clock of %s", part)
        told("vault_plugin.vault.store", logging.WARNING, "another %d", number)
        told("vault_plugin.bulk.watch", logging.WARNING, "an outage")
        told("vault_plugin.vault.store", logging.INFO, "read")
        told("vault_plugin.vault.store", logging.ERROR, "lost")
    err = capsys.readouterr().err
    counts = [
        err.count(text) for text in ("the clock of", "another", "an outage", "INFO: read", "ERROR: lost")
    ]
    # The clocks' text is the same for all parts; what is told apart by its numbers alone is the same warning.
    assert counts == ([2 * len(common.ONCE), 2, 2, 2, 2] if repeat else [1, 1, 2, 2, 2])
