"""What Terraform and its providers do with programs and secrets, on which `klearstack-vault terraform` counts.

All of it holds for the real providers. Where stand-ins take their place, it shows that these behave alike.
"""

import json
import os
import signal
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest
from support.terraform import Terraform
from support.vault import Vault
from support.waiting import until

CANARY = "canary"
Errors = dict[str, dict[str, str]]  # by the address of the block

# A data source for each case. The cases are a variable, so that one `init` and one run do for all of them.
EXTERNAL = """
terraform {
  required_providers {
    external = { source = "hashicorp/external", version = "~> 2.3" }
  }
}
variable "cases" {}
data "external" "case" {
  for_each    = var.cases
  program     = each.value.program
  query       = each.value.query
  working_dir = each.value.working_dir
}
output "results" {
  value = { for name, case in data.external.case : name => case.result }
}
"""


def case(*program: str | None, query: dict[str, Any] | None = None, working_dir: str = "") -> dict[str, Any]:
    return {"program": program, "query": query, "working_dir": working_dir or None}


def sh(script: str, **more: Any) -> dict[str, Any]:
    return case("sh", "-c", script, **more)


def python(expression: str, **more: Any) -> dict[str, Any]:
    return case("python3", "-c", f"import json, os, sys; print(json.dumps({expression}))", **more)


# The program, and the result.
ACCEPTED: dict[str, tuple[dict[str, Any], dict[str, str] | None]] = {
    "a query of strings, numbers and booleans": (
        case("cat", query={"text": "a", "number": 5, "boolean": True, "empty": ""}),
        {"text": "a", "number": "5", "boolean": "true", "empty": ""},
    ),
    "a query with null and characters of HTML": (
        python("{'stdin': sys.stdin.read()}", query={"b": "<>&", "a": "é", "c": None}),
        {"stdin": r'{"a":"é","b":"\u003c\u003e\u0026"}'},
    ),
    "no query": (python("{'stdin': sys.stdin.read()}"), {"stdin": "{}"}),
    "a query that is not read": (sh("echo '{}'", query={"large": "x" * 200_000}), {}),
    "empty and null items of program": (case(None, "echo", "", '{"a":"b"}', None), {"a": "b"}),
    "null": (sh("""echo '{"a":null}'"""), {"a": ""}),
    "null as a whole": (sh("echo null"), None),
    "a key twice": (sh("""echo '{"a":"1","a":"2"}'"""), {"a": "2"}),
    "invalid UTF-8": (sh(r"""printf '{"a":"\377"}'"""), {"a": "\ufffd"}),
    "stderr": (sh("echo unheard >&2; echo '{}'"), {}),
    "the environment": (python("{'a': os.environ['OF_TERRAFORM']}"), {"a": "passed on"}),
    "working_dir": (python("{'a': os.getcwd()}", working_dir="/"), {"a": "/"}),
    "no terminal": (
        python("{str(n): str(os.isatty(n)) for n in range(3)}"),
        {"0": "False", "1": "False", "2": "False"},
    ),
}

RESULTS = "Unexpected External Program Results"
EXECUTION = "External Program Execution Failed"
# The program, and the error's summary and a part of its detail.
REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "a number": (sh(f"""echo '{{"{CANARY}":451}}'"""), RESULTS, "cannot unmarshal number into"),
    "a boolean": (sh(f"""echo '{{"{CANARY}":true}}'"""), RESULTS, "cannot unmarshal bool into"),
    "an object": (sh(f"""echo '{{"a":{{"b":"{CANARY}"}}}}'"""), RESULTS, "cannot unmarshal object into"),
    "a list": (sh(f"""echo '{{"a":["{CANARY}"]}}'"""), RESULTS, "cannot unmarshal array into"),
    "a list as a whole": (sh("echo '[]'"), RESULTS, "cannot unmarshal array into"),
    "nothing": (sh("true"), RESULTS, "unexpected end of JSON input"),
    "a line before": (sh("echo log; echo '{}'"), RESULTS, "invalid character 'l'"),
    "a line after": (sh("echo '{}'; echo log"), RESULTS, "invalid character 'l'"),
    "a byte order mark": (sh(r"printf '\357\273\277{}'"), RESULTS, "invalid character"),
    "a failure that says why": (sh("echo why >&2; exit 3"), EXECUTION, "Error Message: why\n"),
    "a failure with a status": (sh("echo why >&2; exit 3"), EXECUTION, "State: exit status 3"),
    "a failure that says it on stdout": (sh("echo '{}'; exit 4"), EXECUTION, "no additional error messaging"),
    "a signal": (sh("kill -9 $$"), EXECUTION, "State: signal: killed"),
    "an unknown program": (case("no-such-program"), "External Program Lookup Failed", "no-such-program"),
    "no program": (case("", None), "External Program Missing", ""),
}


