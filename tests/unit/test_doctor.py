"""`doctor` without servers: what it skips, how it words verdicts, and what rare responses mean."""

import json
import re
from collections.abc import Callable, Iterator
from email.message import Message
from http.client import HTTPMessage
from pathlib import Path
from typing import Any, Self, cast

import pytest
from support.fakes import NOW, Run

from vault_plugin.doctor import examination, host, servers, writing
from vault_plugin.doctor.access import Access
from vault_plugin.doctor.endpoint import verdicts_on_endpoint
from vault_plugin.doctor.nodes import verdicts_on_node
from vault_plugin.doctor.verdicts import Level, Verdict, exit_code, failed, ok, shown, skipped, warning
from vault_plugin.endpoint.client import EndpointSource
from vault_plugin.errors import (
    Failure,
    KlearstackVaultError,
    OutputError,
    SourceError,
    StoreBusyError,
    StoreError,
    StoreRefusedError,
)
from vault_plugin.locks.singleflight import SingleFlight
from vault_plugin.network.tls import Certificate
from vault_plugin.settings import Settings
from vault_plugin.settings.declarations import survey_all
from vault_plugin.settings.gathering import Survey
from vault_plugin.settings.origin import Group
from vault_plugin.settings.values import RateLimit
from vault_plugin.timing.clock import ServerClock
from vault_plugin.timing.deadline import Deadline
from vault_plugin.tokens.identity import Identity
from vault_plugin.tokens.jwt import Kind
from vault_plugin.vault.client import Found
from vault_plugin.vault.connections import Response
from vault_plugin.vault.hvac_errors import CasMismatchError, DeniedError
from vault_plugin.vault.retries import QUOTA
from vault_plugin.vault.transport import Transport, TransportError


def found(verdicts: list[Verdict]) -> list[tuple[str, str]]:
    return [(str(one.level), one.check) for one in verdicts]


# the command


@pytest.fixture(autouse=True)
def _locks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KLEARSTACK_LOCK_DIR", str(tmp_path))


def test_without_settings_it_says_what_is_missing_and_checks_what_it_can(run: Run) -> None:
    done = run("doctor", "--user-id", "26", "--timeout", "5")
    assert (done.code, done.err) == (78, "")
    lines = done.out.splitlines()
    assert "ok           setting timeout: 5 (--timeout)" in lines
    assert "ok           setting user_id: (hidden) (--user-id)" in lines
    assert "ok           lock folder: a lock can be acquired." in lines
    assert "not checked  endpoint: its settings are invalid." in lines
    assert "not checked  Vault: its settings are invalid." in lines
    (wrong,) = [line for line in lines if line.startswith("failed")]
    assert "--url (KLEARSTACK_URL) is missing" in wrong
    assert wrong.endswith("See `klearstack-vault doctor --help`.")


@pytest.mark.parametrize(
    ("own", "skips"), [({}, True), ({"VAULT_PROXY_ADDR": "none"}, False), ({"HTTPS_PROXY": "p"}, False)]
)
def test_vault_is_not_asked_without_the_proxy_that_cannot_be_read(own: dict[str, str], skips: bool) -> None:
    environ = {"HTTPS_PROXY": "socks5://p", "VAULT_ADDR": "https://v.example"} | own
    looks = examination.Examination(survey_all(environ), write_test=False)
    skipped_vault = [verdict.line for verdict in looks._nodes([])] if skips else []
    assert skipped_vault == ["not checked  Vault: its settings are invalid."] * skips
    assert (Group.VAULT_CONNECTION in looks._invalid) is skips


def test_json_is_one_object(run: Run) -> None:
    done = run("doctor", "--format", "json")
    answer = json.loads(done.out)
    assert (done.code, answer["exit_code"], done.out.count("\n")) == (78, 78, 1)
    (wrong,) = [one for one in answer["verdicts"] if one["verdict"] == "failed"]
    assert wrong.keys() == {"verdict", "check", "message", "remedy", "code"}
    assert (wrong["check"], wrong["code"]) == ("settings", "settings")


def test_standard_input_is_not_read(run: Run) -> None:
    assert run("doctor", "--user-id", "-").code == 64


