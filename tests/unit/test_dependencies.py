"""What is imported is declared, and the other way round."""

import ast
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from support.sources import trees

ROOT = Path(__file__).parents[2]


def imported() -> Iterator[str]:
    """The packages that our modules import, at whatever place."""
    for tree in trees().values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                yield from (one.name.partition(".")[0] for one in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield node.module.partition(".")[0]


def test_each_package_that_is_imported_is_declared_with_its_lowest_version() -> None:
    foreign = {*imported()} - sys.stdlib_module_names - {"vault_plugin"}
    distributions = packages_distributions()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = [
        Requirement(one) for one in [*project["dependencies"], *project["optional-dependencies"]["demo"]]
    ]
    assert {canonicalize_name(one.name) for one in declared} == {
        canonicalize_name(distributions[name][0]) for name in foreign
    }
    assert {specifier.operator for one in declared for specifier in one.specifier} == {">="}
