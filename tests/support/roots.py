"""Root modules with the examples of Terraform, and the fixtures that make them, for `terraform` and for `long`."""

import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from support import notes
from support.cli import World
from support.once import made_once
from support.terraform import Terraform, prepare, prepared
from support.vault import Vault
from vault_plugin.demo.simulator import Simulator

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "terraform"
USE = """
module "klearstack_token" {
  source       = "./modules/klearstack-token"
  user_id      = "26"
  company_name = "Acme"
}

output "access" {
  value = module.klearstack_token.access
}
"""
_MANY = """
data "external" "token" {{
  count   = {count}
  program = ["klearstack-vault", "terraform"]
  query = {{
    user_id      = "many"
    company_name = "Acme"
  }}
}}
"""


@dataclass
class Root:
    """A root module in a folder of its own, with an endpoint and a Vault to run against."""

    terraform: Terraform
    world: World
    folder: Path
    environ: dict[str, str]

    def run(self, *arguments: str, check: bool = True, **environ: str) -> CompletedProcess[str]:
        return self.terraform.run(*arguments, cwd=self.folder, env=self.environ | environ, check=check)

    def is_up_to_date(self) -> bool:
        """Whether a plan shows no difference."""
        done = self.run("plan", "-detailed-exitcode", check=False)
        assert done.returncode in {0, 2}, done.stdout + done.stderr
        return done.returncode == 0

    @property
    def mints(self) -> int:
        return self.world.endpoint.mints


@pytest.fixture(scope="session")
def terraform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terraform]:
    """The real `terraform`; skips where there is none on PATH."""
    binary = shutil.which("terraform")
    if binary is None:
        raise notes.skipped(
            "there is no `terraform` on PATH", "the Terraform module, the examples and the stand-ins"
        )
    folder = made_once(tmp_path_factory, "terraform", lambda folder: prepare(binary, folder))
    with prepared(binary, folder) as tool:
        providers = "the real providers" if tool.real else "stand-ins for the providers: no registry answers"
        notes.take(f"Terraform ran with {providers}.")
        yield tool


@pytest.fixture
def examples(terraform: Terraform, bao: Vault, tmp_path: Path) -> Iterator[Root]:
    """A copy of examples/terraform, as README tells a newcomer to make one."""
    (tmp_path / "home").mkdir()
    copy = tmp_path / "terraform"
    shutil.copytree(EXAMPLES, copy)
    with Simulator() as endpoint:
        world = World(endpoint, bao, bao.mount("v2"), tmp_path / "home")
        yield Root(terraform, world, copy, _environ(world, commands(tmp_path), terraform))


def commands(folder: Path) -> Path:
    """A folder for PATH, with the command of this interpreter, wherever its scripts are."""
    command = folder / "bin" / "klearstack-vault"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m vault_plugin "$@"\n')
    command.chmod(0o755)
    return command.parent


def _environ(world: World, programs: Path, terraform: Terraform) -> dict[str, str]:
    environ = {name: value for name, value in world.environ.items() if not name.startswith("KLEARSTACK_USER")}
    environ |= {
        "PATH": f"{programs}:{terraform.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "TF_VAR_user_id": "26",
        "TF_VAR_company_name": "Acme",
        "TF_VAR_klearstack_user": '{ user_id = "26", company_name = "Acme" }',
    }
    del environ["KLEARSTACK_COMPANY_NAME"]
    return environ


@pytest.fixture
def root(examples: Root) -> Root:
    """The module alone, used as its README says."""
    (examples.folder / "main.tf").write_text(USE)
    examples.run("init")
    return examples


def plans_in_a_row(root: Root, count: int) -> None:
    """So many plans after an apply mint nothing, and none shows a difference."""
    root.run("apply", "-auto-approve")
    assert [root.is_up_to_date() for _ in range(count)] == [True] * count
    assert root.mints == 1


def blocks_that_ask_at_once(root: Root, count: int) -> None:
    """So many data sources of one identity, side by side in one plan, mint once."""
    (root.folder / "main.tf").write_text(_MANY.format(count=count))
    root.run("init")
    root.run("plan", f"-parallelism={count}")
    assert root.mints == 1
