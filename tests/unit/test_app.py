"""What the composition root adds to the parts."""

import time
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from support.fakes import ACME

from vault_plugin.app import connect
from vault_plugin.broker import Broker
from vault_plugin.errors import BusyError, Failure, SourceError
from vault_plugin.failures import error_of
from vault_plugin.settings import Settings
from vault_plugin.timing.clock import ServerClock, warn_of_skew
from vault_plugin.timing.deadline import Deadline
from vault_plugin.vault.reader import WarmReader
from vault_plugin.vault.transport import Transport


def clock(ahead: float) -> ServerClock:
    """The clock of a server that is ahead of us (seconds), as its `Date` header shows it."""
    made = ServerClock()
    made.observe_date(formatdate(time.time() + ahead, usegmt=True), time.monotonic())
    return made


@pytest.mark.parametrize(("vault", "said"), [(60, "60 s ahead"), (-60, "60 s behind")])
def test_clocks_that_disagree_are_logged(vault: float, said: str, caplog: pytest.LogCaptureFixture) -> None:
    warn_of_skew(clock(vault), clock(0))
    assert said in caplog.text


@pytest.mark.parametrize("vault", [-3, 0, 3])
def test_nothing_is_logged_of_clocks_that_agree(vault: float, caplog: pytest.LogCaptureFixture) -> None:
    warn_of_skew(clock(vault), clock(0))
    warn_of_skew(clock(999), ServerClock())  # nothing was heard of the endpoint
    assert caplog.text == ""


def test_the_lock_is_that_of_an_identity_at_an_endpoint(tmp_path: Path) -> None:
    environ = {"VAULT_TOKEN": "hvs.x", "KLEARSTACK_LOCK_DIR": str(tmp_path / "locks")}

    def at(url: str) -> Settings:
        vault = "https://vault.example"
        return Settings.from_env(environ, user_id="26", company_name="Acme", url=url, vault_addr=vault)

    with (
        connect(at("https://staging.example")) as first,
        connect(at("https://api.example")) as second,
        connect(at("HTTPS://Staging.example:443/")) as same,
        first._lock(ACME, Deadline(5)),
    ):
        with second._lock(ACME, Deadline(5)) as handle:
            assert not handle.waited
        with pytest.raises(BusyError), same._lock(ACME, Deadline(0.1)):
            pass


def test_a_failure_is_shared_on_equal_terms_alone(tmp_path: Path) -> None:
    def at(url: str = "https://api.example", **own: str) -> Settings:
        environ = {"VAULT_TOKEN": "hvs.x", "KLEARSTACK_LOCK_DIR": str(tmp_path / "locks"), **own}
        vault = "https://vault.example"
        return Settings.from_env(environ, user_id="26", company_name="Acme", url=url, vault_addr=vault)

    (tmp_path / "ca.pem").touch()
    url = "https://api.example/access/klearstack/getaccesstokenfromuserid"
    others = [
        at("https://API.example"),
        at(KLEARSTACK_TIMEOUT="9"),
        at(KLEARSTACK_CACERT=str(tmp_path / "ca.pem")),
        at(HTTPS_PROXY="http://p.example"),
    ]
    deadline = Deadline(60)
    down, local = error_of(Failure("busy", 429, 100.0), url), error_of(Failure("files"), url)
    for left, shared in ((down, True), (local, False), (SourceError("made of nothing"), False)):
        with connect(at()) as broker, broker._lock(ACME, deadline) as handle:
            handle.share_failure(left)
        for settings in [at(KLEARSTACK_DEADLINE="9"), *others]:
            with connect(settings) as broker, broker._lock(ACME, deadline) as handle:
                found = handle.failure(deadline)
            assert (found is not None) == (shared and settings not in others)
            if found:
                assert (type(found), str(found), found.hint) == (type(down), str(down), down.hint)
                assert found.failure
                assert 90 < found.failure.retry_after < 100
        with connect(at()) as broker, broker._lock(ACME, deadline) as handle:
            assert handle.failure(Deadline(60)) is None  # of a call that begins now
            handle.clear_failure()


