"""What tests/unit shows with thousands of identities, with 100,000."""

from pathlib import Path

import pytest
from support.manifests import memory_of_checking


@pytest.mark.parametrize(("form", "few", "many"), [("csv", 5_000, 100_000), ("yaml", 5_000, 100_000)])
def test_what_is_kept_of_each_identity_is_a_number_or_two(
    tmp_path: Path, form: str, few: int, many: int
) -> None:
    low, high = (memory_of_checking(tmp_path / "m", form, count) for count in (few, many))
    assert high < 40_000_000
    assert (high - low) / (many - few) < 200