@pytest.fixture(scope="module")
def external(terraform: Terraform, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return initialized(terraform, tmp_path_factory.mktemp("external"), EXTERNAL)


@pytest.fixture(scope="module")
def accepted(terraform: Terraform, external: Path) -> subprocess.CompletedProcess[str]:
    ask_for(external, {name: program for name, (program, _) in ACCEPTED.items()})
    env = {"OF_TERRAFORM": "passed on"}
    return terraform.run("apply", "-json", "-auto-approve", cwd=external, env=env)


@pytest.fixture(scope="module")
def refused(terraform: Terraform, external: Path) -> Errors:
    ask_for(external, {name: program for name, (program, *_) in REFUSED.items()})
    return errors(terraform.run("plan", "-json", cwd=external, check=False))


@pytest.mark.parametrize("name", ACCEPTED)
def test_external_accepts(name: str, accepted: subprocess.CompletedProcess[str]) -> None:
    outputs = [event["outputs"] for event in events(accepted) if event["type"] == "outputs"]
    assert outputs[-1]["results"]["value"][name] == ACCEPTED[name][1]


def test_external_shows_no_stderr_of_a_success(accepted: subprocess.CompletedProcess[str]) -> None:
    assert "unheard" not in accepted.stdout + accepted.stderr


@pytest.mark.parametrize("name", REFUSED)
def test_external_refuses(name: str, refused: Errors) -> None:
    _, summary, detail = REFUSED[name]
    error = refused[f"data.external.case[{json.dumps(name)}]"]
    assert error["summary"] == summary
    assert detail in error["detail"]
    assert CANARY not in error["detail"]


def test_external_kills_its_program_when_terraform_is_interrupted(
    terraform: Terraform, external: Path, tmp_path: Path
) -> None:
    script = f"trap '' INT TERM; cd {tmp_path}; echo $$ >new; mv new pid; exec sleep 120"
    ask_for(external, {"it": sh(script)})
    process = subprocess.Popen(
        [terraform.binary, "plan"],
        cwd=external,
        env=terraform.environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        process_group=0,
    )
    until((tmp_path / "pid").exists)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(60) == 1  # before the program would end by itself
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_external_lets_its_program_end_when_an_apply_is_interrupted(
    terraform: Terraform, external: Path, tmp_path: Path
) -> None:
    script = f"cd {tmp_path}; touch started; until [ -e go ]; do sleep 0.05; done; touch ended; echo '{{}}'"
    ask_for(external, {"it": sh(script)})
    with subprocess.Popen(
        [terraform.binary, "apply", "-auto-approve"],
        cwd=external,
        env=terraform.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        process_group=0,
    ) as process:
        until((tmp_path / "started").exists)
        os.kill(process.pid, signal.SIGINT)  # not to the group, as Ctrl-C
        assert process.stdout
        assert any("Interrupt received" in line for line in process.stdout)
        (tmp_path / "go").touch()
        process.communicate(timeout=60)
    assert (tmp_path / "ended").exists()


# A secret goes from a command to a write-only argument, and from Vault to another.
SECRET = r"""
terraform {
  required_providers {
    local = { source = "hashicorp/local", version = ">= 2.7" }
    vault = { source = "hashicorp/vault", version = "~> 5.0" }
  }
}
variable "mount" {}
variable "edition" { default = 1 }
ephemeral "local_command" "minted" {
  command   = "sh"
  arguments = ["-c", "cat; printf \"$SECRET\\\"}\"; echo ran >>count", null]
  stdin     = "{\"token\":\""
}
resource "vault_kv_secret_v2" "first" {
  mount                = var.mount
  name                 = "some/first"
  data_json_wo         = ephemeral.local_command.minted.stdout
  data_json_wo_version = var.edition
}
ephemeral "vault_kv_secret_v2" "first" {
  mount    = var.mount
  mount_id = vault_kv_secret_v2.first.id
  name     = "some/first"
}
resource "vault_kv_secret_v2" "second" {
  mount                = var.mount
  name                 = "second"
  data_json_wo         = jsonencode({ again = ephemeral.vault_kv_secret_v2.first.data.token })
  data_json_wo_version = var.edition
  delete_all_versions  = true
}
"""


def test_a_secret_passes_through_ephemeral_blocks_and_is_stored_nowhere(
    terraform: Terraform, bao: Vault, tmp_path: Path
) -> None:
    initialized(terraform, tmp_path, SECRET)
    mount = bao.mount("v2")
    env = access(bao) | {"TF_VAR_mount": mount, "SECRET": "canary-1"}
    said: list[str] = []

    def run(*arguments: str, status: int = 0) -> None:
        done = terraform.run(*arguments, cwd=tmp_path, env=env, check=False)
        said.append(done.stdout + done.stderr)
        assert done.returncode == status, said[-1]

    run("plan", "-out=plan.zip")
    run("show", "-json", "plan.zip")
    assert bao.read(mount, "some/first") is None
    run("apply", "plan.zip")
    assert bao.read(mount, "some/first") == {"token": "canary-1"}
    assert bao.read(mount, "second") == {"again": "canary-1"}
    run("plan", "-detailed-exitcode")  # nothing to do
    assert (tmp_path / "count").read_text() == 3 * "ran\n"
    env |= {"TF_VAR_edition": "2", "SECRET": "canary-2"}
    run("plan", "-detailed-exitcode", status=2)
    limited = bao.policy_token(f"""
        path "{mount}/data/*"           {{ capabilities = ["update", "read"] }}
        path "{mount}/metadata/*"       {{ capabilities = ["read"] }}
        path "auth/token/lookup-self"   {{ capabilities = ["read"] }}
        path "auth/token/create"        {{ capabilities = ["update"] }}
    """)
    env["VAULT_TOKEN"] = limited
    run("apply", "-auto-approve", status=1)  # the provider writes the metadata with each update
    assert f"URL: PUT {bao.address}/v1/{mount}/metadata/some/first" in said[-1].replace("\n", "")
    env |= access(bao)
    run("apply", "-auto-approve")
    assert bao.read(mount, "second") == {"again": "canary-2"}
    assert bao.metadata(mount, "second")["current_version"] == 2
    run("show", "-json")

    shown = "".join(said).encode()
    assert b"data_json_wo_version" in shown
    assert CANARY.encode() not in shown + b"".join(stored(tmp_path))

    run("destroy", "-auto-approve")
    assert bao.read(mount, "some/first") is None
    assert bao.metadata(mount, "some/first")["current_version"] == 3
    assert bao.admin.secrets.kv.v2.list_secrets("", mount_point=mount)["data"]["keys"] == ["some/"]


# What is expected of a secret; "" says that it has no data.
READ = """
terraform {
  required_providers {
    vault = { source = "hashicorp/vault", version = "~> 5.0" }
  }
}
variable "mount" {}
variable "name" {}
variable "edition" { default = null }
variable "expected" {}
variable "skip_child_token" { default = null }
variable "header" { default = null }
provider "vault" {
  skip_child_token = var.skip_child_token
  dynamic "headers" {
    for_each = var.header[*]
    content {
      name  = "X-Of-The-Test"
      value = headers.value
    }
  }
}
ephemeral "vault_kv_secret_v2" "it" {
  mount   = var.mount
  name    = var.name
  version = var.edition
  lifecycle {
    postcondition {
      condition     = self.data == null ? var.expected == "" : self.data.token == var.expected
      error_message = "This is not it."
    }
  }
}
"""


class Reading:
    """A configuration that reads secrets of one mount."""

    def __init__(self, terraform: Terraform, bao: Vault, folder: Path) -> None:
        self.terraform, self.bao = terraform, bao
        self.folder = initialized(terraform, folder, READ)
        self.mount = bao.mount("v2")

    def __call__(
        self, name: str, expected: str, token: str = "", log: Path | None = None, **variables: str
    ) -> str:
        """The error of reading this secret, all of it; empty if it is as expected. `log` is Terraform's, at DEBUG."""
        variables |= {"mount": self.mount, "name": name, "expected": expected}
        env = access(self.bao) | ({"VAULT_TOKEN": token} if token else {})
        env |= {"TF_LOG": "DEBUG", "TF_LOG_PATH": str(log)} if log else {}
        env |= {f"TF_VAR_{key}": value for key, value in variables.items()}
        done = self.terraform.run("plan", "-json", cwd=self.folder, env=env, check=False)
        return "\n".join(f"{error['summary']}: {error['detail']}" for error in errors(done).values())


@pytest.fixture(scope="module")
def reading(terraform: Terraform, bao: Vault, tmp_path_factory: pytest.TempPathFactory) -> Reading:
    return Reading(terraform, bao, tmp_path_factory.mktemp("reading"))


def test_vault_reads_the_latest_version_or_the_one_asked_for(reading: Reading, bao: Vault) -> None:
    bao.write(reading.mount, "twice", {"token": "one"})
    bao.write(reading.mount, "twice", {"token": "two"})
    assert reading("twice", "two") == ""
    assert reading("twice", "one", edition="1") == ""
    assert reading("twice", "one").endswith("This is not it.")


def test_vault_reads_null_where_a_version_is_deleted(reading: Reading, bao: Vault) -> None:
    bao.write(reading.mount, "gone", {"token": "one"})
    bao.admin.secrets.kv.v2.delete_latest_version_of_secret("gone", mount_point=reading.mount)
    assert reading("gone", "") == ""


def test_vault_fails_where_there_never_was_a_secret(reading: Reading) -> None:
    assert "nil" in reading("never", "")


def test_vault_fails_on_a_value_that_is_no_string(reading: Reading, bao: Vault) -> None:
    data = {"token": CANARY, "expires_at": 5}
    bao.admin.secrets.kv.v2.create_or_update_secret("mixed", data, mount_point=reading.mount)
    error = reading("mixed", CANARY)
    assert "Value Conversion Error" in error
    assert CANARY not in error


def test_vault_looks_up_its_token_and_makes_one_of_its_own_unless_told_otherwise(
    reading: Reading, bao: Vault
) -> None:
    bao.write(reading.mount, "readable", {"token": "one"})
    policy = f'path "{reading.mount}/data/*" {{ capabilities = ["read"] }}\n'
    token = bao.policy_token(policy)
    assert "failed to lookup token" in reading("readable", "one", token, skip_child_token="true")
    token = bao.policy_token(policy + 'path "auth/token/lookup-self" { capabilities = ["read"] }')
    assert "failed to create limited child token" in reading("readable", "one", token)
    assert reading("readable", "one", token, skip_child_token="true") == ""


def test_vault_writes_all_headers_but_its_token_into_the_log(
    reading: Reading, bao: Vault, tmp_path: Path
) -> None:
    bao.write(reading.mount, "logged", {"token": "a-secret-value"})
    log = tmp_path / "debug.log"
    assert reading("logged", "a-secret-value", log=log, skip_child_token="true", header=CANARY) == ""
    text = log.read_text()
    assert f"X-Of-The-Test: {CANARY}" in text
    assert "hmac-sha256:" in text
    assert [secret for secret in (bao.root_token, "a-secret-value") if secret in text] == []


COMMAND = """
terraform {
  required_providers {
    local = { source = "hashicorp/local", version = ">= 2.7" }
  }
}
ephemeral "local_command" "refused" {
  command   = "sh"
  arguments = ["-c", "echo why >&2; exit 3", "an argument"]
}
ephemeral "local_command" "unknown" {
  command = "no-such-program"
}
ephemeral "local_command" "accepted" {
  command                  = "sh"
  arguments                = ["-c", "echo why >&2; pwd; exit 3"]
  working_directory        = "/"
  allow_non_zero_exit_code = true
  lifecycle {
    postcondition {
      condition     = [self.exit_code, self.stdout, self.stderr] == [3, "/\\n", "why\\n"]
      error_message = "This is not it."
    }
  }
}
"""


def test_local_command_fails_with_what_the_command_says_or_lets_it_fail(
    terraform: Terraform, tmp_path: Path
) -> None:
    initialized(terraform, tmp_path, COMMAND)
    failed = errors(terraform.run("plan", "-json", cwd=tmp_path, check=False))
    assert failed.keys() == {"ephemeral.local_command.refused", "ephemeral.local_command.unknown"}
    refused = failed["ephemeral.local_command.refused"]
    assert refused["summary"] == "Command Execution Failed"
    for part in "an argument", "why\n", "exit status 3":
        assert part in refused["detail"]
    assert failed["ephemeral.local_command.unknown"]["summary"] == "Command Lookup Failed"


def initialized(terraform: Terraform, folder: Path, configuration: str) -> Path:
    (folder / "main.tf").write_text(configuration, encoding="utf-8")
    terraform.run("init", cwd=folder)
    return folder


def ask_for(folder: Path, cases: dict[str, dict[str, Any]]) -> None:
    (folder / "terraform.tfvars.json").write_text(json.dumps({"cases": cases}), encoding="utf-8")


def access(vault: Vault) -> dict[str, str]:
    return {"VAULT_ADDR": vault.address, "VAULT_TOKEN": vault.root_token}


def events(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    """What `-json` said."""
    return [json.loads(line) for line in done.stdout.splitlines()]


def errors(done: subprocess.CompletedProcess[str]) -> Errors:
    found = [event["diagnostic"] for event in events(done) if event["@level"] == "error"]
    return {each.get("address", ""): each for each in found}


def stored(folder: Path) -> list[bytes]:
    """The content of each file that Terraform wrote there, archives opened."""
    contents = []
    for file in folder.iterdir():
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                contents += [archive.read(name) for name in archive.namelist()]
        elif file.is_file():
            contents.append(file.read_bytes())
    return contents
