"""The pipeline's jobs, run with a real OpenBao that its administrator's script prepared."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.cli import World
from support.leaks import leaked, watched_processes
from support.runners import IDENTITIES, VAULT_SETUP, GitLab, Job, shell, stored

EXAMPLES = Path(__file__).parents[2] / "examples"
PIPELINE = EXAMPLES / "ci/gitlab-ci.yml"
UPLOAD = "#!/bin/sh\nenv >upload.env\n"


@dataclass
class Project:
    """A project with the pipeline in it."""

    world: World
    gitlab: GitLab
    machine: Mapping[str, str]
    folder: Path

    def run(self, name: str, **how: Any) -> list[Job]:
        variables = {
            "KLEARSTACK_COMPANY_NAME": "Acme",
            "KLEARSTACK_URL": self.world.endpoint.url,
            "KLEARSTACK_USER_ID": "26",
            "VAULT_ADDR": self.world.vault.address,
        }
        return self.gitlab.run(PIPELINE, name, {**self.machine, **variables}, self.folder, **how)


@pytest.fixture
def project(own: World, machine: Mapping[str, str], ours: Path, tmp_path: Path) -> Iterator[Project]:
    gitlab, folder = GitLab(), tmp_path / "project"
    folder.mkdir()
    (folder / ours.name).symlink_to(ours)
    (folder / "klearstack.yaml").write_text((EXAMPLES / "manifest.yaml").read_text())
    (folder / "upload.sh").write_text(UPLOAD)
    (folder / "upload.sh").chmod(0o755)
    with gitlab.serving(tmp_path):
        administrator = {
            "VAULT_ADDR": own.vault.address,
            "VAULT_TOKEN": own.vault.root_token,
            "GITLAB_PROJECT_ID": "7",
            "ISSUER": gitlab.url,
            "ISSUER_CA": str(gitlab.ca_file),
        }
        shell([str(VAULT_SETUP)], {**machine, **administrator}, tmp_path, check=True)
        yield Project(own, gitlab, machine, folder)


def test_the_parallel_job_mints_each_token_once_and_leaves_none_out(project: Project) -> None:
    with watched_processes() as seen:
        copies = project.run("sync")
    assert [copy.code for copy in copies] == [0] * 4, copies
    assert (stored(project.world), project.world.endpoint.mints) == (IDENTITIES, 6)
    told = "".join(copy.log for copy in copies) + b"\n".join(seen).decode(errors="replace")
    assert len(project.gitlab.issued) == 4
    assert [jwt for jwt in project.gitlab.issued if jwt in told] == []
    assert leaked(project.world, project.world.endpoint, told) == []


def test_what_failed_is_tried_again_and_what_is_done_is_not_minted_twice(project: Project) -> None:
    endpoint = project.world.endpoint
    endpoint.fault = "401"

    def recover() -> None:
        endpoint.fault = ""

    copies = project.run("sync", between=recover)
    assert [copy.code for copy in copies] == [0] * 4, copies
    assert len(project.gitlab.issued) > 4  # some were tried again, with an ID token of their own
    assert (stored(project.world), endpoint.mints) == (IDENTITIES, 6)


def test_a_command_finds_the_token_and_no_login(project: Project) -> None:
    (job,) = project.run("upload")
    assert job.code == 0, job.log
    lines = (project.folder / "upload.env").read_text().splitlines()
    found = dict(line.partition("=")[::2] for line in lines)
    assert found["KLEARSTACK_ACCESS_TOKEN"] == project.world.endpoint.issued[1]
    assert found.keys().isdisjoint({"VAULT_JWT", "KLEARSTACK_USER_ID"})
    assert leaked(project.world, project.world.endpoint, job.log) == []


@pytest.mark.parametrize("claims", [{"ref_protected": "false"}, {"project_id": "8"}], ids=str)
def test_another_ref_or_project_gets_nothing(project: Project, claims: dict[str, str]) -> None:
    project.gitlab.claims |= claims
    assert [job.code for job in project.run("upload")] == [77]
    assert project.world.endpoint.requests == 0


def test_no_job_leaves_an_artifact() -> None:
    jobs = yaml.safe_load(PIPELINE.read_text())
    assert [name for name, job in jobs.items() if "artifacts" in job] == []
