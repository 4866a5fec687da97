"""When the Vault token is renewed, without a server and without waiting long."""

import threading
from collections.abc import Callable, Iterator

import pytest
from support.waiting import until

from vault_plugin.errors import StoreError
from vault_plugin.timing.deadline import Deadline
from vault_plugin.vault import renewal
from vault_plugin.vault.renewal import renewing
from vault_plugin.vault.schema import Lease

PERIODIC = Lease(0.02, renewable=True)


class Login:
    """A login whose token, leases and failures tests set. `asked` is what was requested."""

    def __init__(self, token: str = "s.1", lease: Lease | None = None) -> None:
        self.token = token
        self.lease = lease
        self.looked: list[Lease | None] = []
        self.extensions: list[Lease | StoreError | None] = []
        self.asked: list[str] = []
        self.on_new_token: Callable[[], object] = lambda: None

    def current(self, deadline: Deadline) -> tuple[str, Lease | None, float] | None:
        assert deadline.left() <= renewal.REQUEST
        return (self.token, self.lease, 0.0) if self.token else None

    def looked_up(self, token: str, deadline: Deadline) -> Lease | None:
        self.asked.append(f"look up {token}")
        return self.looked.pop(0) if self.looked else None

    def extended(self, token: str, deadline: Deadline) -> Lease | None:
        self.asked.append(f"renew {token}")
        found = self.extensions.pop(0) if self.extensions else None
        if isinstance(found, StoreError):
            raise found
        return found


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("FIRST_LOOK", "SHORTEST", "RETRY_AFTER"):
        monkeypatch.setattr(renewal, name, 0.005)
    yield
    until(lambda: not [one for one in threading.enumerate() if one.name == "klearstack-renewal"])


def asked_by(login: Login, *expected: str) -> None:
    """These requests are made, one after the other, and then no other one."""
    with renewing(lambda: login):
        until(lambda: len(login.asked) >= len(expected))
        threading.Event().wait(0.05)
    assert login.asked == list(expected)


def test_a_token_that_was_given_is_looked_up_once_and_renewed_until_it_cannot_be() -> None:
    login = Login()
    login.looked, login.extensions = [PERIODIC], [PERIODIC, PERIODIC, None]
    asked_by(login, "look up s.1", "renew s.1", "renew s.1", "renew s.1")


def test_the_token_of_a_login_is_renewed_by_the_lease_that_the_login_gave() -> None:
    login = Login(lease=PERIODIC)
    login.extensions = [Lease(0.0, renewable=True)]  # it never expires
    asked_by(login, "renew s.1")


@pytest.mark.parametrize("lease", [Lease(0.02, renewable=False), Lease(0.0, renewable=True)])
def test_a_token_that_cannot_be_renewed_or_never_expires_is_left_alone(lease: Lease) -> None:
    login = Login()
    login.looked = [lease]
    asked_by(login, "look up s.1")


def test_where_a_token_may_not_be_looked_up_it_is_renewed_at_once_and_given_up_if_that_is_denied() -> None:
    asked_by(Login(), "look up s.1", "renew s.1")


def test_while_vault_is_not_available_it_is_tried_again() -> None:
    login = Login(lease=PERIODIC)
    login.extensions = [StoreError("Vault is away."), PERIODIC, None]
    asked_by(login, "renew s.1", "renew s.1", "renew s.1")


def test_a_new_token_is_noticed_at_once() -> None:
    login = Login(token="")
    unset = login.on_new_token
    with renewing(lambda: login):
        until(lambda: login.on_new_token is not unset)  # it has looked, and waits
        login.token, login.looked = "s.2", [Lease(60.0, renewable=True)]
        login.on_new_token()
        until(lambda: login.asked == ["look up s.2"])
        login.on_new_token()  # of the same token
        threading.Event().wait(0.02)
    assert login.asked == ["look up s.2"]


def test_what_ends_at_once_asks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renewal, "FIRST_LOOK", 60.0)
    login = Login()
    with renewing(lambda: login):
        pass
    assert login.asked == []


def test_an_end_during_a_request_is_the_last_thing_that_happens() -> None:
    login, reached, go_on = Login(lease=PERIODIC), threading.Event(), threading.Event()

    def extended(token: str, deadline: Deadline) -> Lease | None:
        login.asked.append(token)
        reached.set()
        go_on.wait(10)
        return PERIODIC

    login.extended = extended  # type: ignore[method-assign]
    with renewing(lambda: login):
        assert reached.wait(10)
        threading.Timer(0.05, go_on.set).start()
    until(go_on.is_set)
    assert login.asked == ["s.1"]
