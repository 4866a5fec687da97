"""What all texts have pip and ansible-galaxy install is what pyproject.toml says; run this file to change the texts."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COLLECTION = ROOT / "ansible/ansible_collections/klearstack/vault"
_PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT, INSTALLS = _PYPROJECT["project"], _PYPROJECT["tool"]["klearstack-vault"]
# Each kind of text that tells how to install something of ours.
TEXTS = {
    "package": [
        "README.md",
        "ansible/ansible_collections/klearstack/vault/README.md",
        "ansible/ansible_collections/klearstack/vault/plugins/plugin_utils/_engine.py",
        "examples/ansible/README.md",
        "examples/ansible/execution-environment.yml",
        "examples/ci/github-actions.yml",
        "examples/ci/gitlab-ci.yml",
        "examples/kubernetes/Dockerfile",
        "examples/systemd/README.md",
        "examples/terraform/modules/klearstack-token/README.md",
    ],
    "collection": ["ansible/ansible_collections/klearstack/vault/README.md"],
}
# A file of ours, or our name with or without a version.
_WHAT = {
    "package": r"klearstack_vault-[\w.-]+\.whl|klearstack-vault(?:\[\w+\])?(?:[=<>~]=[\w.]+)?(?![\w/.-])",
    "collection": r"klearstack-vault-[\w.]+\.tar\.gz|klearstack\.vault(?::[\w.]+)?(?![\w.])",
}
_INSTALLER = {
    "package": r"(?:pip3?|pipx|uv tool) install |PACKAGE = ",
    "collection": r"ansible-galaxy collection install ",
}


def told(kind: str) -> re.Pattern[str]:
    """An installation: what precedes what is installed, its folder, and that."""
    return re.compile(rf"((?:{_INSTALLER[kind]})[^\n&|;#]*?)((?:[\w.-]*/)*)({_WHAT[kind]})")


def changed(kind: str, text: str, wanted: str) -> str:
    """The same text, which installs that. A file stays in its folder."""
    folder, _, name = wanted.rpartition("/")

    def change(found: re.Match[str]) -> str:
        return found[1] + ((found[2] or f"{folder}/") if folder else "") + name

    return told(kind).sub(change, text)


def readers() -> list[Path]:
    """All texts that people read, and all code that tells them something."""
    kinds = {".md", ".rst", ".py", ".yml", ".yaml", ".txt", ".tf", ".sh", ".service", ".hcl", ""}
    places = [
        *ROOT.glob("*.md"),
        *(
            one
            for folder in ("ansible", "docs", "examples", "vault_plugin")
            for one in (ROOT / folder).rglob("*")
        ),
    ]
    return [one for one in places if one.suffix in kinds and one.is_file() and "LICENSES" not in one.parts]


@pytest.mark.parametrize("kind", TEXTS)
def test_each_text_installs_what_pyproject_toml_says(kind: str) -> None:
    wanted = Path(INSTALLS[kind]).name
    found = {
        str(path.relative_to(ROOT)): {
            what for *_, what in told(kind).findall(path.read_text(encoding="utf-8", errors="replace"))
        }
        for path in readers()
    }
    assert {name: whats for name, whats in found.items() if whats} == {name: {wanted} for name in TEXTS[kind]}


def test_a_wheel_is_copied_only_while_it_is_what_is_installed() -> None:
    copying = {
        path.name
        for path in readers()
        if "klearstack_vault-*.whl" in path.read_text(encoding="utf-8", errors="replace")
    }
    wheel = INSTALLS["package"].endswith(".whl")
    assert copying == ({"Dockerfile", "execution-environment.yml"} if wheel else set())


def test_what_is_installed_is_what_is_built() -> None:
    name, version = PROJECT["name"], PROJECT["version"]
    files = {
        "package": f"{name.replace('-', '_')}-{version}-py3-none-any.whl",
        "collection": f"{name}-{version}.tar.gz",
    }
    published = {"package": [name, f"{name}=={version}"], "collection": ["klearstack.vault"]}
    for kind, file in files.items():
        assert INSTALLS[kind] in {f"./{file}", *published[kind]}


def test_a_release_changes_the_texts() -> None:
    file, later, name = (
        "./klearstack_vault-0.1.0-py3-none-any.whl",
        "./klearstack_vault-0.2.0-py3-none-any.whl",
        "klearstack-vault",
    )
    text = f"RUN pip install -q /tmp/{file[2:]}\n/opt/{name}/bin/pip install {file} # {name}\n"
    bare = f"RUN pip install -q {name}\n/opt/{name}/bin/pip install {name} # {name}\n"
    assert changed("package", text, later) == text.replace("0.1.0", "0.2.0")
    assert changed("package", text, name) == bare
    assert changed("package", bare, file) == text.replace("/tmp/", "./")


def test_nothing_installs_a_name_that_is_on_no_index() -> None:
    for name in ("meta/ee-requirements.txt", "tests/unit/requirements.txt"):
        text = (COLLECTION / name).read_text(encoding="utf-8")
        needed = [line for line in text.splitlines() if line and line[0] != "#"]
        assert needed == ([] if INSTALLS["package"].endswith(".whl") else [INSTALLS["package"]])


if __name__ == "__main__":
    for kind, names in TEXTS.items():
        for path in (ROOT / name for name in names):
            path.write_text(changed(kind, path.read_text(encoding="utf-8"), INSTALLS[kind]), encoding="utf-8")
