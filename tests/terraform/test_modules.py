"""The module and the two root examples by the real `terraform`: what they do, how often they mint, what they leave."""

import json
import re
import shutil
import sys
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from support.cli import World
from support.vault import Vault

from vault_plugin.simulator import Simulator

EXAMPLES = Path(__file__).parents[2] / "examples" / "terraform"
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
MANY = """
data "external" "token" {
  count   = 40
  program = ["klearstack-vault", "terraform"]
  query = {
    user_id      = "many"
    company_name = "Acme"
  }
}
"""


@dataclass
class Root:
    """A root module in a folder of its own, with an endpoint and a Vault to run against."""

    terraform: Any
    world: World
    folder: Path
    environ: dict[str, str]

    def run(self, *arguments: str, check: bool = True, **environ: str) -> CompletedProcess[str]:
        done: CompletedProcess[str] = self.terraform.run(
            *arguments, cwd=self.folder, env=self.environ | environ, check=check
        )
        return done

    def is_up_to_date(self) -> bool:
        """Whether a plan shows no difference."""
        done = self.run("plan", "-detailed-exitcode", check=False)
        assert done.returncode in {0, 2}, done.stdout + done.stderr
        return done.returncode == 0

    @property
    def mints(self) -> int:
        return self.world.endpoint.mints


@pytest.fixture
def world(bao: Vault, tmp_path: Path) -> Iterator[World]:
    (tmp_path / "home").mkdir()
    with Simulator() as endpoint:
        yield World(endpoint, bao, bao.mount("v2"), tmp_path / "home")


@pytest.fixture
def examples(world: World, tmp_path: Path, terraform: Any) -> Root:
    """A copy of examples/terraform, as README tells a newcomer to make one."""
    command = tmp_path / "bin" / "klearstack-vault"  # this interpreter's, wherever its scripts lie
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m vault_plugin "$@"\n')
    command.chmod(0o755)
    copy = tmp_path / "terraform"
    shutil.copytree(EXAMPLES, copy)
    environ = {name: value for name, value in world.environ.items() if not name.startswith("KLEARSTACK_USER")}
    environ |= {
        "HOME": str(tmp_path / "home"),
        "PATH": f"{command.parent}:{terraform.environ['PATH']}",
        "PYTHONPATH": str(EXAMPLES.parents[1]),
        "TF_VAR_user_id": "26",
        "TF_VAR_company_name": "Acme",
        "TF_VAR_klearstack_user": '{ user_id = "26", company_name = "Acme" }',
    }
    del environ["KLEARSTACK_COMPANY_NAME"]
    return Root(terraform, world, copy, environ)


@pytest.fixture
def root(examples: Root) -> Root:
    """The module alone, used as its README says."""
    (examples.folder / "main.tf").write_text(USE)
    examples.run("init")
    return examples


def in_folder(root: Root, name: str) -> Root:
    made = Root(root.terraform, root.world, root.folder / name, root.environ)
    made.run("init")
    return made


def secrets(root: Root) -> list[str]:
    """Every token that the endpoint ever sent, and the Vault token."""
    return [*root.world.endpoint.issued, root.world.vault.root_token]


def leaks(root: Root, *outputs: str) -> list[str]:
    """Where one of them stands: in an output, in a file of the folder, in what a plan file packs."""
    texts = {f"output {number}": output for number, output in enumerate(outputs)}
    for path in root.folder.rglob("*"):
        if not path.is_file() or ".terraform" in path.parts:
            continue
        texts[path.name] = path.read_bytes().decode(errors="replace")
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as plan:
                for name in plan.namelist():
                    texts[f"{path.name}/{name}"] = plan.read(name).decode(errors="replace")
    assert root.world.endpoint.issued
    return [where for where, text in texts.items() if any(secret in text for secret in secrets(root))]


def test_the_examples_are_formatted(examples: Root) -> None:
    examples.run("fmt", "-check", "-recursive")


def test_the_modules_own_tests_pass(examples: Root) -> None:
    module = in_folder(examples, "modules/klearstack-token")
    module.run("validate")
    assert "8 passed, 0 failed" in module.run("test").stdout
    assert examples.world.endpoint.requests == 0  # mocks


def test_the_modules_readme_names_each_variable_and_output(examples: Root) -> None:
    folder = examples.folder / "modules" / "klearstack-token"
    text = (folder / "README.md").read_text().replace("\\_", "_")
    for kind, file in (("input", "variables.tf"), ("output", "outputs.tf")):
        word = "variable" if kind == "input" else "output"
        lines = (folder / file).read_text().splitlines()
        names = [line.split('"')[1] for line in lines if line.startswith(f"{word} ")]
        descriptions = [line.split('"')[1] for line in lines if "description" in line]
        assert names
        assert [name for name in names if f'name="{kind}_{name}"' not in text] == []
        assert [description for description in descriptions if description not in text] == []


def test_a_plan_an_apply_an_empty_plan_and_a_destroy_mint_once(root: Root) -> None:
    root.run("validate")
    root.run("plan")
    root.run("apply", "-auto-approve")
    access = json.loads(root.run("output", "-json").stdout)["access"]["value"]
    stored = root.world.vault.read(access["mount"], access["name"])
    assert stored is not None
    assert stored["expires_at"] == access["expires_at"]
    assert access["version"] == 1
    assert root.is_up_to_date()
    root.run("destroy", "-auto-approve")
    assert root.mints == 1


