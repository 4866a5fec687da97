"""What the composition root adds to the parts."""

import time
from email.utils import formatdate
from pathlib import Path

import pytest
from support.fakes import ACME

from vault_plugin.app import connect, tell_skew
from vault_plugin.broker import Broker
from vault_plugin.clock import ServerClock
from vault_plugin.errors import BusyError
from vault_plugin.retry import Deadline
from vault_plugin.settings import Settings


def clock(ahead: float) -> ServerClock:
    """The clock of a server that is ahead of us (seconds), as its `Date` header shows it."""
    made = ServerClock()
    made.observe_date(formatdate(time.time() + ahead, usegmt=True), time.monotonic())
    return made


@pytest.mark.parametrize(("vault", "said"), [(60, "60 s ahead"), (-60, "60 s behind")])
def test_clocks_that_disagree_are_told_of(vault: float, said: str, caplog: pytest.LogCaptureFixture) -> None:
    tell_skew(clock(vault), clock(0))
    assert said in caplog.text


@pytest.mark.parametrize("vault", [-3, 0, 3])
def test_clocks_that_agree_are_no_news(vault: float, caplog: pytest.LogCaptureFixture) -> None:
    tell_skew(clock(vault), clock(0))
    tell_skew(clock(999), ServerClock())  # nothing was heard of the endpoint
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
        first._flight(ACME, Deadline(5)),
    ):
        with second._flight(ACME, Deadline(5)) as turn:
            assert not turn.waited
        with pytest.raises(BusyError), same._flight(ACME, Deadline(0.1)):
            pass


def test_to_connect_contacts_nobody() -> None:
    settings = Settings.from_env(
        {"VAULT_TOKEN": "hvs.x"},
        user_id="26",
        company_name="Acme",
        url="https://api.example",
        vault_addr="https://vault.example",
    )
    with connect(settings) as broker:  # conftest.py would fail this test
        assert isinstance(broker, Broker)
