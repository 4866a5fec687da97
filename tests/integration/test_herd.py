"""Many callers of one identity while a side is down: it is asked by one of them, and all of them say why they failed."""

import json
import subprocess
from collections.abc import Mapping

import pytest
from support.cli import COMMAND, World
from support.fault_proxy import FaultProxy

QUERY = {"user_id": "26", "company_name": "Acme"}
PATIENCE = 90  # seconds that a real wait may take before the test has failed


def herd(*environs: Mapping[str, str], **query: str) -> list[tuple[int, str]]:
    """Exit code and standard error of so many `terraform` programs at once."""
    children = [
        subprocess.Popen([*COMMAND, "terraform"], env=environ, stdin=-1, stdout=-1, stderr=-1, text=True)
        for environ in environs
    ]
    for child in children:
        assert child.stdin
        child.stdin.write(json.dumps(QUERY | query))
        child.stdin.close()
        child.stdin = None
    said = [child.communicate(timeout=PATIENCE)[1] for child in children]
    return [(child.returncode, text) for child, text in zip(children, said, strict=True)]


def held(world: World, fault: str) -> dict[str, str]:
    """An environment in which all have begun before the endpoint's first response."""
    world.endpoint.fault, world.endpoint.latency = fault, 3.0
    return world.environ | {"KLEARSTACK_DEADLINE": "40"}


@pytest.mark.parametrize(
    ("fault", "code", "message"),
    [
        ("503", 69, "answers with status 503"),
        ("401", 77, "refuses (status 401)"),
        ("html", 76, "is not JSON"),
        ("parameter-missing", 78, "misses a required parameter: company_name"),
    ],
)
def test_waiters_take_over_the_failure_of_the_one_that_asked(
    kv2: World, fault: str, code: int, message: str
) -> None:
    done = herd(*[held(kv2, fault)] * 6)
    assert [result for result, _ in done] == [code] * 6
    assert all(message in text for _, text in done)
    assert kv2.endpoint.requests <= (1 if code != 69 else 12)


def test_waiters_for_an_endpoint_that_hangs_say_so(kv2: World) -> None:
    kv2.endpoint.fault = "hang"
    done = herd(*[kv2.environ | {"KLEARSTACK_DEADLINE": "24", "KLEARSTACK_TIMEOUT": "6"}] * 6)
    assert [result for result, _ in done] == [69] * 6
    assert all("did not answer in time" in text for _, text in done)
    assert kv2.endpoint.requests <= 3


def test_who_has_a_valid_token_stored_falls_back_to_it_after_the_shared_failure(kv2: World) -> None:
    kv2.get()
    kv2.endpoint.requests = 0
    done = herd(*[held(kv2, "503")] * 4, renew="true")
    assert [result for result, _ in done] == [0] * 4
    assert all("The stored token is used" in text for _, text in done)
    assert kv2.endpoint.requests <= 8


def test_vault_down_is_asked_again_and_again_by_one_caller_alone(kv2: World) -> None:
    def requests(callers: int) -> int:
        with FaultProxy(kv2.vault.address) as proxy:
            proxy.answer(lambda _: True, 500, when="before", times=10**9)
            own = {"VAULT_ADDR": proxy.address, "KLEARSTACK_DEADLINE": "8"}
            done = herd(*[kv2.environ | own] * callers)
            assert [result for result, _ in done] == [69] * callers
            assert all("status 500" in text for _, text in done)
            return len(proxy.requests)

    one, many = requests(1), requests(8)
    assert many <= 2 * one + 8 * 3
    assert kv2.endpoint.requests == 0