def test_where_a_credential_comes_from_is_shown_without_it(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".vault-token").write_text("s.credential")
    monkeypatch.setenv("HOME", str(tmp_path))
    done = run("doctor")
    assert f"ok           setting vault_token: (hidden) ({tmp_path}/.vault-token)" in done.out
    assert "s.credential" not in done.out


def test_a_value_takes_no_more_than_its_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pem = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
    monkeypatch.setenv("VAULT_CACERT_BYTES", pem)
    monkeypatch.setenv("VAULT_RATE_LIMIT", "10:20")
    lines = run("doctor").out.splitlines()
    assert "ok           setting vault_rate_limit: 10:20 (VAULT_RATE_LIMIT)" in lines
    (shown,) = [line for line in lines if "vault_cacert_bytes" in line]
    assert re.fullmatch(r"ok +setting vault_cacert_bytes: \(\d+ characters\) \(VAULT_CACERT_BYTES\)", shown)


def test_a_deadline_that_has_passed_leaves_the_rest_unchecked(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examination.Examination, "_seconds", lambda *_: 0.0)
    nodes = "http://127.0.0.1:1,http://127.0.0.1:2"
    done = run("doctor", "--url", "http://127.0.0.1:3", "--vault-addr", nodes)
    late = [line for line in done.out.splitlines() if line.endswith("the deadline passed.")]
    assert [line.split()[2] for line in late] == ["endpoint:", "Vault", "Vault"]


def test_what_takes_the_last_time_leaves_no_login(monkeypatch: pytest.MonkeyPatch) -> None:
    survey = Survey({"timeout": 5.0, "deadline": 5.0}, Deadline(0), {}, None)
    one = examination.Examination(survey, write_test=False)

    def reachable(nodes: list[str]) -> Iterator[Verdict]:
        nodes.append("node")
        yield ok("Vault", "")

    monkeypatch.setattr(one, "_nodes", reachable)
    assert found(list(one.verdicts()))[-1] == ("not checked", "Vault login and KV mount")


# verdicts


def test_the_exit_code_is_that_of_the_worst_failure() -> None:
    down, busy = failed("a", StoreError("Down.")), failed("b", StoreBusyError("Busy."))
    denied = failed("c", StoreRefusedError("Denied."))
    mild = [ok("d", ""), warning("e", "", ""), skipped("f", "")]
    assert exit_code(mild) == 0
    assert exit_code([*mild, down, busy]) == 69
    assert exit_code([busy, down, denied, *mild]) == 77


def test_a_verdict_is_a_line_with_its_remedy() -> None:
    error = StoreError("It failed.", hint="Repair it.")
    assert failed("Vault state", error).line == "failed       Vault state: It failed. Repair it."
    assert warning("x", "Soon.", "Act.").line == "warning      x: Soon. Act."


@pytest.mark.parametrize("text", ["1.2+ent.hsm", "team/a-b_c@d:e f", "é" * 80])
def test_what_a_server_says_about_itself_is_shown(text: str) -> None:
    assert shown(text) == text


def test_what_could_pass_for_something_else_is_not_shown() -> None:
    for text in ("", "a" * 81, "a\n", "a\nok  b", "\x1b[32m", "\u202ea", "a\x00", 5, None, ["a"]):
        assert shown(text) == "?", ascii(text)


# host and servers


def test_a_folder_without_locks_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unlocked:
        unlocked = OutputError("There are no locks.", hint="Name another.")

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(SingleFlight, "lock", lambda *_: Unlocked())
    verdict = host.verdict_on_locks(None, Deadline(1))
    assert verdict.level is Level.WARNING
    assert verdict.line.endswith("and KV v1 is refused. Name another.")


def test_the_certificate_of_the_chain_that_expires_first_counts() -> None:
    late, soon = NOW + 9e7, NOW + 86400.0
    chain = [Certificate("host", late), Certificate("CA", soon)]
    verdict = servers._on_chain("TLS", chain, NOW)
    assert verdict.level is Level.WARNING
    assert "verifies by CA; the first of the chain to expire is that of CA, at 2026" in verdict.text
    assert servers._on_chain("TLS", [Certificate("own", late)], NOW).level is Level.OK


# the endpoint


