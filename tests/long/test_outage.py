"""What tests/integration shows of 150 or 200 identities during which something fails, of 500."""

import pytest
from support.cli import World
from support.outages import (
    assert_a_mount_that_vanishes_wastes_little,
    assert_a_read_only_policy_wastes_little,
    assert_a_revoked_token_wastes_little,
    assert_nobody_is_left_out,
)


@pytest.mark.parametrize("fault", ["503", "reset"])
def test_six_seconds_of_failures_in_the_middle_leave_nobody_out(kv2: World, fault: str) -> None:
    assert_nobody_is_left_out(kv2, fault, 500)


def test_a_token_that_is_revoked_wastes_no_more_mints_than_are_in_flight(kv2: World) -> None:
    assert_a_revoked_token_wastes_little(kv2, 500)


def test_a_policy_that_becomes_read_only_wastes_no_more_mints_than_are_in_flight(kv2: World) -> None:
    assert_a_read_only_policy_wastes_little(kv2, 500)


def test_a_mount_that_vanishes_is_named_and_wastes_no_more_mints_than_are_in_flight(kv2: World) -> None:
    assert_a_mount_that_vanishes_wastes_little(kv2, 500)
