"""The collection by the tools of its contributors, and by Galaxy's. Only .ci/run calls them: `-m contributor`."""

import json
import shutil

import pytest
from support.ansible import CORES, ROOT, Ansible
from support.cli import World
from support.collection import Copy, ansible_test, assert_importable, assert_sane, copy, linters, tarball_of

pytestmark = pytest.mark.contributor

TARGETS = ("lookup_token", "module_token")
PRODUCTION = "Last profile that met the validation criteria was 'production'"
# tests/long leaves nothing out.
# What reads our source by a tool of its own, whichever ansible-core starts it: here the newest does.
WITHOUT_LINTERS = [
    word for linter in ("changelog", "pep8", "pylint", "yamllint") for word in ("--skip-test", linter)
]
# The importer starts ansible-doc 14 times, once per kind of plugin, and ansible-lint: other tests here run both.
WITHOUT_PROGRAMS = {"GALAXY_IMPORTER_RUN_ANSIBLE_DOC": "no", "GALAXY_IMPORTER_RUN_ANSIBLE_LINT": "no"}


@pytest.fixture
def mine(ansible: Ansible) -> Copy:
    """A copy of the collection for this version of ansible-core."""
    return copy(ansible.programs, ansible.folder)


@pytest.fixture(scope="session")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    return linters(tmp_path_factory)


def test_it_passes_the_sanity_tests(mine: Copy, ansible: Ansible) -> None:
    assert_sane(mine, *(() if ansible.core == CORES[-1] else WITHOUT_LINTERS))


def test_it_passes_its_unit_tests(mine: Copy) -> None:
    said = ansible_test(mine, "units", "--requirements", "--num-workers", "1")
    assert " passed in " in said
    assert "skipped" not in said


def test_it_passes_its_integration_tests(mine: Copy, kv2: World) -> None:
    where = {
        "ansible_klearstack_url": kv2.endpoint.url,
        "ansible_klearstack_company_name": "Acme",
        "ansible_klearstack_vault_addr": kv2.vault.address,
        "ansible_klearstack_vault_token": kv2.vault.root_token,
        "ansible_klearstack_mount": kv2.mount,
    }
    (mine.place / "tests/integration/integration_config.yml").write_text(json.dumps(where), encoding="utf-8")
    said = ansible_test(mine, "integration", *TARGETS)
    assert all(f"Running {target} integration test role" in said for target in TARGETS)
    assert kv2.endpoint.mints == 3


def test_the_linters_are_content_with_it(tools: Copy) -> None:
    assert PRODUCTION in tools.run("ansible-lint", "--offline").stderr
    tools.run("antsibull-docs", "lint-collection-docs", "--plugin-docs", ".")
    tools.run("antsibull-changelog", "lint")


def test_ansible_lint_is_content_with_the_examples(tools: Copy) -> None:
    examples = tools.home / "examples"
    shutil.copytree(ROOT / "examples/ansible", examples)
    assert PRODUCTION in tools.run("ansible-lint", "--offline", cwd=examples).stderr


def test_galaxy_would_import_it(tools: Copy) -> None:
    assert_importable(tools, tarball_of(tools), **WITHOUT_PROGRAMS)
