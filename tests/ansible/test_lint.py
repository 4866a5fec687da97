"""What judges the collection's text: the linters of its contributors and of Galaxy. .ci/run calls them: `-m lint`."""

import shutil

import pytest
from support.ansible import CORES, ROOT, Ansible
from support.collection import Copy, assert_importable, assert_sane, copy, linters, tarball_of

pytestmark = pytest.mark.lint

PRODUCTION = "Last profile that met the validation criteria was 'production'"
# tests/long leaves nothing out.
# What reads our source by a tool of its own, whichever ansible-core starts it: here the newest does.
WITHOUT_LINTERS = [
    word for linter in ("changelog", "pep8", "pylint", "yamllint") for word in ("--skip-test", linter)
]
# The importer starts ansible-doc 14 times, once per kind of plugin, and ansible-lint: other tests here run both.
WITHOUT_PROGRAMS = {"GALAXY_IMPORTER_RUN_ANSIBLE_DOC": "no", "GALAXY_IMPORTER_RUN_ANSIBLE_LINT": "no"}


@pytest.fixture(scope="session")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    return linters(tmp_path_factory)


def test_it_passes_the_sanity_tests(ansible: Ansible) -> None:
    assert_sane(
        copy(ansible.programs, ansible.folder), *(() if ansible.core == CORES[-1] else WITHOUT_LINTERS)
    )


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
