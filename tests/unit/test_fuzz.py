"""No manifest, query or list of hosts ends in an internal error (70). .ci/full tries thousands of each."""

from collections.abc import Collection

import pytest
import yaml
from hypothesis import given
from support.fuzz import (
    HOSTS,
    MANIFESTS,
    QUERIES,
    QUERY_MODULES,
    YAML_MANIFESTS,
    no_vault,
    read_hosts,
    read_manifest,
    read_query,
)

from vault_plugin.manifest import yaml_rows


@pytest.fixture(autouse=True)
def _no_vault(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in QUERY_MODULES:
        monkeypatch.setattr(module, "connect", no_vault)


@given(MANIFESTS)
def test_no_manifest_ends_in_an_internal_error(case: tuple[str, bytes]) -> None:
    read_manifest(case)


@pytest.fixture
def _pure_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml_rows, "_LOADER", yaml.SafeLoader)


@pytest.mark.usefixtures("_pure_python")
@given(YAML_MANIFESTS)
def test_no_manifest_ends_in_an_internal_error_without_libyaml(case: tuple[str, bytes]) -> None:
    read_manifest(case)


@given(QUERIES)
def test_no_query_ends_in_an_internal_error(case: tuple[str, bytes]) -> None:
    read_query(case)


@given(HOSTS)
def test_no_list_of_hosts_ends_in_an_internal_error(hosts: Collection[str]) -> None:
    read_hosts(hosts)
