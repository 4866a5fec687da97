"""The module and the two root examples by the real `terraform`: what they do, how often they mint, what they leave."""

import json
import os
import re
import shutil
import signal
import subprocess
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
from support.ports import own_port
from support.roots import EXAMPLES, ROOT, Root, blocks_that_ask_at_once, commands, plans_in_a_row
from support.terraform import Terraform
from support.waiting import until

from vault_plugin.demo.embedded import binary

COPY = "teams/scanning/klearstack"  # of the token, by with-vault


def in_folder(root: Root, name: str) -> Root:
    made = Root(root.terraform, root.world, root.folder / name, root.environ)
    made.run("init")
    return made


def expire(root: Root) -> None:
    """Let the access token's life end, as if it had begun long ago."""
    vault, mount, name = root.world.vault, root.world.mount, "klearstack/Acme/26/access"
    vault.keep_too_long(mount, name, "1s")
    until(lambda: vault.read(mount, name) is None)


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


def test_the_readmes_ten_lines_work_as_pasted(terraform: Terraform, tmp_path: Path) -> None:
    readme = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    lines = re.findall(r"```sh\n(.*?)```", readme, flags=re.DOTALL)[0].splitlines()
    assert len(lines) == 10
    assert lines.pop(0).endswith("pip install --quiet '.[demo]'")  # whose commands are here by another way
    ports = {"8080": str(own_port()), "8200": str(own_port())}
    pasted = re.sub("8080|8200", lambda port: ports[port[0]], "\n".join(lines))
    listen = f"-dev -dev-listen-address=127.0.0.1:{ports['8200']}"
    assert "bao server -dev " in pasted
    pasted = pasted.replace("bao server -dev", f"bao server {listen}")
    checkout = tmp_path / "checkout"
    shutil.copytree(EXAMPLES, checkout / "examples/terraform")
    folder = commands(tmp_path)
    (folder / "bao").symlink_to(binary())
    environ = {
        "HOME": str(tmp_path),
        "PATH": f"{folder}:{terraform.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    with subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", pasted],
        cwd=checkout,
        env={**terraform.environ, **environ},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0,
    ) as shell:
        try:
            said, _ = shell.communicate(timeout=120)
        finally:
            with suppress(ProcessLookupError):  # what a failure leaves of the servers
                os.killpg(shell.pid, signal.SIGKILL)
    assert shell.returncode == 0, said
    assert re.search(r"^token +eyJ", said, flags=re.MULTILINE)
    assert "Apply complete! Resources: 1 added" in said
    assert "Destroy complete! Resources: 1 destroyed" in said


def test_the_examples_are_formatted(examples: Root) -> None:
    examples.run("fmt", "-check", "-recursive")


def test_the_modules_own_tests_pass(examples: Root) -> None:
    module = in_folder(examples, "modules/klearstack-token")
    module.run("validate")
    assert "10 passed, 0 failed" in module.run("test").stdout
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


def test_plans_in_a_row_mint_nothing_and_show_no_difference(root: Root) -> None:
    plans_in_a_row(root, 3)  # 20 in tests/long


def test_identical_blocks_in_one_plan_mint_once(examples: Root) -> None:
    blocks_that_ask_at_once(examples, 12)  # 40 in tests/long


def test_a_saved_plan_is_applied_without_another_run_even_if_its_token_has_expired(root: Root) -> None:
    root.run("plan", "-out=saved.tfplan")
    expire(root)
    root.run("apply", "saved.tfplan")  # README says so: who only uses the references is not told
    assert root.mints == 1


def test_destroy_goes_on_while_the_endpoint_is_down(root: Root) -> None:
    root.run("apply", "-auto-approve")
    root.world.endpoint.fault = "503"
    root.run("destroy", "-auto-approve")


