"""What is sent to Vault again, to which node, and when a request fails: the table of verdicts, and how they add up."""

import json
import math
from contextlib import suppress
from http.client import HTTPMessage

import pytest
from support.fakes import FakeClock

from vault_plugin.errors import StoreBusyError, StoreError, StoreSettingsError
from vault_plugin.network.causes import Cause, ConnectionFailure
from vault_plugin.timing.deadline import Deadline
from vault_plugin.vault.connections import Response
from vault_plugin.vault.retries import (
    FINAL,
    NOBODY_LISTENS,
    QUOTA,
    SECOND_IS_FINAL,
    TRANSIENT,
    Attempts,
    PermanentError,
    Verdict,
    on_failure,
    on_response,
)

ONE, OTHER = "http://one.example:8200", "http://other.example:8200"
NODES = (ONE, OTHER)
PATH = "/v1/secret/data/x"
HTML = b"<!doctype html><title>sealed</title>"


def listed(error: str) -> bytes:
    return json.dumps({"errors": [error]}).encode()


def verdict_on(
    status: int, body: bytes = b"{}", location: str = "", *, permanent: bool = False
) -> Verdict | None:
    headers = HTTPMessage()
    if location:
        headers["Location"] = location
    return on_response(Response(status, headers, body, 0.0), ONE, PATH, NODES, lambda _: permanent)


@pytest.mark.parametrize(
    ("status", "body"), [(200, b"{}"), (204, b""), (404, listed("")), (403, listed("denied"))]
)
def test_what_vault_responds_is_the_result(status: int, body: bytes) -> None:
    assert verdict_on(status, body) is None


def test_each_failure_has_its_verdict() -> None:
    for status, body, reason, error, weight, ambiguous in (
        (429, b"{}", "its rate limit quota is exceeded (status 429)", StoreBusyError, TRANSIENT, False),
        (400, listed("upgrading from non-versioned to versioned"), "its KV secrets engine is still being set up", StoreBusyError, TRANSIENT, False),
        (503, listed("Vault is sealed"), "it is sealed", StoreError, FINAL, False),
        (501, b"{}", "it is not initialized", StoreError, FINAL, False),
        (503, HTML, "status 503 with an HTML page, as a proxy or load balancer sends it", StoreError, TRANSIENT, True),
        (501, HTML, "status 501 with an HTML page, as a proxy or load balancer sends it", StoreError, TRANSIENT, True),
        (500, listed("x"), "status 500", StoreError, TRANSIENT, True),
        (503, b"", "status 503", StoreError, TRANSIENT, True),
        (200, HTML, "the server there is not Vault (status 200, an HTML page)", StoreSettingsError, FINAL, False),
        (302, b"", "the server there is not Vault (status 302, a redirect)", StoreSettingsError, FINAL, False),
    ):  # fmt: skip
        verdict = verdict_on(status, body)
        assert verdict is not None, (status, body)
        assert (verdict.reason, verdict.error) == (reason, error), (status, body)
        assert (verdict.weight, verdict.ambiguous) == (weight, ambiguous), (status, body)
        assert verdict.hint, (status, body)
        assert verdict.stays == (error is StoreBusyError), (status, body)
        assert verdict.is_quota == (status == 429), (status, body)


def test_a_500_that_concerns_the_request_alone_gets_a_second_try() -> None:
    verdict = verdict_on(500, listed("x"), permanent=True)
    assert verdict is not None
    assert (verdict.error, verdict.weight, verdict.ambiguous) == (PermanentError, SECOND_IS_FINAL, True)
    for status in (400, 502):
        other = verdict_on(status, listed("x"), permanent=True)
        assert other is None or other.weight == TRANSIENT


def test_a_redirect_names_the_leader_only_if_it_is_a_given_node() -> None:
    named = verdict_on(307, location=f"{OTHER}{PATH}")
    assert named is not None
    assert (named.leader, named.weight, named.ambiguous) == (OTHER, TRANSIENT, True)
    for location in (f"http://third.example:8200{PATH}", ""):
        unknown = verdict_on(307, location=location)
        assert unknown is not None
        assert (unknown.leader, unknown.weight, unknown.ambiguous) == ("", SECOND_IS_FINAL, True)


