"""The workflow's steps, run with a real OpenBao that its administrator's script prepared."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support.cli import World
from support.leaks import leaked, watched_processes
from support.runners import VAULT_SETUP, GitHub, Job, shell

EXAMPLES = Path(__file__).parents[2] / "examples"
WORKFLOW = EXAMPLES / "ci/github-actions.yml"
UPLOAD = "#!/bin/sh\nenv >upload.env\n"


@dataclass
class Repository:
    """A repository with the workflow in it, and what its jobs left."""

    world: World
    github: GitHub
    machine: Mapping[str, str]
    folder: Path
    done: dict[str, Job] = field(default_factory=dict)

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

    def run(self, name: str, *needs: str) -> Job:
        variables = {
            "KLEARSTACK_COMPANY_NAME": "Acme",
            "KLEARSTACK_URL": self.world.endpoint.url,
            "KLEARSTACK_USER_ID": "26",
            "VAULT_ADDR": self.world.vault.address,
        }
        needed = {other: self.done[other] for other in needs}
        job = self.github.run(WORKFLOW, name, self.machine, self.folder, variables, needed)
        self.done[name] = job
        return job


@pytest.fixture
def repository(own: World, machine: Mapping[str, str], ours: Path, tmp_path: Path) -> Iterator[Repository]:
    github, folder = GitHub(), tmp_path / "repository"
    folder.mkdir()
    (folder / ours.name).symlink_to(ours)
    (folder / "klearstack.yaml").write_text((EXAMPLES / "manifest.yaml").read_text())
    (folder / "upload.sh").write_text(UPLOAD)
    (folder / "upload.sh").chmod(0o755)
    with github.serving(tmp_path):
        made = Repository(own, github, machine, folder)
        made.administer()
        yield made


def test_a_token_is_masked_and_handed_on_by_where_it_lies(repository: Repository) -> None:
    repository.administer()  # the script may be run again
    with watched_processes() as seen:
        token = repository.run("token")
        assert token.code == 0, token.log
        upload = repository.run("upload", "token")
    assert (upload.code, repository.world.endpoint.mints) == (0, 1)
    assert token.outputs == {"handle": "secret/klearstack/Acme/26/access#1"}
    found = dict(
        line.partition("=")[::2] for line in (repository.folder / "upload.env").read_text().splitlines()
    )
    assert found["HANDLE"] == token.outputs["handle"]
    assert found["KLEARSTACK_ACCESS_TOKEN"] == repository.world.endpoint.issued[1]
    assert found.keys().isdisjoint({"VAULT_JWT_FILE", "KLEARSTACK_USER_ID"})
    secrets = [*repository.github.issued, repository.github.request_token]
    told = token.log + upload.log + b"\n".join(seen).decode(errors="replace")
    assert len(secrets) == 3
    assert [
        jwt for jwt in repository.github.issued if f"::add-mask::{jwt}\n" not in token.said + upload.said
    ] == []
    assert [secret for secret in secrets if secret in told] == []
    assert leaked(repository.world, repository.world.endpoint, told) == []


def test_the_file_with_the_id_token_is_its_users_alone(repository: Repository) -> None:
    assert repository.run("token").code == 0
    (file,) = repository.folder.parent.glob("runner-token/vault-jwt")
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("claims", [{"ref_protected": "false"}, {"repository_id": "124"}], ids=str)
def test_another_ref_or_repository_gets_nothing(repository: Repository, claims: dict[str, str]) -> None:
    repository.github.claims |= claims
    assert [repository.run(name).code for name in ("token", "sync")] == [77, 5]
    assert repository.world.endpoint.requests == 0


def test_without_an_id_token_the_job_ends_before_it_asks_anybody(repository: Repository) -> None:
    repository.github.grants = False
    job = repository.run("token")
    assert (job.code != 0, "klearstack-vault:" in job.log) == (True, False)


def test_the_manifest_is_minted_once_and_read_from_then_on(repository: Repository) -> None:
    for _ in range(2):
        job = repository.run("sync")
        assert job.code == 0, job.log
        assert repository.world.endpoint.mints == 6
    assert leaked(repository.world, repository.world.endpoint, job.log) == []
