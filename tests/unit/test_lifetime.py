"""The life set for a version: when Vault deletes it, however long its requests take and wherever they spend the time."""

from math import floor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vault_plugin.vault.lifetime import EARLIEST, MAX_LIFE, Landing, ResponseTimes, fits, landing, plan


@given(
    took=st.floats(0, 5),
    share=st.floats(0, 1),
    phase=st.floats(0, 0.999),
    left=st.floats(30, 86400),
    exact=st.booleans(),
)
def test_with_steady_response_times_a_version_is_deleted_in_time_and_by_the_first_try(
    took: float, share: float, phase: float, left: float, exact: bool
) -> None:
    """`share`: of each response time, what passes before Vault acts; `exact`: Vault's clock is known, not only bounded."""
    ahead = 0.0 if exact else phase + share * took  # what a `Date` header leaves open
    times = ResponseTimes(took)
    life = plan(left - ahead, times)
    after_metadata = left - took
    assert fits(life, after_metadata - ahead, times)
    end = 1_000_000.0
    deletion = end - (after_metadata - share * took) + life
    assert deletion <= end
    assert deletion >= end - EARLIEST - took
    if took <= 0.75:
        assert landing(deletion, life, end, times) is Landing.ON_TIME


@given(took=st.floats(0, 1), share=st.floats(0, 1), left=st.floats(30, 86400))
def test_once_vaults_clock_is_known_answers_within_a_second_make_it_3_seconds_at_most(
    took: float, share: float, left: float
) -> None:
    times = ResponseTimes(took)
    ahead = share * took  # `created_time` in the answer to the first write
    life = plan(left - ahead, times)
    deletion = 1_000_000.0 - (left - took - share * took) + life
    assert landing(deletion, life, 1_000_000.0, times) is Landing.ON_TIME


def test_one_request_that_was_held_back_does_not_count_for_all() -> None:
    assert ResponseTimes(0.002, 0.003, 8.0).typical == 0.003
    assert (
        ResponseTimes(0.002, 1.5).typical == 1.5
    )  # but the slower of two does: writes may be slower than reads
    assert plan(900, ResponseTimes(0.002, 0.003, 8.0)) == 899


def test_data_that_was_held_back_until_it_was_too_late_is_given_as_long_again() -> None:
    times = ResponseTimes(0.002, 0.002, 3.0)
    times.delayed = True
    assert plan(900, times) == floor(900 - 0.25 - 3)
    assert fits(plan(900, times), 899.9, times)


def test_a_life_set_for_a_slow_vault_does_not_fit_a_quick_one() -> None:
    times = ResponseTimes(0.002, 10.0)
    life = plan(900, times)
    assert life == floor(900 - 0.25 - 20)
    assert not fits(life, 899.9, times)


def test_a_life_set_for_a_quick_vault_does_not_fit_a_slow_one() -> None:
    assert fits(899, 900, ResponseTimes(0.002))
    assert not fits(899, 900, ResponseTimes(0.002, 1.5))


def test_a_block_is_measured_however_it_ends() -> None:
    clock = iter([10.0, 12.0, 20.0, 25.0])
    times = ResponseTimes(monotonic=lambda: next(clock))
    with times.measured():
        pass
    with pytest.raises(KeyError), times.measured():
        raise KeyError
    assert (times.quickest, times.typical, times.longest) == (2.0, 5.0, 5.0)


def test_where_a_version_lands() -> None:
    for deletion, longest, expected in (
        (None, 0.0, Landing.NEVER),
        (1000.000001, 9.0, Landing.LATE),  # there is no tolerance
        (1000.0, 0.0, Landing.ON_TIME),
        (997.0, 1.0, Landing.ON_TIME),
        (996.9, 1.0, Landing.EARLY),
        (995.5, 1.5, Landing.ON_TIME),
        (995.4, 1.5, Landing.EARLY),
    ):
        assert landing(deletion, 900, 1000.0, ResponseTimes(0.0, longest)) is expected, (deletion, longest)


def test_no_life_is_longer_than_vault_takes_and_that_one_is_never_too_early() -> None:
    times = ResponseTimes(0.002)
    assert plan(1e11, times) == MAX_LIFE
    assert fits(MAX_LIFE, 1e11, times)
    assert landing(1.0, MAX_LIFE, 1e11, times) is Landing.ON_TIME
