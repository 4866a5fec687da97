"""`sync` while the endpoint or Vault fails for a while, for good, or for some identities alone."""

import pytest
from support.buckets import limited
from support.cli import World
from support.fault_proxy import FaultProxy
from support.outages import (
    Syncing,
    assert_a_mount_that_vanishes_wastes_little,
    assert_a_read_only_policy_wastes_little,
    assert_a_revoked_token_wastes_little,
    assert_nobody_is_left_out,
    limited_token,
)
from support.vault import Vault


@pytest.mark.parametrize("fault", ["503", "reset"])
def test_six_seconds_of_failures_in_the_middle_leave_nobody_out(kv2: World, fault: str) -> None:
    assert_nobody_is_left_out(kv2, fault, 200)  # tests/long has 500


def test_a_lasting_outage_is_told_once_with_a_count(kv2: World) -> None:
    kv2.endpoint.fault = "503"
    code, out, err = Syncing(kv2, 40, "--stop-after", "2").wait()
    assert code == 5
    assert out == "40 identities: 40 failed\n"
    (line,) = err.splitlines()
    assert "40 identities failed: " in line
    assert "responded with status 503" in line


def test_who_alone_fails_fails_alone(kv2: World) -> None:
    with FaultProxy(kv2.endpoint.url) as proxy:
        proxy.answer(lambda line: True, 400, when="before", times=1)
        code, out, _ = Syncing(kv2, 20, KLEARSTACK_URL=proxy.address).wait()
    assert (code, out) == (5, "20 identities: 19 minted, 1 failed\n")


def test_tokens_that_need_no_mint_are_confirmed_meanwhile(kv2: World) -> None:
    assert Syncing(kv2, 30).wait()[0] == 0
    path = kv2.home / "more.csv"
    path.write_text("user_id\n" + "".join(f"{user}\n" for user in [100, 101, 102, 103, *range(30)]))
    kv2.endpoint.fault = "503"
    done = kv2.run("sync", str(path), "--stop-after", "2", "--concurrency", "2")
    assert done.stdout == "34 identities: 30 fresh, 4 failed\n"
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("retry_after", [None, 2])
def test_a_rate_limit_pauses_the_whole_run(kv2: World, retry_after: int | None) -> None:
    with limited(kv2.endpoint.url, 10, 2, retry_after) as (address, bucket):
        code, out, err = Syncing(kv2, 25, KLEARSTACK_URL=address).wait()
    assert (code, out, err) == (0, "25 identities: 25 minted\n", "")
    assert bucket.accepted == 25
    assert len(bucket.refused) <= 3 * 16


# tests/long has 500 for each of these.


def test_a_token_that_is_revoked_wastes_no_more_mints_than_are_in_flight(kv2: World) -> None:
    assert_a_revoked_token_wastes_little(kv2, 150)


def test_a_policy_that_becomes_read_only_wastes_no_more_mints_than_are_in_flight(kv2: World) -> None:
    assert_a_read_only_policy_wastes_little(kv2, 150)


def test_a_mount_that_vanishes_is_named_and_wastes_no_more_mints_than_are_in_flight(kv2: World) -> None:
    assert_a_mount_that_vanishes_wastes_little(kv2, 150)


def test_a_policy_that_denies_some_paths_costs_the_others_nothing(kv2: World, bao: Vault) -> None:
    denied = [
        f'path "{kv2.mount}/{kind}/klearstack/Acme/{user}/*" {{ capabilities = ["read"] }}'
        for user in (1, 3)
        for kind in ("data", "metadata")
    ]
    token = limited_token(
        kv2,
        policy="\n".join(
            [f'path "{kv2.mount}/*" {{ capabilities = ["create", "read", "update"] }}', *denied]
        ),
    )
    code, out, _ = Syncing(kv2, 30, "--concurrency", "1", VAULT_TOKEN=token).wait()
    assert (code, out) == (5, "30 identities: 28 minted, 2 failed\n")
    assert kv2.endpoint.mints == 29  # only the first of the two was found out by a mint