def test_what_is_wrong_stands_in_terraforms_error(root: Root) -> None:
    done = root.run("plan", check=False, VAULT_TOKEN="hvs.wrong")
    assert done.returncode == 1
    said = " ".join(done.stderr.replace("│", " ").split())
    assert "klearstack-vault: Vault denied the read of the mount's type (status 403)." in said
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


def test_with_vault_runs_with_four_variables_and_its_policy_from_plan_to_destroy(
    examples: Root, tmp_path: Path
) -> None:
    world, folder = examples.world, tmp_path / "newcomer"
    shutil.copytree(EXAMPLES / "with-vault", folder)
    policy = (folder / "policy.hcl").read_text()
    values = {
        "VAULT_ADDR": world.vault.address,
        "VAULT_TOKEN": world.vault.policy_token(policy.replace('"secret/', f'"{world.mount}/')),
        "KLEARSTACK_URL": world.endpoint.url,
        "TF_VAR_klearstack_user": '{ user_id = "26", company_name = "Acme" }',
    }
    assert re.findall(r"#   export (\w+)=", (folder / "main.tf").read_text()) == list(values)
    given = {name: examples.environ[name] for name in ("PATH", "PYTHONPATH", "HOME", "KLEARSTACK_LOCK_DIR")}
    given["KLEARSTACK_VAULT_MOUNT"] = world.mount  # the test's own; everybody else's is `secret`
    newcomer = Root(examples.terraform, world, folder, given | values)
    newcomer.run("init")
    newcomer.run("validate")
    assert "1 to add, 0 to change, 0 to destroy" in newcomer.run("plan").stdout
    newcomer.run("apply", "-auto-approve")
    assert world.vault.read(world.mount, COPY) == {"token": world.endpoint.issued[1]}
    assert newcomer.is_up_to_date()
    world.run("get", "--renew")
    assert not newcomer.is_up_to_date()
    newcomer.run("apply", "-auto-approve")  # which writes the copy's metadata, too
    assert world.vault.read(world.mount, COPY) == {"token": world.endpoint.issued[3]}
    newcomer.run("destroy", "-auto-approve")
    assert world.vault.read(world.mount, COPY) is None
    assert world.endpoint.mints == 2


def test_with_vault_says_that_the_token_expired_and_can_be_destroyed_nevertheless(examples: Root) -> None:
    root = in_folder(examples, "with-vault")
    vault, mount = root.world.vault, root.world.mount
    root.run("plan", "-out=saved.tfplan")
    expire(root)
    done = root.run("apply", "saved.tfplan", check=False)
    assert done.returncode == 1
    said = " ".join(done.stderr.replace("│", " ").split())
    assert "The access token is no longer in Vault (it expired at 20" in said
    assert vault.read(mount, COPY) is None
    root.run("apply", "-auto-approve")
    assert vault.read(mount, COPY) == {"token": root.world.endpoint.issued[3]}
    expire(root)
    root.world.endpoint.fault = "503"
    root.run("destroy", "-auto-approve", "-refresh=false")
    assert vault.read(mount, COPY) is None


def test_ephemeral_command_calls_the_api_and_writes_tokens_into_a_trace_alone(examples: Root) -> None:
    root = in_folder(examples, "ephemeral-command")
    root.environ["TF_VAR_api_url"] = f"{root.world.endpoint.url}/simulator/stats"
    root.run("validate")
    outputs = [
        root.run(*words, TF_LOG=level, TF_LOG_PATH=str(root.folder / f"{level}.log")).stdout
        for level, words in {
            "DEBUG": ("plan", "-out=saved.tfplan"),
            "TRACE": ("apply", "saved.tfplan"),
        }.items()
    ]
    assert root.mints == 1
    assert (root.folder / "DEBUG.log").stat().st_size > 1000
    assert leaks(root, *outputs) == ["TRACE.log"]  # the example's first lines warn of it
    trace = (root.folder / "TRACE.log").read_text()
    assert all(token in trace for token in root.world.endpoint.issued[:2])  # the refresh token as well
