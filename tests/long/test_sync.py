"""What tests/integration shows of a smaller number of identities, of a larger one."""

from support.bulk import (
    assert_a_manifest_streams,
    assert_a_second_run_only_reads,
    assert_connections_are_kept,
)
from support.cli import World


def test_all_are_minted_and_gone_in_time_and_a_second_run_only_reads(kv2: World) -> None:
    assert_a_second_run_only_reads(kv2, 400)


def test_connections_are_kept_and_memory_stays_flat(kv2: World) -> None:
    assert_connections_are_kept(kv2, 500)


def test_a_hundred_thousand_identities_stream(kv2: World) -> None:
    assert_a_manifest_streams(kv2, 100_000)