class _Endpoint:
    """An endpoint that is connected to, and responds in that way."""

    peer = None

    def __init__(self, failure: Failure | None) -> None:
        self.failure = failure

    def explain(self, exc: Exception) -> KlearstackVaultError:
        return SourceError("Unreachable.")

    def probe(self, _: Deadline) -> Failure | None:
        return self.failure


@pytest.mark.parametrize(
    ("failure", "level", "said"),
    [
        (None, Level.WARNING, "as if there were one. Report this to KlearStack."),
        (Failure("parameter_user_id", 500), Level.OK, "as documented"),
        (Failure("status", 500), Level.WARNING, "not as documented. Request a token"),
        (Failure("refuses", 422), Level.OK, "(status 422; no token was requested)"),
    ],
)
def test_the_endpoints_response_to_a_request_without_an_identity(
    monkeypatch: pytest.MonkeyPatch, failure: Failure | None, level: Level, said: str
) -> None:
    monkeypatch.setattr("vault_plugin.doctor.endpoint.way_to", lambda *_: iter(()))
    (verdict,) = verdicts_on_endpoint(cast(EndpointSource, _Endpoint(failure)), 5)
    assert verdict.level is level
    assert said in verdict.line


# nodes


def response(status: int, body: bytes, location: str = "") -> Response:
    headers = cast(HTTPMessage, Message())
    headers["Content-Type"] = "application/json"
    if location:
        headers["Location"] = location
    return Response(status, headers, body, 0.0)


class _Node:
    """A node that gives these responses, or verdicts on connections without one."""

    def __init__(self, *responses: Response | StoreBusyError | None) -> None:
        self._responses = iter(responses)

    def peer(self, _: str) -> None:
        return None

    def once(self, *_: object) -> Response:
        given = next(self._responses)
        if given is None:
            raise TransportError(QUOTA._replace(reason="no response in time"))
        if isinstance(given, StoreBusyError):
            raise given
        return given


STANDBY = response(200, b'{"initialized": true, "sealed": false, "standby": true}')


@pytest.mark.parametrize(
    ("responses", "expected"),
    [
        ([None], [("failed", "Vault server")]),
        ([StoreBusyError("Limited.")], [("failed", "Vault server")]),
        (
            [STANDBY, StoreBusyError("Limited.")],
            [("ok", "Vault server"), ("ok", "Vault state"), ("failed", "Vault forwarding")],
        ),
        ([response(204, b"")], [("failed", "Vault server")]),
        ([response(200, b"{}")], [("failed", "Vault server")]),
        ([response(403, b'{"errors": ["no"]}')], [("ok", "Vault server"), ("not checked", "Vault state")]),
        (
            [response(200, b'{"initialized": false, "sealed": true}')],
            [("ok", "Vault server"), ("failed", "Vault state")],
        ),
        ([STANDBY, None], [("ok", "Vault server"), ("ok", "Vault state"), ("failed", "Vault forwarding")]),
        (
            [STANDBY, response(403, b'{"errors": ["permission denied"]}')],
            [("ok", "Vault server"), ("ok", "Vault state"), ("ok", "Vault forwarding")],
        ),
        (
            [STANDBY, response(307, b"", "http://127.0.0.1:8300/v1/auth/klearstack-vault-doctor/login")],
            [("ok", "Vault server"), ("ok", "Vault state"), ("ok", "Vault forwarding")],
        ),
        (
            [STANDBY, response(307, b"", "http://127.0.0.1:8400/v1/auth/klearstack-vault-doctor/login")],
            [("ok", "Vault server"), ("ok", "Vault state"), ("failed", "Vault forwarding")],
        ),
        (
            [STANDBY, response(500, b'{"errors": ["no active node"]}')],
            [("ok", "Vault server"), ("ok", "Vault state"), ("failed", "Vault forwarding")],
        ),
    ],
)
def test_the_responses_of_a_node(
    monkeypatch: pytest.MonkeyPatch,
    responses: list[Response | StoreBusyError | None],
    expected: list[tuple[str, str]],
) -> None:
    monkeypatch.setattr("vault_plugin.doctor.nodes.way_to", lambda *_: iter(()))
    node = "http://127.0.0.1:8200"
    transport = cast(Transport, _Node(*responses))
    nodes = node, "http://127.0.0.1:8300"
    assert found(list(verdicts_on_node("Vault", transport, node, nodes, 5))) == expected


