"""What tests/ansible/test_collection.py leaves out, to be quick: all sanity tests, and the whole of Galaxy's import."""

from pathlib import Path

import pytest
from support.ansible import CORES, installed
from support.collection import assert_importable, assert_sane, copy, linters, tarball_of


@pytest.mark.parametrize("core", CORES[:-1])
def test_it_passes_all_sanity_tests_of_older_versions(
    core: str, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    assert_sane(copy(installed(core, tmp_path_factory, tmp_path).programs, tmp_path))


def test_galaxy_would_import_it(tmp_path_factory: pytest.TempPathFactory) -> None:
    tools = linters(tmp_path_factory)
    assert_importable(tools, tarball_of(tools))
