"""Terraform, prepared once per run."""

import shutil

import pytest
from support import notes
from support.once import made_once
from support.terraform import Terraform, prepare, prepared


@pytest.fixture(scope="session")
def terraform(tmp_path_factory: pytest.TempPathFactory) -> Terraform:
    """The real `terraform`; skips where there is none on PATH."""
    binary = shutil.which("terraform")
    if binary is None:
        raise notes.skipped(
            "there is no `terraform` on PATH", "the Terraform module, the examples and the stand-ins"
        )
    folder = made_once(tmp_path_factory, "terraform", lambda folder: prepare(binary, folder))
    tool = prepared(binary, folder)
    providers = "the real providers" if tool.real else "stand-ins for the providers: no registry answers"
    notes.take(f"Terraform ran with {providers}.")
    return tool
