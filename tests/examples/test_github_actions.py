"""The workflow's steps, run with a real OpenBao that its administrator's script prepared."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from support.cli import World
from support.leaks import leaked, watched_processes
from support.runners import VAULT_SETUP, GitHub, Job, shell

EXAMPLES = Path(__file__).parents[2] / "examples"
WORKFLOW = EXAMPLES / "ci/github-actions.yml"
IDS = {"KLEARSTACK_COMPANY_NAME": "Acme Corporation", "KLEARSTACK_USER_ID": "user-4711"}
# It shows the token, whole and in its parts, as programs do that log too much.
UPLOAD = """#!/bin/sh
env >upload.env
echo "token: $KLEARSTACK_ACCESS_TOKEN"
echo "payload: ${KLEARSTACK_ACCESS_TOKEN%.*}"
"""


@dataclass
class Repository:
    """A repository with the workflow in it."""

    world: World
    github: GitHub
    machine: Mapping[str, str]
    folder: Path

    def administer(self) -> None:
        """Let its jobs log in to Vault."""
        administrator = {
            "VAULT_ADDR": self.world.vault.address,
            "VAULT_TOKEN": self.world.vault.root_token,
            "GITHUB_REPOSITORY_ID": "123",
            "ISSUER": self.github.url,
            "ISSUER_CA": str(self.github.ca_file),
        }
        shell([str(VAULT_SETUP)], {**self.machine, **administrator}, self.folder.parent, check=True)

    def run(self, name: str) -> Job:
        variables = {"KLEARSTACK_URL": self.world.endpoint.url, "VAULT_ADDR": self.world.vault.address}
        hidden = {**IDS, "KLEARSTACK_MANIFEST": (EXAMPLES / "manifest.yaml").read_text(encoding="utf-8")}
        return self.github.run(WORKFLOW, name, self.machine, self.folder, variables, hidden)


@pytest.fixture
def repository(own: World, machine: Mapping[str, str], ours: Path, tmp_path: Path) -> Iterator[Repository]:
    github, folder = GitHub(), tmp_path / "repository"
    folder.mkdir()
    (folder / ours.name).symlink_to(ours)
    (folder / "upload.sh").write_text(UPLOAD)
    (folder / "upload.sh").chmod(0o755)
    with github.serving(tmp_path):
        made = Repository(own, github, machine, folder)
        made.administer()
        yield made


def test_a_job_masks_its_token_before_its_program_runs_and_shows_no_id(repository: Repository) -> None:
    repository.administer()  # the script may be run again
    with watched_processes() as seen:
        upload = repository.run("upload")
    assert (upload.code, repository.world.endpoint.mints) == (0, 1), upload.log
    token = repository.world.endpoint.issued[1]
    found = dict(
        line.partition("=")[::2] for line in (repository.folder / "upload.env").read_text().splitlines()
    )
    assert found["KLEARSTACK_ACCESS_TOKEN"] == token
    assert found.keys().isdisjoint({"ACTIONS_ID_TOKEN_REQUEST_TOKEN", *IDS})
    assert "token: ***\n" in upload.log
    assert "payload: ***\n" in upload.log
    assert "KLEARSTACK_USER_ID: ***\n" in upload.log  # what GitHub writes before the step
    (jwt,) = repository.github.issued
    told = upload.log + b"\n".join(seen).decode(errors="replace")
    hidden = [jwt, repository.github.request_token, token.rpartition(".")[0], *IDS.values()]
    assert [secret for secret in hidden if secret in told] == []
    assert leaked(repository.world, repository.world.endpoint, told) == []


def test_only_the_steps_that_need_them_have_the_ids_and_no_job_passes_a_handle_on() -> None:
    workflow = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))
    assert workflow["env"].keys().isdisjoint(IDS)
    having: dict[str, int] = {}
    for name, job in workflow["jobs"].items():
        assert job.keys().isdisjoint({"env", "outputs", "needs"})
        for step in job["steps"]:
            names = [text for text in step.get("env", {}).values() if "secrets." in text]
            having |= {f"{name}: {step['name']}": len(names)} if names else {}
    assert having == {"sync: Sync": 1, "upload: Upload": 2}


def test_an_id_token_is_asked_for_again_after_a_reset_or_an_empty_answer(repository: Repository) -> None:
    repository.github.faults = ["reset", "empty", "blank"]
    job = repository.run("upload")
    assert (job.code, repository.github.faults) == (0, []), job.log


@pytest.mark.parametrize("claims", [{"ref_protected": "false"}, {"repository_id": "124"}], ids=str)
def test_another_ref_or_repository_gets_nothing(repository: Repository, claims: dict[str, str]) -> None:
    repository.github.claims |= claims
    assert [repository.run(name).code for name in ("upload", "sync")] == [77, 5]
    assert repository.world.endpoint.requests == 0


def test_without_an_id_token_the_job_ends_and_nothing_is_minted(repository: Repository) -> None:
    repository.github.grants = False
    job = repository.run("upload")
    assert (job.code, "could not be requested from GitHub Actions" in job.said) == (77, True)
    assert repository.world.endpoint.requests == 0


def test_the_manifest_is_minted_once_and_read_from_then_on(repository: Repository) -> None:
    for _ in range(2):
        job = repository.run("sync")
        assert job.code == 0, job.log
        assert repository.world.endpoint.mints == 6
    assert leaked(repository.world, repository.world.endpoint, job.log) == []