def test_the_rate_limit_of_the_settings_is_the_failure_of_a_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vault_plugin.doctor.nodes.way_to", lambda *_: iter(()))
    busy, node = StoreBusyError("Limited.", hint="Increase it."), "http://127.0.0.1:8200"
    transport = Transport([node], ServerClock(), timeout=1, rate_limit=RateLimit(1, 1))

    def wait(_: Deadline) -> None:
        raise busy

    monkeypatch.setattr(transport.quota, "wait", wait)
    (verdict,) = verdicts_on_node("Vault", transport, node, (node,), 5)
    assert (verdict.error, verdict.line.endswith("Limited. Increase it."), exit_code([verdict])) == (
        busy,
        True,
        75,
    )


def test_the_version_of_a_node_is_shown_only_if_it_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vault_plugin.doctor.nodes.way_to", lambda *_: iter(()))

    def said(version: object) -> str:
        body = json.dumps({"initialized": True, "sealed": False, "version": version}).encode()
        node = cast(Transport, _Node(response(200, body)))
        return next(verdicts_on_node("Vault", node, "http://127.0.0.1:8200", (), 5)).text

    assert said("2.1.0+ent") == "it is Vault or OpenBao 2.1.0+ent."
    assert said("2.1.0\nok  Vault login: \x1b[2J") == "it is Vault or OpenBao ?."
    assert said({"a": 1}) == "it is Vault or OpenBao ?."
    assert said("") == "it is Vault or OpenBao."


# access


class _Login:
    namespace = None

    def token(self, _: Deadline) -> str:
        return "s.token"


class _Client:
    """A client whose requests end as `ends` says by the beginning of their API path, or else in an empty response."""

    login = _Login()

    def __init__(self, **ends: Any) -> None:
        self._ends = ends
        self.writes: list[str] = []

    def ask(self, _what: str, path: str, *_: object) -> Any:
        return self._end(path.split("/", maxsplit=1)[0])

    def kv_version(self, *_: object) -> Any:
        return self._end("version")

    def read(self, *_: object) -> Any:
        return self._end("read")

    def set_metadata(self, *_: object) -> None:
        self.writes.append("metadata")

    def write(self, *_: object) -> tuple[dict[str, str], float]:
        self.writes.append("data")
        return {"deletion_time": "2026-11-22T22:05:16Z"}, 0.0

    def write_v1(self, *_: object) -> None:
        self.writes.append("v1")

    def _end(self, name: str) -> Any:
        end = self._ends.get(name, {})
        if isinstance(end, Exception):
            raise end
        return end


def access(kv_version: str | None = None, identity: Identity | None = None, **ends: Any) -> Access:
    settings = Settings(
        url="http://127.0.0.1:1", vault_addr=("http://127.0.0.1:2",), auth="none", timeout=5.0, mount="kv",
        path_prefix="p", kv_version=kv_version,
    )  # fmt: skip
    return Access(cast(Any, _Client(**ends)), cast(Any, None), settings, identity, Deadline(5))


DOWN, DENIED = StoreError("Down."), DeniedError("Denied.")


def test_a_vault_that_fails_during_the_checks_is_a_failure_of_each() -> None:
    assert found([access(auth=DOWN).verdict_on_login()]) == [("failed", "Vault login")]
    broken = access(kv=DOWN, sys=DOWN)
    assert found(list(broken.verdicts_on_mount(2))) == [("ok", "KV mount"), ("failed", "KV configuration")]
    assert found(list(broken.verdicts_on_paths(2)))[0] == ("failed", "capabilities")


def test_a_mount_that_vault_does_not_show_is_missing_if_the_policy_grants_something_there() -> None:
    def version(**ends: Any) -> Callable[[], int]:
        return access(version=DENIED, **ends).version

    with pytest.raises(DeniedError):
        version(sys=DOWN)()
    with pytest.raises(DeniedError):
        version(sys={"kv/data/p/*": ["deny"]})()
    with pytest.raises(StoreError, match="No KV secrets engine is mounted at kv"):
        version(sys={"kv/data/p/*": ["read"]})()
    assert access("1", version=DENIED).version() == 1


