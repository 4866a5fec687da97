"""What Prometheus is shown: numbers, and none of the names that it takes to mint a token."""

import re
import socket
from hashlib import sha256
from pathlib import Path
from typing import NoReturn

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from vault_plugin.bulk import metrics
from vault_plugin.bulk.metrics import _Stats, served
from vault_plugin.bulk.stats import Expiry, Stats
from vault_plugin.errors import OutputError
from vault_plugin.manifest.entries import Entry
from vault_plugin.tokens.identity import Identity
from vault_plugin.tokens.jwt import Kind


def shown(stats: Stats) -> dict[str, float]:
    registry = CollectorRegistry()
    registry.register(_Stats(stats))
    lines = generate_latest(registry).decode().splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}


def test_at_first_there_is_nothing() -> None:
    assert shown(Stats()) == {
        "klearstack_vault_mints_total": 0,
        "klearstack_vault_single_flight_waits_total": 0,
    }


NAMED = Entry(2, Identity("user-26", "Acme"), None, "billing job")
UNNAMED = Entry(7, Identity("user-27", "Acme"), "/run/user-27")


def counted() -> Stats:
    entries = {NAMED: 1_790_000_090.5, UNNAMED: 1_790_000_000.0}
    stats = Stats(
        mints=3, waits=2, expiries={one.identity: Expiry(one, at, 5.0) for one, at in entries.items()}
    )
    stats.failures.update(vault_busy=4, endpoint_refused=1)
    return stats


def test_what_is_counted_is_shown() -> None:
    assert shown(counted()) == {
        'klearstack_vault_token_expiry_timestamp_seconds{name="billing job"}': 1_790_000_090.5,
        'klearstack_vault_token_expiry_timestamp_seconds{line="7"}': 1_790_000_000,
        'klearstack_vault_failures_total{code="vault_busy"}': 4,
        'klearstack_vault_failures_total{code="endpoint_refused"}': 1,
        "klearstack_vault_mints_total": 3,
        "klearstack_vault_single_flight_waits_total": 2,
    }


def exposed(stats: Stats) -> str:
    registry = CollectorRegistry()
    registry.register(_Stats(stats))
    return generate_latest(registry).decode()


def test_nothing_is_shown_of_an_identity_that_a_guess_could_be_compared_with() -> None:
    text = exposed(counted())
    for one in (NAMED, UNNAMED):
        words = [one.identity.user_id, one.identity.company_name, one.identity.path("", Kind.ACCESS)]
        words += [f"{one.identity.company_name}/{one.identity.user_id}", str(one.file)]
        for word in words:
            digest = sha256(word.encode()).hexdigest()
            assert word not in text
            assert digest[:8] not in text
    assert not re.search(r"[0-9a-f]{8}", re.sub(r"(?m) \S+$", "", text))  # no other hash either


def test_a_name_is_escaped_as_a_label() -> None:
    entry = NAMED._replace(name='a "b" \\ c')
    text = exposed(Stats(expiries={entry.identity: Expiry(entry, 1.0, 1.0)}))
    assert r'{name="a \"b\" \\ c"} 1.0' in text


def test_the_metrics_keep_to_the_conventions_of_prometheus() -> None:
    """Base units as suffixes, `_total` for counters, a time as a Unix timestamp: promtool's rules, which tests/long asks itself."""
    for family in _Stats(counted()).collect():
        samples = {sample.name for sample in family.samples}
        assert samples == {f"{family.name}_total" if family.type == "counter" else family.name}
        assert re.fullmatch(r"klearstack_vault_[a-z]+(_[a-z]+)*", family.name)
        assert family.documentation
        if "expiry" in family.name:
            assert (family.type, family.name.endswith("_timestamp_seconds")) == ("gauge", True)


def test_the_docs_name_each_metric_and_their_alert_rule_one_of_them() -> None:
    page = (Path(__file__).parents[2] / "docs/manifests.md").read_text(encoding="utf-8")
    names = {sample.name for family in _Stats(counted()).collect() for sample in family.samples}
    assert set(re.findall(r"klearstack_vault_\w+_(?:total|seconds)", page)) == names
    assert "expr: klearstack_vault_token_expiry_timestamp_seconds - time() <" in page


def test_what_is_shown_goes_by_what_is_counted_then() -> None:
    stats = Stats()
    registry = CollectorRegistry()
    registry.register(_Stats(stats))
    stats.mints = 7
    assert b"klearstack_vault_mints_total 7.0" in generate_latest(registry)


def test_each_metric_has_a_help_text() -> None:
    for family in _Stats(Stats()).collect():
        assert family.documentation.endswith(("expires.", "failed.", "endpoint.", "identity."))


def test_an_address_that_is_taken_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def taken(*_args: object, **_kwargs: object) -> NoReturn:
        raise OSError(98, "Address already in use")

    monkeypatch.setattr(socket, "getaddrinfo", taken)
    with pytest.raises(OutputError, match=r"cannot be served at that address \(Address already in use\)"):
        served(Stats(), "127.0.0.1", 1).__enter__()


class FakeServer:
    """A server, and the thread in which it runs, that only note what is asked of them."""

    server_port = 9999

    def __init__(self) -> None:
        self.asked: list[object] = []

    def start(self, port: int, host: str, registry: CollectorRegistry) -> "tuple[FakeServer, FakeServer]":
        self.asked.append((host, port, b"klearstack_vault_mints_total 5.0" in generate_latest(registry)))
        return self, self

    def shutdown(self) -> None:
        self.asked.append("shutdown")

    def join(self) -> None:
        self.asked.append("join")

    def server_close(self) -> None:
        self.asked.append("close")


def test_metrics_are_served_until_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    server = FakeServer()
    monkeypatch.setattr(metrics, "start_http_server", server.start)
    with served(Stats(mints=5), "h", 1) as port:
        assert (port, server.asked) == (9999, [("h", 1, True)])
    assert server.asked[1:] == ["shutdown", "join", "close"]
