"""The endpoint's failures: what a 500 means, the message of each, and which are shared."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vault_plugin import failures
from vault_plugin.demo.faults import missing_parameters
from vault_plugin.endpoint.client import _failure_of
from vault_plugin.endpoint.responses import missing_parameter
from vault_plugin.errors import Failure, SourceBusyError
from vault_plugin.failures import code_of, error_of, is_shared
from vault_plugin.network.causes import Cause, ConnectionFailure
from vault_plugin.network.responses import SPEAKS_TLS

SENTENCE = missing_parameters(["company_name"])


def test_the_documented_kind_of_500_is_a_missing_parameter() -> None:
    for body, cause in (
        (SENTENCE, "parameter_company_name"),
        (f"Error: {SENTENCE}", "parameter_company_name"),
        (json.dumps({"error": SENTENCE}), "parameter_company_name"),
        (json.dumps(missing_parameters(["user_id"])), "parameter_user_id"),
        (json.dumps({"error": missing_parameters(["user_id", "company_name"])}), "parameter_company_name_user_id"),
        (json.dumps({"error": "company_name is required."}), "parameter_company_name"),
        (json.dumps({"detail": "Please provide user id."}), "parameter_user_id"),
        (json.dumps({"error": "One or many required parameters are missing."}), "parameter"),
    ):  # fmt: skip
        assert missing_parameter(body.encode()) == Failure(cause, 500), (body, cause)


def test_any_other_500_is_an_outage() -> None:
    for body in (
        "",
        "<html>Internal error; user id 5 not cached",
        f"<html><p>{SENTENCE}</p></html>",
        "Internal error: company_name",
        "KeyError: user_id is missing",
        json.dumps({"error": "Something went wrong. Please try again later."}),
        json.dumps({"error": "Internal error; user id 5 not cached"}),
        json.dumps({"error": "The database is missing."}),
        json.dumps({"error": SENTENCE, "trace": "x" * 5000}),
        json.dumps(["user_id is missing"]),
        "[" * 2000,
    ):
        assert missing_parameter(body.encode()) is None, body


@given(st.binary(max_size=300))
def test_no_body_breaks_the_reader(body: bytes) -> None:
    failure = missing_parameter(body)
    assert failure is None or code_of(failure) == "endpoint_parameter_missing"


def test_each_cause_is_an_error_that_names_the_endpoint_and_carries_its_facts() -> None:
    for cause in sorted(failures._KINDS):
        failure = Failure(cause, 599, 2.0)
        error = error_of(failure, "https://api.example/x")
        assert (error.code, error.failure) == (code_of(failure), failure), cause
        assert "https://api.example/x" in str(error), cause
        assert "{" not in str(error), cause
        assert error.exit_code not in {69, 75} or error.hint, cause
        assert not isinstance(error, SourceBusyError) or error.retry_after == 2.0, cause


def test_a_certificate_is_said_to_be_what_it_is() -> None:
    assert "does not verify (it has expired)." in str(error_of(Failure("certificate", 10), "https://x"))
    assert "does not verify." in str(error_of(Failure("certificate", 1), "https://x"))


def test_the_reasons_for_no_response_are_distinguished() -> None:
    for cause, said in (
        ("refused", "connection refused"), ("name", "its name does not resolve"), ("timeout", "did not respond in time"),
        ("reset", "reset the connection"), ("tls", "TLS failed"), ("unreachable", "there is no route to its host"),
        ("broken", "broke off the connection"),
    ):  # fmt: skip
        error = error_of(Failure(cause), "https://x")
        assert said in str(error), cause
        assert (error.exit_code, error.retryable) == (69, True), (cause, said)


@pytest.mark.parametrize(("number", "clock"), [(9, True), (10, True), (19, False), (62, False)])
def test_a_certificate_out_of_its_time_may_be_this_hosts_clock(number: int, clock: bool) -> None:
    assert ("this host's clock" in error_of(Failure("certificate", number), "https://x").hint) == clock


def test_a_cause_at_the_endpoint_is_shared() -> None:
    for cause in ("status", "timeout", "name", "refused", "certificate", "refuses", "no_json"):
        assert is_shared(Failure(cause), 10), cause


@pytest.mark.parametrize("cause", ["files", "unasked"])
def test_a_cause_on_this_host_or_in_this_call_is_not_shared(cause: str) -> None:
    assert not is_shared(Failure(cause), 0)


def test_a_deadline_is_shared_with_callers_that_have_no_more_time() -> None:
    assert is_shared(Failure("deadline", 2000), 1.9)
    assert not is_shared(Failure("deadline", 2000), 2.1)


def test_a_cause_from_elsewhere_has_no_code() -> None:
    assert code_of(Failure("unheard_of")) == ""


def test_each_cause_of_a_failed_connection_is_a_failure_that_has_an_error() -> None:
    for details in ("", SPEAKS_TLS):
        for cause in Cause:
            assert code_of(_failure_of(ConnectionFailure(cause, details))), (details, cause)