def test_a_shared_failure_of_the_proxy_names_it(tmp_path: Path) -> None:
    environ = {"VAULT_TOKEN": "hvs.x", "KLEARSTACK_LOCK_DIR": str(tmp_path / "locks")}
    environ["HTTPS_PROXY"] = "http://u:CANARY@p.example"
    settings = Settings.from_env(
        environ,
        user_id="26",
        company_name="Acme",
        url="https://api.example",
        vault_addr="https://vault.example",
    )
    deadline = Deadline(60)
    for cause, shared in (("proxy_refused", True), ("proxy_login", False), ("proxy_timeout", False)):
        with connect(settings) as broker, broker._lock(ACME, deadline) as handle:
            handle.share_failure(error_of(Failure(cause), "x", settings.proxy))
            found = handle.failure(deadline)
            assert (found is not None) == shared
            assert found is None or "the proxy http://p.example:80 refused" in str(found)
            handle.clear_failure()


def test_vaults_own_limits_and_certificates_are_those_of_its_transport(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = {
        "BAO_CLIENT_TIMEOUT": "1m30s",
        "VAULT_MAX_RETRIES": "0",
        "VAULT_RATE_LIMIT": "7.5",
        "VAULT_CACERT_BYTES": "-----BEGIN CERTIFICATE-----",
        "VAULT_CAPATH": "/",
        "VAULT_TLS_SERVER_NAME": "v.example",
        "VAULT_TOKEN": "hvs.x",
    }
    made: dict[str, object] = {}
    real = Transport.__init__

    def noted(transport: Transport, *addresses: Any, **how: Any) -> None:
        made.update(how)
        real(transport, *addresses, **how)

    monkeypatch.setattr(Transport, "__init__", noted)
    names = ("timeout", "max_retries", "rate_limit", "ca_text", "ca_folder", "server_name")
    expected = (90, 0, (7.5, 7), "-----BEGIN CERTIFICATE-----", "/", "v.example")
    where = {"user_id": "26", "company_name": "Acme", "url": "https://x", "vault_addr": "https://v"}
    with connect(Settings.from_env(given, **where)):
        assert tuple(made[name] for name in names) == expected
    # A flag ranks above variables of settings that stand for the same.
    with connect(Settings.from_env(given, vault_capath="/", **where)):
        assert (made["ca_text"], made["ca_folder"]) == (None, "/")
    with connect(Settings.from_env({"VAULT_TOKEN": "hvs.x", "KLEARSTACK_TIMEOUT": "7"}, **where)):
        assert tuple(made[name] for name in names) == (7, None, None, None, None, None)


def test_connect_sends_nothing() -> None:
    settings = Settings.from_env(
        {"VAULT_TOKEN": "hvs.x"},
        user_id="26",
        company_name="Acme",
        url="https://api.example",
        vault_addr="https://vault.example",
    )
    with connect(settings) as broker:  # conftest.py would fail this test
        assert isinstance(broker, Broker)


def test_the_next_holder_of_the_lock_reads_no_older_state_of_vault(tmp_path: Path) -> None:
    settings = Settings.from_env(
        {"VAULT_TOKEN": "hvs.x", "KLEARSTACK_LOCK_DIR": str(tmp_path / "locks")},
        user_id="26",
        company_name="Acme",
        url="https://api.example",
        vault_addr="https://vault.example",
    )
    with connect(settings) as broker, broker._lock(ACME, Deadline(5)):
        index_of(broker).index = "newest"
    with connect(settings) as broker:
        assert index_of(broker).index is None
        with broker._lock(ACME, Deadline(5)):
            assert index_of(broker).index == "newest"


def index_of(broker: Broker) -> Transport:
    assert isinstance(broker._reader, WarmReader)
    return broker._reader._transport
