"""Terraform, prepared once per run."""

import shutil
from collections.abc import Iterator

import pytest
from support import notes
from support.once import made_once
from support.terraform import Terraform, prepare, prepared


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
