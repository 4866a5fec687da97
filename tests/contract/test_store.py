"""The rules of every store, in memory and on a real Vault, so that the fake in other tests behaves like Vault."""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from support.fakes import ACME, FakeStore, token
from support.vault import Vault
from support.waiting import until

from vault_plugin.broker.ports import TokenReader, TokenStore
from vault_plugin.errors import ForeignSecretError, TokenError
from vault_plugin.settings import Settings
from vault_plugin.timing.clock import ServerClock
from vault_plugin.timing.deadline import Deadline
from vault_plugin.tokens.identity import Identity
from vault_plugin.tokens.jwt import Kind, Token
from vault_plugin.tokens.secret import Secret
from vault_plugin.tokens.stored import PathState, StoredToken, VaultRef
from vault_plugin.vault.client import VaultClient
from vault_plugin.vault.reader import WarmReader
from vault_plugin.vault.record import to_data
from vault_plugin.vault.store import VaultStore
from vault_plugin.vault.transport import Transport

HOSTILE = [
    "../../../cubbyhole",
    "/",
    "a/b",
    "a%2Fb",
    "%",
    "+",
    "*",
    "..",
    ".",
    "~",
    "a b",
    "é@x.com",
    "\U0001f98a",
    "नि\u200dमा",
    "{{identity.entity.id}}",
    "x" * 500,
]


def deadline() -> Deadline:
    return Deadline(20)


@dataclass
class Room:
    """A store, its warm reader if it has one, and changes that other writers make."""

    store: TokenStore
    warm: TokenReader | None
    intrude: Callable[[str, dict[str, str]], object]
    keep_too_long: Callable[[], object]  # the access token of ACME

    def put(self, made: Token, identity: Identity = ACME) -> StoredToken:
        state = self.store.read(identity, made.kind, deadline())
        return self.store.write(identity, made, "7.8.9", state, deadline())

    def read(self, kind: Kind = Kind.ACCESS, identity: Identity = ACME) -> Token | None:
        stored = self.store.read(identity, kind, deadline()).stored
        return stored.token if stored and stored.token.ttl(time.time()) else None


REAL = ["bao-v1", "bao-v2", pytest.param("container-v2", marks=pytest.mark.container)]
real_rooms = pytest.mark.parametrize("room", REAL, indirect=True)  # the fake has no warm reader


@pytest.fixture(params=["fake", *REAL])
def room(request: pytest.FixtureRequest) -> Iterator[Room]:
    """An empty store."""
    if request.param == "fake":
        fake = FakeStore(time.time)

        def intrude(path: str, data: dict[str, str]) -> None:
            fake.data[path] = 1, data, time.time() + 900

        yield Room(fake, None, intrude, lambda: fake.delay(ACME, Kind.ACCESS, 3600))
        return
    server, version = request.param.split("-")
    vault: Vault = request.getfixturevalue({"bao": "bao", "container": "vault_container"}[server])
    mount = vault.mount(version)
    clock = ServerClock()
    transport = Transport([vault.address], clock, timeout=5)
    settings = Settings.from_env(
        {"VAULT_TOKEN": vault.root_token},
        user_id="-",
        company_name="-",
        url="http://127.0.0.1:1",
        vault_addr=vault.address,
    )
    beside = Transport([vault.address], ServerClock(), timeout=5)
    yield Room(
        VaultStore(VaultClient(transport, settings), clock, mount, "p"),
        WarmReader(beside, Secret(vault.root_token), None, mount, "p"),
        lambda path, data: vault.write(mount, path, data),
        lambda: vault.keep_too_long(mount, ACME.path("p", Kind.ACCESS), "10h") if version == "v2" else None,
    )
    transport.close()
    beside.close()


def now() -> int:
    return int(time.time())


def test_a_new_store_is_empty(room: Room) -> None:
    state = room.store.read(ACME, Kind.ACCESS, deadline())
    assert (state.version, state.stored) == (0, None)


@pytest.mark.parametrize("kind", Kind)
def test_what_was_written_is_read_back(room: Room, kind: Kind) -> None:
    made = token(kind, at=now())
    assert room.put(made).token == made
    assert room.read(kind) == made


def test_a_wrapping_token_is_valid_as_long_as_asked_and_not_longer_than_what_it_wraps(room: Room) -> None:
    lives = [
        room.store.wrap({"access_token": "x"}, ttl, lambda: 30.9, deadline()).ttl for ttl in (7.0, 1000.0)
    ]
    assert lives == [7, 30]
    with pytest.raises(TokenError):
        room.store.wrap({"access_token": "x"}, 60, lambda: 0.5, deadline())


