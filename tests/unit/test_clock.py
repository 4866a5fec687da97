"""Dates, and a server's clock that is never taken to be behind what it is."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from math import floor

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.texts import ANY_TEXT

from vault_plugin.timing.clock import MAX_DATE, ServerClock, format_rfc3339, latest, parse_rfc3339

YEAR_2100 = 4_102_444_800
TICKS = 1024  # a second's, so that floats hold all times of a simulation exactly


def http_date(instant: float) -> str:
    return format_datetime(datetime.fromtimestamp(floor(instant), UTC), usegmt=True)


@dataclass
class World:
    """Our monotonic clock, our wall clock, and a server that is `ahead` of the former."""

    monotonic: float = 0.0
    ahead: float = 1_700_000_000.0
    wall: float = 42.0

    def clock(self) -> ServerClock:
        return ServerClock(wall=lambda: self.wall, monotonic=lambda: self.monotonic)

    @property
    def true(self) -> float:
        return self.ahead + self.monotonic

    def ask(self, clock: ServerClock, there: float = 0.0, back: float = 0.0, *, exact: bool = False) -> None:
        """One request, which takes its time in both directions, and what its answer tells."""
        sent = self.monotonic
        self.monotonic += there
        said = self.true
        self.monotonic += back
        if exact:
            clock.observe_instant(said, sent)
        else:
            clock.observe_date(http_date(said), sent)


@given(st.integers(0, MAX_DATE))
def test_what_is_written_as_rfc_3339_is_read_as_the_same_second(instant: int) -> None:
    text = format_rfc3339(instant)
    assert len(text) == len("2026-11-22T22:05:06Z")
    read = parse_rfc3339(text)
    assert read is not None
    assert floor(read) == instant


def test_dates_are_written_in_utc() -> None:
    assert format_rfc3339(1_795_385_106) == "2026-11-22T22:05:06Z"
    assert format_rfc3339(0) == "1970-01-01T00:00:00Z"
    assert format_rfc3339(MAX_DATE) == "9999-12-31T23:59:59Z"


@given(st.integers(0, YEAR_2100), st.integers(0, 999_999_999), st.booleans())
def test_nanoseconds_are_rounded_up_and_never_down(second: int, nanosecond: int, trimmed: bool) -> None:
    fraction = f".{nanosecond:09d}"
    if trimmed:  # as Go's RFC3339Nano writes it
        fraction = fraction.rstrip("0").rstrip(".")
    read = parse_rfc3339(f"{format_rfc3339(second)[:-1]}{fraction}Z")
    assert read is not None
    microseconds = (second * 10**9 + nanosecond) / 1000
    assert 0 <= round(read * 1e6) - microseconds <= 2


def test_offsets_are_understood() -> None:
    assert parse_rfc3339("2026-11-22T23:05:06+01:00") == parse_rfc3339("2026-11-22T22:05:06Z")


def test_what_is_no_date_with_an_offset_is_none() -> None:
    texts = ["", "never", "2026-11-22", "2026-11-22T22:05:06", "2026-13-01T00:00:00Z", "1795385106", "\ud800"]
    others: list[object] = [None, 17, True, {}]
    for text in (*texts, *others):
        assert parse_rfc3339(text) is None, ascii(text)


@given(ANY_TEXT | st.integers() | st.text("0123456789-:TZ+. ", max_size=30))
def test_nothing_crashes_the_reader_of_dates(text: object) -> None:
    assert parse_rfc3339(text) is None or isinstance(parse_rfc3339(text), float)


def test_our_own_clock_is_used_before_the_first_measurement() -> None:
    world = World()
    clock = world.clock()
    assert not clock.measured
    assert clock.now() == 42.0
    world.wall = 43.0
    assert clock.now() == 43.0


def test_our_own_clock_means_nothing_after_it() -> None:
    world = World()
    clock = world.clock()
    world.ask(clock)
    assert clock.measured
    before = clock.now()
    world.wall += 1e6
    assert clock.now() == before


ticks = st.integers(0, 30 * TICKS).map(lambda n: n / TICKS)
exchanges = st.lists(st.tuples(ticks, ticks, ticks, st.booleans()), min_size=1, max_size=8)


@given(st.integers(0, YEAR_2100 * TICKS).map(lambda n: n / TICKS), ticks, exchanges, ticks)
def test_the_server_is_never_later_than_we_say_nor_much_earlier(
    ahead: float, start: float, exchanges: list[tuple[float, float, float, bool]], later: float
) -> None:
    world = World(monotonic=start, ahead=ahead)
    clock = world.clock()
    slack = []
    for pause, there, back, exact in exchanges:
        world.monotonic += pause
        world.ask(clock, there, back, exact=exact)
        slack.append(there + (0 if exact else 1))
        assert world.true <= clock.now() <= world.true + min(slack)
    world.monotonic += later
    assert world.true <= clock.now() <= world.true + min(slack)


def test_an_exact_instant_sharpens_what_a_date_told() -> None:
    world = World(ahead=1_700_000_000.25)
    clock = world.clock()
    world.ask(clock)
    assert clock.now() == 1_700_000_001.0
    world.ask(clock, exact=True)
    assert clock.now() == world.true


def test_a_blunter_answer_does_not_spoil_a_sharp_one() -> None:
    world = World()
    clock = world.clock()
    world.ask(clock, exact=True)
    world.ask(clock, there=5.0)
    assert clock.now() == world.true


def test_an_answer_without_an_instant_tells_nothing() -> None:
    clock = World().clock()
    clock.observe_instant(None, 0.0)
    assert not clock.measured


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
def test_a_server_whose_clock_was_set_is_followed(jump: float) -> None:
    world = World()
    clock = world.clock()
    world.ask(clock, exact=True)
    world.ahead += jump
    world.ask(clock)
    assert world.true <= clock.now() <= world.true + 1


def test_a_sleep_that_our_monotonic_clock_missed_is_noticed() -> None:
    world = World()
    clock = world.clock()
    world.ask(clock, exact=True)
    world.ahead += 8 * 3600  # the laptop's lid was shut: the server went on, our monotonic clock did not
    world.ask(clock, there=0.5)
    assert world.true <= clock.now() <= world.true + 1.5


GARBAGE = [
    None,
    "",
    " ",
    ",",
    "yesterday",
    "2026-11-22T22:05:06Z",
    "Wed, 99 Foo 2026 22:05:06 GMT",
    "1795385106",
]


def test_a_date_header_that_is_none_is_ignored() -> None:
    for header in GARBAGE:
        world = World()
        clock = world.clock()
        clock.observe_date(header, 0.0)
        assert not clock.measured, header
        world.ask(clock)
        clock.observe_date(header, 0.0)
        assert world.true <= clock.now() <= world.true + 1, header


HUGE = "9" * 20


@pytest.mark.parametrize(
    "header",
    [f"Mon, 01 Jan 2024 00:00:00 +{HUGE}", f"Mon, 01 Jan {HUGE} 00:00:00 GMT", f"Mon, {HUGE} Jan 2024 00:00:00 GMT"],
)  # fmt: skip
def test_a_date_header_with_huge_numbers_is_ignored(header: str) -> None:
    clock = World().clock()
    clock.observe_date(header, 0.0)
    assert not clock.measured


@pytest.fixture
def _far_east(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "XXX-13")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("_far_east")
@pytest.mark.parametrize("zone", ["", " -0000"])
def test_a_date_header_without_a_zone_is_not_read_in_ours(zone: str) -> None:
    clock = World().clock()
    clock.observe_date(f"Tue, 14 Nov 2023 22:13:20{zone}", 0.0)
    assert not clock.measured or clock.now() == 1_700_000_001.0


SCRAPS = [
    "Mon,",
    "Mon",
    "01",
    "Jan",
    "Jan-01-2024",
    "2024",
    "0001",
    "00:00:00",
    "00.00",
    "24:60",
    "GMT",
    "+0000",
    "-",
    ",",
    ":",
]


@given(ANY_TEXT | st.lists(st.sampled_from(SCRAPS), max_size=8).map(" ".join))
def test_no_date_header_crashes_the_clock(header: str) -> None:
    clock = World().clock()
    clock.observe_date(header, 0.0)
    assert clock.measured or clock.now() == 42.0


def test_the_latest_of_the_measured_clocks_counts() -> None:
    early, late, unmeasured = World(ahead=1000.0), World(ahead=2000.0), World(wall=9e9)
    clocks = [world.clock() for world in (early, unmeasured, late)]
    early.ask(clocks[0], exact=True)
    assert latest(*clocks) == 1000.0
    late.ask(clocks[2], exact=True)
    assert latest(*clocks) == 2000.0
    assert latest(*reversed(clocks)) == 2000.0


def test_our_own_clock_counts_where_none_has_been_measured() -> None:
    assert latest(World(wall=7.0).clock(), World(wall=9.0).clock()) == 7.0