def test_each_cause_of_a_failed_connection_has_its_verdict() -> None:
    for cause, error, weight in (
        (Cause.REFUSED, StoreError, NOBODY_LISTENS),
        (Cause.RESET, StoreError, TRANSIENT),
        (Cause.TIMEOUT, StoreError, TRANSIENT),
        (Cause.NAME, StoreError, FINAL),
        (Cause.CERTIFICATE, StoreSettingsError, FINAL),
        (Cause.SCHEME, StoreSettingsError, FINAL),
    ):
        verdict = on_failure(ConnectionFailure(cause))
        assert (verdict.error, verdict.weight, verdict.ambiguous) == (error, weight, weight != FINAL), cause


def test_an_expired_certificate_is_a_matter_of_clocks() -> None:
    assert "clock" in on_failure(ConnectionFailure(Cause.CERTIFICATE, number=10)).hint
    assert "PEM" in on_failure(ConnectionFailure(Cause.CERTIFICATE, number=20)).hint


def tries(*verdicts: tuple[str, Verdict], repeatable: bool = True) -> int:
    """How many of these tries at a node are made before the request fails."""
    attempts, deadline = Attempts(NODES, repeatable=repeatable), Deadline(60, FakeClock(0.0).now)
    made = 1
    with suppress(StoreError):
        for node, verdict in verdicts:
            attempts.delay(node, verdict, deadline)
            made += 1
    node, verdict = verdicts[min(made, len(verdicts)) - 1]
    assert attempts.last is not None
    assert str(attempts.last) == f"The request to Vault at {node} failed: {verdict.reason}."
    assert attempts.last.unrepeatable is not repeatable
    return made


DOWN = Verdict("down", weight=NOBODY_LISTENS)
SEALED = Verdict("sealed", weight=FINAL)
FAILS = Verdict("status 500", ambiguous=True)


def test_a_request_fails_when_every_node_is_given_up() -> None:
    assert tries((ONE, SEALED), (OTHER, SEALED), (ONE, SEALED)) == 2
    assert tries((ONE, SEALED), *[(OTHER, DOWN)] * 20) == 1 + FINAL
    assert tries((ONE, SEALED), *[(OTHER, Verdict("x", weight=SECOND_IS_FINAL))] * 3) == 3
    assert tries((ONE, SEALED), *[(OTHER, FAILS)] * 50) == 52


def test_a_node_that_redirects_to_a_leader_that_was_given_up_is_given_up() -> None:
    to_other = Verdict("redirects", ambiguous=True, leader=OTHER)
    assert tries(*[(ONE, to_other)] * 20) == 21
    assert tries((OTHER, SEALED), (ONE, to_other)) == 2


def test_what_may_have_been_carried_out_is_sent_again_only_if_it_is_repeatable() -> None:
    assert tries((ONE, FAILS), repeatable=False) == 1
    assert tries((ONE, DOWN), repeatable=False) == 2


def test_no_request_is_sent_again_after_the_deadline() -> None:
    attempts = Attempts(NODES, repeatable=True)
    with pytest.raises(StoreError, match="down"):
        attempts.delay(ONE, DOWN, Deadline(0))
    assert attempts.last is not None


@pytest.mark.parametrize("most", [0, 1, 3])
def test_a_request_is_sent_again_no_more_often_than_the_settings_say(most: int) -> None:
    attempts = Attempts(NODES, repeatable=True, max_retries=most)
    leader = Verdict("it redirects", leader=NODES[1])
    for _ in range(most):
        attempts.delay(ONE, Verdict("busy"), Deadline(60))
        attempts.delay(ONE, leader, Deadline(60))  # which is followed, as a part of the same try
    with pytest.raises(StoreBusyError, match="quota"):
        attempts.note(ONE, QUOTA)


def test_a_node_that_asks_for_time_gets_some() -> None:
    attempts, busy = Attempts(NODES, repeatable=True), Verdict("busy", stays=True)
    delays = [attempts.delay(ONE, busy, Deadline(math.inf)) for _ in range(20)]
    assert all(0.05 <= delay <= 1 for delay in delays)