def test_the_two_kinds_and_two_identities_do_not_touch(room: Room) -> None:
    made = token(at=now())
    room.put(made)
    assert room.read(Kind.REFRESH) is None
    assert room.read(identity=Identity("26", "Acme2")) is None
    assert room.read(identity=Identity("Acme", "26")) is None


@pytest.mark.parametrize("name", HOSTILE, ids=lambda name: ascii(name)[:24])
def test_any_identity_gets_its_own_token_back(room: Room, name: str) -> None:
    mine, other = token(at=now(), jti="mine", user_id=name), token(at=now(), jti="other")
    room.put(other, Identity("26", "26"))
    room.put(mine, Identity(name, name))
    assert room.read(identity=Identity(name, name)) == mine
    assert room.read(identity=Identity("26", "26")) == other


def test_a_newer_token_takes_the_place_of_an_older_one(room: Room) -> None:
    old, new = token(at=now() - 10), token(at=now())
    room.put(old)
    assert room.put(new).token == new
    assert room.read() == new


def test_a_renewal_within_the_same_second_is_stored_too(room: Room) -> None:
    first, second = token(at=now(), jti="1"), token(at=now(), jti="2")
    room.put(first)
    assert room.put(second).token == second
    assert room.read() == second


def test_an_older_token_never_takes_the_place_of_a_newer_one(room: Room) -> None:
    old, new = token(at=now() - 10), token(at=now())
    room.put(new)
    assert room.put(old).token == new
    assert room.read() == new


YEARS = 10 * 365 * 86400  # seconds


@pytest.mark.parametrize("issued", [65, YEARS])
def test_a_token_issued_in_the_future_does_not_outrank_what_is_minted_after_it(
    room: Room, issued: int
) -> None:
    misdated, new = token(at=now() + issued, life=60), token(at=now())
    room.put(misdated)
    assert room.put(new).token == new
    assert room.read() == new


def test_a_token_issued_in_the_future_does_not_win_a_race(room: Room) -> None:
    state = room.store.read(ACME, Kind.ACCESS, deadline())
    misdated, new = token(at=now() + YEARS, life=60), token(at=now())
    room.put(misdated)
    assert room.store.write(ACME, new, "7.8.9", state, deadline()).token == new
    assert room.read() == new


@pytest.mark.parametrize("kind", Kind)
def test_a_newer_token_that_has_expired_does_not_outrank_a_valid_one(room: Room, kind: Kind) -> None:
    expired = StoredToken(token(kind, at=now() + 5, exp=now() - 5), VaultRef("m", "p"))
    state = room.store.read(ACME, kind, deadline())._replace(stored=expired)
    new = token(kind, at=now())
    assert room.store.write(ACME, new, "7.8.9", state, deadline()).token == new


def test_a_token_that_names_another_user_counts_as_none_and_is_replaced(room: Room) -> None:
    theirs, mine = token(at=now() + 5, user_id=27), token(at=now())
    room.put(theirs)
    assert room.read() is None
    assert room.put(mine).token == mine
    assert room.read() == mine


def test_a_token_that_names_another_user_does_not_win_a_race(room: Room) -> None:
    state = room.store.read(ACME, Kind.ACCESS, deadline())
    mine = token(at=now())
    room.put(token(at=now(), user_id="somebody"))
    assert room.store.write(ACME, mine, "7.8.9", state, deadline()).token == mine
    assert room.read() == mine


def test_the_issuer_is_stored_with_the_token(room: Room) -> None:
    for made in (
        token(at=now(), by="https://api.example"),
        token(at=now(), jti="2", by="http://[::1]:8080/base"),
    ):
        assert room.put(made).token == made
        assert room.read() == made


@pytest.mark.parametrize("later", [-5, 0, 5])
def test_the_token_of_another_endpoint_that_the_caller_knows_of_is_replaced(room: Room, later: int) -> None:
    room.put(token(at=now(), by="https://staging.example"))
    new = token(at=now() + later, by="https://api.example")
    assert room.put(new).token == new
    assert room.read() == new


