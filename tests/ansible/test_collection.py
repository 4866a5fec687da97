"""The collection as such: by the tools that its users and its contributors have."""

import json
import shutil
import tarfile
import tomllib
from pathlib import Path

import pytest
from support.ansible import CORES, ROOT, TOKEN, Ansible, installed
from support.cli import World
from support.collection import (
    Copy,
    copy,
    tarball_of,
)


@pytest.fixture(scope="session")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    home = tmp_path_factory.mktemp("tools")
    return copy(installed(CORES[-1], tmp_path_factory, home).programs, home)


@pytest.fixture(scope="session")
def tarball(tools: Copy) -> Path:
    return tarball_of(tools)


def test_it_can_be_installed_from_its_tarball(tools: Copy, tarball: Path) -> None:
    folder = tools.home / "collections"
    # --force: the wheel has brought it already.
    tools.run(
        "ansible-galaxy", "collection", "install", str(tarball), "-p", str(folder), "--offline", "--force"
    )
    listed = tools.run(
        "ansible-galaxy", "collection", "list", "--format", "json", ANSIBLE_COLLECTIONS_PATH=str(folder)
    )
    assert json.loads(listed.stdout)[f"{folder}/ansible_collections"] == {
        "klearstack.vault": {"version": _version()}
    }
    for kind in ("lookup", "module"):
        asked = tools.run("ansible-doc", "--json", "-t", kind, TOKEN, ANSIBLE_COLLECTIONS_PATH=str(folder))
        assert json.loads(asked.stdout)[TOKEN]["doc"]["filename"].startswith(str(folder))


def test_the_wheel_alone_makes_it_visible(ansible: Ansible, kv2: World) -> None:
    listed = ansible.run("ansible-galaxy", "collection", "list", "--format", "json", env=ansible.environ(kv2))
    (found,) = (one for one in json.loads(listed.stdout).values() if "klearstack.vault" in one)
    assert found == {"klearstack.vault": {"version": _version()}}


def test_the_wheel_and_the_tarball_hold_the_same_plugins_of_the_same_version(
    our_wheel: Path, tarball: Path, tmp_path: Path
) -> None:
    shutil.unpack_archive(our_wheel, tmp_path / "wheel", "zip")
    of_wheel = tmp_path / "wheel/ansible_collections/klearstack/vault"
    with tarfile.open(tarball) as archive:
        packed = {one.name: archive.extractfile(one) for one in archive if one.isfile()}
        of_tarball = {name: file.read() for name, file in packed.items() if file}
    for folder in ("plugins", "meta"):
        of_folder = {f"{folder}/{name}": content for name, content in _files(of_wheel / folder).items()}
        assert {name: content for name, content in of_tarball.items() if name in of_folder} == of_folder != {}
        assert sum(name.startswith(f"{folder}/") for name in of_tarball) == len(of_folder)
    assert json.loads(of_tarball["MANIFEST.json"])["collection_info"]["version"] == _version()


def test_no_package_named_ansible_lies_in_the_checkout() -> None:
    """Where the current folder comes first it would hide the real one."""
    assert not list((ROOT / "ansible").rglob("__init__.py"))


def _files(folder: Path) -> dict[str, bytes]:
    return {str(one.relative_to(folder)): one.read_bytes() for one in folder.rglob("*") if one.is_file()}


def _version() -> str:
    about = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    version: str = about["project"]["version"]
    return version
