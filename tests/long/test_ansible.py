"""What tests/ansible does once, done in the other ways too: few hosts at once, and the examples the other way round."""

from pathlib import Path

import pytest
from support.ansible import CORES, installed
from support.cli import World


def test_50_hosts_with_nothing_stored_mint_once_per_identity_also_by_few_at_once(
    kv2: World, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    installed(CORES[-1], tmp_path_factory, tmp_path).assert_minted_once(kv2, forks=5)


@pytest.mark.parametrize("core", CORES)
def test_the_examples_call_the_api_with_one_token_also_the_other_way_round(
    kv2: World, core: str, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    installed(core, tmp_path_factory, tmp_path).assert_examples_run(kv2, turned=True)