@pytest.mark.parametrize("later", [-500, 0, 5])
def test_the_token_of_another_endpoint_that_comes_in_between_stays(room: Room, later: int) -> None:
    state = room.store.read(ACME, Kind.ACCESS, deadline())
    theirs = token(at=now() + later, by="https://staging.example")
    room.put(theirs)
    ours = token(at=now(), by="https://api.example")
    assert room.store.write(ACME, ours, "7.8.9", state, deadline()).token == theirs
    assert room.read() == theirs


@pytest.mark.parametrize("ahead", [0, 5])
def test_the_loser_of_a_race_gets_the_winners_token(room: Room, ahead: int) -> None:
    state = room.store.read(ACME, Kind.ACCESS, deadline())
    winner, loser = token(at=now() + ahead, jti="winner"), token(at=now(), jti="loser")
    room.put(winner)
    assert room.store.write(ACME, loser, "7.8.9", state, deadline()).token == winner
    assert room.read() == winner


def test_what_came_first_stays_although_the_loser_of_the_race_minted_later(room: Room) -> None:
    state = room.store.read(ACME, Kind.ACCESS, deadline())
    winner, newer = token(at=now() - 5), token(at=now())
    room.put(winner)
    assert room.store.write(ACME, newer, "7.8.9", state, deadline()).token == winner
    assert room.read() == winner


def test_what_came_first_but_is_old_by_now_gives_way_to_a_newer_token(room: Room) -> None:
    state = room.store.read(ACME, Kind.ACCESS, deadline())
    old, newer = token(at=now() - 500), token(at=now())
    room.put(old)
    assert room.store.write(ACME, newer, "7.8.9", state, deadline()).token == newer
    assert room.read() == newer


def test_a_token_is_deleted_when_it_expires_and_its_path_can_be_written(room: Room) -> None:
    made = token(at=now(), life=6)
    room.put(made)
    assert room.read() is not None
    until(lambda: room.read() is None or time.time() >= made.expires_at)
    assert room.read() is None
    new = token(at=now())
    assert room.put(new).token == new
    assert room.read() == new


@pytest.mark.parametrize(
    "data",
    [{"password": "theirs"}, {"access_token": "theirs", "user_id": "27", "company_name": "Acme"}],
    ids=["other keys", "another identity"],
)
def test_an_unmanaged_secret_is_rejected_and_not_overwritten(room: Room, data: dict[str, str]) -> None:
    room.intrude(ACME.path("p", Kind.ACCESS), data)
    with pytest.raises(ForeignSecretError):
        room.read()
    with pytest.raises(ForeignSecretError):
        room.put(token(at=now()))


def test_an_unmanaged_secret_that_is_written_meanwhile_is_rejected_too(room: Room) -> None:
    state = room.store.read(ACME, Kind.ACCESS, deadline())
    room.intrude(ACME.path("p", Kind.ACCESS), {"password": "theirs"})
    with pytest.raises(ForeignSecretError):
        room.store.write(ACME, token(at=now()), "7.8.9", state, deadline())


@real_rooms
def test_the_warm_reader_reads_what_the_store_wrote(room: Room) -> None:
    assert room.warm is not None
    assert room.warm.read(ACME, Kind.ACCESS, deadline()) is None
    written = room.put(token(at=now()))
    for _ in range(2):  # the second time it knows the mount's version
        assert room.warm.read(ACME, Kind.ACCESS, deadline()) == written
    assert room.warm.read(ACME, Kind.REFRESH, deadline()) is None


@real_rooms
def test_the_warm_reader_sees_the_issuer_and_no_token_that_names_another_user(room: Room) -> None:
    assert room.warm is not None
    made = token(at=now(), by="https://api.example")
    room.put(made)
    stored = room.warm.read(ACME, Kind.ACCESS, deadline())
    assert stored is not None
    assert stored.token == made
    room.put(token(Kind.REFRESH, at=now(), user_id=27))
    assert room.warm.read(ACME, Kind.REFRESH, deadline()) is None


@real_rooms
def test_the_warm_reader_finds_nothing_at_the_path_of_an_unmanaged_secret(room: Room) -> None:
    assert room.warm is not None
    room.intrude(ACME.path("p", Kind.ACCESS), {"password": "theirs"})
    assert room.warm.read(ACME, Kind.ACCESS, deadline()) is None
    data = to_data(token(at=now()), Identity("27", "Acme"), "7.8.9")
    room.intrude(ACME.path("p", Kind.REFRESH), data)
    assert room.warm.read(ACME, Kind.REFRESH, deadline()) is None


