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
    ansible_test,
    copy,
    tarball_of,
)

TARGETS = ("lookup_token", "module_token")


@pytest.fixture
def mine(ansible: Ansible) -> Copy:
    """A copy of the collection for this version of ansible-core."""
    return copy(ansible.programs, ansible.folder)


@pytest.fixture(scope="session")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    home = tmp_path_factory.mktemp("tools")
    return copy(installed(CORES[-1], tmp_path_factory, home).programs, home)


@pytest.fixture(scope="session")
def tarball(tools: Copy) -> Path:
    return tarball_of(tools)


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
