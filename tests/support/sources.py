"""The package's code, parsed once for all tests of a process that look into it."""

import ast
from functools import cache
from pathlib import Path

import vault_plugin

PACKAGE = Path(vault_plugin.__file__).parent


@cache
def trees() -> dict[str, ast.Module]:
    """The syntax tree of each module, by its path in the package; nobody changes them."""
    modules = {str(path.relative_to(PACKAGE)): path for path in sorted(PACKAGE.rglob("*.py"))}
    return {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in modules.items()}
