"""What the composition root adds to the parts."""

import time
from email.utils import formatdate

import pytest

from vault_plugin.app import connect, tell_skew
from vault_plugin.broker import Broker
from vault_plugin.clock import ServerClock
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
