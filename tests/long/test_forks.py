"""50 hosts as in tests/ansible/test_forks.py, but few at once: most find what the first ones stored."""

from pathlib import Path

import pytest
from support.ansible import CORES, installed
from support.cli import World


def test_50_hosts_with_nothing_stored_mint_once_per_identity(
    kv2: World, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    installed(CORES[-1], tmp_path_factory, tmp_path).assert_minted_once(kv2, forks=5)
