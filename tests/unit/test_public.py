"""What programs and the Ansible collection may import: the names that the package's docstring declares."""

import ast
import re
from collections.abc import Iterator
from importlib import import_module
from inspect import isclass

import pytest
from support.pages import COLLECTION, PAGES, ROOT, read

import vault_plugin
from vault_plugin import errors
from vault_plugin.errors import KlearstackVaultError

PACKAGE = "vault_plugin"
ERRORS = {
    f"errors.{name}"
    for name, value in vars(errors).items()
    if isclass(value) and issubclass(value, KlearstackVaultError)
}


def declared(paragraph: str) -> set[str]:
    """The names in the paragraph of the docstring that begins so."""
    text = next(
        part for part in (vault_plugin.__doc__ or "").split("\n\n") if part.startswith(f"For {paragraph}")
    )
    return {name for name in re.findall(r"`([\w.]+)`", text) if name != "errors"}


PROGRAMS = declared("programs") | ERRORS
ALL = PROGRAMS | declared("the Ansible collection")


def imported(code: str) -> Iterator[str]:
    """The names that the code imports from the package, without the package's own name."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == PACKAGE:
            where = (node.module or "").removeprefix(PACKAGE).lstrip(".")
            yield from (f"{where}.{one.name}".lstrip(".") for one in node.names)
        elif isinstance(node, ast.Import):
            yield from (one.name for one in node.names if one.name.split(".")[0] == PACKAGE)


def of_collection() -> set[str]:
    return {
        name
        for path in (ROOT / COLLECTION / "plugins").rglob("*.py")
        for name in imported(path.read_text(encoding="utf-8"))
    }


def test_each_public_name_exists() -> None:
    for name in sorted(ALL):
        module, _, attribute = name.rpartition(".")
        assert hasattr(import_module(f"{PACKAGE}.{module}"), attribute), name


def test_the_collection_imports_public_names_alone_and_each_that_is_public_for_it() -> None:
    assert of_collection() <= ALL
    assert ALL - PROGRAMS <= of_collection()


def test_the_documentation_imports_what_is_public_for_programs() -> None:
    for page in PAGES:
        code = "\n".join(re.findall(r"^ *from vault_plugin[\w.]* import .*$", read(page), re.MULTILINE))
        assert set(imported(re.sub(r"^ +", "", code, flags=re.MULTILINE))) <= PROGRAMS, page


def test_the_examples_import_what_is_public_for_programs() -> None:
    names = {
        name
        for path in (ROOT / "examples").rglob("*.py")
        for name in imported(path.read_text(encoding="utf-8"))
    }
    assert names
    assert names <= PROGRAMS


@pytest.mark.parametrize(
    "code",
    [
        "from vault_plugin.vault.client import VaultClient",
        "import vault_plugin.cli",
        "from vault_plugin import app",
    ],
)
def test_any_other_import_is_found(code: str) -> None:
    assert not set(imported(code)) <= ALL


def test_the_example_in_the_docstring_imports_what_is_public() -> None:
    code = (vault_plugin.__doc__ or "").split("\n\n")[1]
    assert set(imported(code)) == {"app.connect", "settings.Settings"}
