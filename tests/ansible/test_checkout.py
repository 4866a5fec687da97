"""The collection without our wheel: from a checkout, by a path."""

import venv
from pathlib import Path

import pytest
from support.ansible import ROOT, TOKEN, Ansible, lookup, shown, token
from support.cli import World


@pytest.fixture
def bare(newest: Ansible, tmp_path: Path) -> Ansible:
    """The newest ansible-core in an environment that has all it needs but our package."""
    folder = tmp_path / "bare"
    venv.create(folder)
    (theirs,), (own,) = (list(one.glob("lib/*/site-packages")) for one in (newest.programs.parent, folder))
    for entry in theirs.iterdir():
        if not entry.name.startswith(("vault_plugin", "klearstack", "ansible_collections")):
            (own / entry.name).symlink_to(entry)
    program = folder / "bin" / "ansible-playbook"
    program.write_text(f"#!{folder}/bin/python\nfrom ansible.cli.playbook import main\nmain()\n")
    program.chmod(0o755)
    return Ansible(newest.core, folder / "bin", newest.folder)


def test_without_the_package_one_line_says_which_python_needs_it(bare: Ansible, kv2: World) -> None:
    results = bare.results(
        kv2, [shown(lookup()), token()], env={"ANSIBLE_COLLECTIONS_PATH": str(ROOT / "ansible")}
    )
    for one in results:
        assert one["failed"]
        assert one["msg"].endswith(
            "klearstack.vault needs the Python package klearstack-vault in the Python that runs Ansible: "
            f"{bare.programs}/python -m pip install {ROOT}"
        )
        assert "\n" not in one["msg"]


def test_it_works_from_a_checkout(bare: Ansible, kv2: World) -> None:
    env = {"ANSIBLE_COLLECTIONS_PATH": str(ROOT / "ansible"), "PYTHONPATH": str(ROOT)}
    looked, ran = bare.results(kv2, [shown(lookup("field='source'")), token()], env=env)
    assert (looked["msg"], ran["source"]) == ("endpoint", "vault")
    done = bare.play(kv2, [shown(lookup())], env={"PYTHONPATH": str(ROOT)}, check=False)
    assert f"'{TOKEN}'" in done.stdout + done.stderr
    assert done.returncode != 0