@pytest.mark.parametrize(
    ("about", "level", "said"),
    [
        ({"ttl": 0, "policies": ["root"]}, Level.OK, "by none; policies: root; the Vault token does not expire."),
        ({}, Level.OK, "policies: unknown; the Vault token does not expire."),
        ({"policies": ["a\nb", "x" * 81, 5, "c"]}, Level.OK, "policies: ?, ?, ?, c; "),
        ({"ttl": 30, "renewable": True}, Level.OK, "valid for another 30 s, renewable."),
    ],
)  # fmt: skip
def test_the_login(about: dict[str, Any], level: Level, said: str) -> None:
    verdict = access(auth=about).verdict_on_login()
    assert verdict.level is level
    assert said in verdict.line


def test_the_limit_of_a_mount_is_shown_only_if_it_is_one() -> None:
    *_, verdict = access(kv={"delete_version_after": "5s\n\x1b[2J"}).verdicts_on_mount(2)
    assert verdict.level is Level.WARNING
    assert verdict.text.startswith("delete_version_after is ?, cas_required is false.")


@pytest.mark.parametrize("version", [1, 2])
def test_no_verdict_on_capabilities_has_an_identity_whatever_the_prefix(version: int) -> None:
    looked = access(identity=Identity("p", "p"))  # as the prefix
    verdicts = looked._capabilities(version)
    area = {1: "kv/p", 2: "kv/data/p"}[version]
    checks = {check for _, check in found(list(verdicts))}
    assert {f"capabilities on {area}/COMPANY/USER/{kind}" for kind in Kind} <= checks
    assert not any("/p/p" in check for check in checks)


def test_a_write_test_that_fails_or_meets_another_one() -> None:
    verdict = writing.verdict_on_writing(access(read=DOWN), 2)
    assert (verdict.level, verdict.error) == (Level.FAILED, DOWN)
    verdict = writing.verdict_on_writing(access(read=CasMismatchError()), 2)
    assert verdict.level is Level.WARNING
    assert verdict.line.endswith("wrote to kv/p/klearstack-vault-doctor at the same time. Try again.")


OWN = {"written-by": "klearstack-vault doctor --write-test"}


def version(data: dict[str, str] | None, ends: str = "", **custom: str) -> dict[str, Any]:
    """What KV v2 returns of a version that was created at 22:05:06."""
    created = "2026-11-22T22:05:06.5Z"
    about = {"version": 3, "created_time": created, "deletion_time": ends, "custom_metadata": custom}
    return {"metadata": about, "data": data}


def test_a_write_test_overwrites_nothing_but_its_own() -> None:
    for kv, secret, written in (
        (1, None, True),
        (1, OWN, True),
        (1, {"password": "CANARY"}, False),
        (1, OWN | {"password": "CANARY"}, False),
        (1, {}, False),
        (2, None, True),
        (2, version(OWN), True),
        (2, version({"password": "CANARY"}), False),
        (2, version(OWN | {"password": "CANARY"}), False),
        (2, version({}), False),
        (2, version(OWN, owner="CANARY"), False),
        (2, version(None, "2026-11-22T22:05:16.6Z"), True),  # deleted by Vault after 10 s
        (2, version(None, "2026-11-22T22:05:11Z"), True),  # or earlier, by a limit of the mount
        (2, version(None), True),  # destroyed
        (2, version(None, "2026-11-22T22:06:16Z"), False),  # deleted by someone, who may undelete it
        (2, version(None, "2026-11-22T22:05:16.6Z", owner="CANARY"), False),
    ):
        tested = access(read=Found(secret, 0.0))
        verdict = writing.verdict_on_writing(tested, kv)
        writes = ["v1"] if kv == 1 else ["metadata", "data"]
        assert cast(_Client, tested.client).writes == (writes if written else []), (kv, secret)
        assert (verdict.level is Level.FAILED) is not written, (kv, secret)
        if not written:
            assert verdict.text.startswith(
                "kv/p/klearstack-vault-doctor holds a secret that no write test wrote"
            ), (kv, secret)
            assert exit_code([verdict]) == 78, (kv, secret)
        assert "CANARY" not in verdict.line, (kv, secret)