def test_20_plans_in_a_row_mint_nothing_and_show_no_difference(root: Root) -> None:
    root.run("apply", "-auto-approve")
    assert [root.is_up_to_date() for _ in range(20)] == [True] * 20
    assert root.mints == 1


def test_40_identical_blocks_in_one_plan_mint_once(examples: Root) -> None:
    (examples.folder / "main.tf").write_text(MANY)
    examples.run("init")
    examples.run("plan", "-parallelism=40")
    assert examples.mints == 1


def test_a_saved_plan_is_applied_without_another_run(root: Root) -> None:
    root.run("plan", "-out=saved.tfplan")
    root.run("apply", "saved.tfplan")
    assert root.mints == 1


def test_destroy_goes_on_while_the_endpoint_is_down(root: Root) -> None:
    root.run("apply", "-auto-approve")
    root.world.endpoint.fault = "503"
    root.run("destroy", "-auto-approve")


def test_what_is_wrong_stands_in_terraforms_error(root: Root) -> None:
    done = root.run("plan", check=False, VAULT_TOKEN="hvs.wrong")
    assert done.returncode == 1
    said = " ".join(done.stderr.replace("│", " ").split())
    assert "klearstack-vault: Vault denied permission to look at the mount (403)." in said
    assert "Traceback" not in said


@pytest.mark.parametrize("name", ["root", "with-vault"])
def test_no_token_is_in_state_plan_output_or_trace(root: Root, name: str) -> None:
    place = root if name == "root" else in_folder(root, name)
    outputs = []
    for arguments in (
        ("plan", "-out=saved.tfplan"),
        ("show", "-json", "saved.tfplan"),
        ("apply", "saved.tfplan"),
        ("show", "-json"),
        ("output", "-json"),
        ("plan", "-out=second.tfplan"),
    ):
        done = place.run(*arguments, TF_LOG="TRACE", TF_LOG_PATH=str(place.folder / "trace.log"))
        outputs += [done.stdout, done.stderr]
    assert (place.folder / "trace.log").stat().st_size > 100_000
    assert leaks(place, *outputs) == []


def test_with_vault_alone_and_four_variables_make_a_plan(examples: Root, tmp_path: Path) -> None:
    world = examples.world
    limited = world.vault.policy_token(f"""
        path "{world.mount}/data/klearstack/*"     {{ capabilities = ["update", "read"] }}
        path "{world.mount}/metadata/klearstack/*" {{ capabilities = ["create", "update"] }}
        path "{world.mount}/data/teams/*"          {{ capabilities = ["create", "update", "read"] }}
        path "{world.mount}/metadata/teams/*"      {{ capabilities = ["read"] }}
    """)
    folder = tmp_path / "newcomer"
    shutil.copytree(EXAMPLES / "with-vault", folder)
    text = (folder / "main.tf").read_text()
    values = {
        "VAULT_ADDR": world.vault.address,
        "VAULT_TOKEN": limited,
        "KLEARSTACK_URL": world.endpoint.url,
        "TF_VAR_klearstack_user": '{ user_id = "26", company_name = "Acme" }',
    }
    assert re.findall(r"#   export (\w+)=", text) == list(values)
    given = {name: examples.environ[name] for name in ("PATH", "PYTHONPATH", "HOME", "KLEARSTACK_LOCK_DIR")}
    given["KLEARSTACK_VAULT_MOUNT"] = world.mount  # the test's own; everybody else's is `secret`
    newcomer = Root(examples.terraform, world, folder, given | values)
    newcomer.run("init")
    assert "1 to add, 0 to change, 0 to destroy" in newcomer.run("plan").stdout
    newcomer.run("apply", "-auto-approve")
    assert newcomer.is_up_to_date()


def test_with_vault_hands_the_token_to_a_provider_and_to_a_write_only_argument(examples: Root) -> None:
    root = in_folder(examples, "with-vault")
    root.run("validate")
    root.run("apply", "-auto-approve")
    token = root.world.endpoint.issued[1]
    copy = root.world.vault.read(root.world.mount, "teams/scanning/klearstack")
    assert copy == {"token": token}
    assert root.is_up_to_date()
    root.run("destroy", "-auto-approve")
    assert root.mints == 1


def test_with_vault_sends_a_newer_token_when_there_is_one(examples: Root) -> None:
    root = in_folder(examples, "with-vault")
    root.run("apply", "-auto-approve")
    root.world.run("get", "--renew")
    assert not root.is_up_to_date()
    root.run("apply", "-auto-approve")
    copy = root.world.vault.read(root.world.mount, "teams/scanning/klearstack")
    assert copy == {"token": root.world.endpoint.issued[3]}
    assert root.is_up_to_date()


def test_a_plan_that_is_applied_after_the_token_expired_says_so(examples: Root) -> None:
    root = in_folder(examples, "with-vault")
    root.world.endpoint.access_ttl = 14  # seconds; half of it is enough for the plan
    root.run("plan", "-out=saved.tfplan")
    time.sleep(14)
    done = root.run("apply", "saved.tfplan", check=False)
    assert done.returncode == 1
    assert "gone from Vault" in " ".join(done.stderr.replace("│", " ").split())


def test_ephemeral_command_calls_the_api_and_writes_nothing_down(examples: Root) -> None:
    root = in_folder(examples, "ephemeral-command")
    root.environ["TF_VAR_api_url"] = f"{root.world.endpoint.url}/simulator/stats"
    root.run("validate")
    outputs = [
        root.run(*words).stdout for words in (("plan", "-out=saved.tfplan"), ("apply", "saved.tfplan"))
    ]
    assert root.mints == 1
    assert leaks(root, *outputs) == []
