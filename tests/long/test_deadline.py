"""What tests/integration shows of two ways to drip, of more of them."""

import pytest
from support.cli import World
from support.punctual import assert_every_command_ends


@pytest.mark.parametrize("where", ["header", "chunk", "100"])
@pytest.mark.parametrize("side", ["VAULT_ADDR", "KLEARSTACK_URL"])
def test_every_command_ends_by_the_deadline_and_gives_the_lock_back(
    kv2: World, side: str, where: str
) -> None:
    assert_every_command_ends(kv2, side, where)