def test_what_is_kept_too_long_is_corrected_and_keeps_its_token(room: Room) -> None:
    made = token(at=now())
    room.put(made)
    room.keep_too_long()
    state = room.store.read(ACME, Kind.ACCESS, deadline())
    assert state.stored is not None
    too_long = state.stored.overdue
    repaired = room.store.repair(ACME, state, deadline()) if too_long else state
    assert repaired.stored is not None
    assert (repaired.stored.token, repaired.stored.overdue) == (made, 0)
    found = room.store.read(ACME, Kind.ACCESS, deadline())
    assert (found.stored, found.version) == (repaired.stored, state.version + bool(too_long))


def test_an_expired_token_that_is_kept_too_long_yields_to_the_next(room: Room) -> None:
    made = token(at=now(), life=6)
    room.put(made)
    room.keep_too_long()
    state = room.store.read(ACME, Kind.ACCESS, deadline())
    time.sleep(max(0.0, made.expires_at - time.time()))
    if state.stored and state.stored.overdue:
        state = room.store.repair(ACME, state, deadline())
        assert state.stored is None
    assert room.read() is None
    new = token(at=now())
    assert room.store.write(ACME, new, "7.8.9", state, deadline()).token == new


@pytest.mark.parametrize("stored", [True, False])
def test_a_try_to_write_changes_nothing_that_is_stored(room: Room, stored: bool) -> None:
    made = token(at=int(time.time()))
    if stored:
        room.put(made)
    state = room.store.read(ACME, Kind.ACCESS, deadline())
    assert room.store.try_writing(ACME, Kind.ACCESS, state, deadline()) == state
    found = room.store.read(ACME, Kind.ACCESS, deadline()).stored
    assert (found and found.token.value) == (made.value if stored else None)
    newer = token(at=int(time.time()) + 1, jti="newer")
    landed = room.store.write(ACME, newer, "7.8.9", state, deadline())
    assert landed.token.value == newer.value


# A token that a server has rejected


def access(room: Room) -> PathState:
    return room.store.read(ACME, Kind.ACCESS, deadline())


def test_a_rejected_token_is_removed_and_its_successor_cannot_be_rejected_at_once(
    room: Room, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)  # of all loggers
    old = room.put(token(at=now())).token
    refresh = room.put(token(Kind.REFRESH, at=now(), life=86400)).token
    room.store.reject(ACME, access(room), deadline())
    assert room.read() is None
    assert room.read(Kind.REFRESH) == refresh
    if room.warm:
        assert room.warm.read(ACME, Kind.ACCESS, deadline()) is None
    new = token(at=now(), jti="2")
    assert room.put(new).token == new
    room.store.reject(ACME, access(room), deadline())
    assert room.read() == new
    renewed = token(at=now() + 1, jti="3")  # nor the one after that
    room.put(renewed)
    room.store.reject(ACME, access(room), deadline())
    assert room.read() == renewed
    assert not any(one.value.reveal() in caplog.text for one in (old, refresh, new, renewed))


def test_a_token_that_was_minted_before_a_rejection_and_stored_after_it_cannot_be_rejected_at_once(
    room: Room,
) -> None:
    room.put(token(at=now()))
    before = access(room)
    room.store.reject(ACME, access(room), deadline())
    new = token(at=now() + 1, jti="2")
    assert room.store.write(ACME, new, "7.8.9", before, deadline()).token == new
    room.store.reject(ACME, access(room), deadline())
    assert room.read() == new


def test_what_repairs_an_end_in_vault_keeps_the_mark_of_a_rejection_in_between(room: Room) -> None:
    old = room.put(token(at=now())).token
    room.store.reject(ACME, access(room), deadline())
    new = token(at=now() + 1, jti="2")
    room.put(new)
    room.keep_too_long()
    room.store.repair(ACME, access(room), deadline())
    room.store.reject(ACME, access(room), deadline())
    assert room.read() == new != old


def test_a_rejection_removes_no_token_that_came_in_between(room: Room) -> None:
    room.put(token(at=now()))
    state = access(room)
    newer = token(at=now() + 1, jti="newer")
    room.put(newer)
    room.store.reject(ACME, state, deadline())
    assert room.read() == newer


def test_where_there_is_no_token_there_is_none_to_reject(room: Room) -> None:
    room.put(token(at=now()))
    room.store.reject(ACME, access(room), deadline())
    state = access(room)
    room.store.reject(ACME, state, deadline())
    assert access(room).version == state.version
