"""The Dockerfile, really built, and the CronJob's pod in the image: as nobody, on a file system that cannot be written."""

import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.cli import World
from support.docker import engine as docker_engine
from support.images import python_rootfs
from support.pods import FOLDER, cluster
from support.runners import IDENTITIES, stored

pytestmark = pytest.mark.container


@pytest.fixture
def docker() -> Iterator[Any]:
    """The client of an engine; skips where none answers."""
    engine = docker_engine("the Dockerfile")
    yield engine.client
    engine.client.close()


@pytest.fixture
def image(docker: Any, wheelhouse: Path, ours: Path, tmp_path: Path) -> Iterator[str]:
    """Built from the Dockerfile as it stands, but for a base that no registry has to give."""
    name = f"klearstack-vault-{secrets.token_hex(6)}"
    rootfs, path = python_rootfs(wheelhouse)
    context = tmp_path / "context"
    context.mkdir()
    for file in (FOLDER / "Dockerfile", ours):
        shutil.copy(file, context)
    docker.api.import_image_from_data(rootfs, repository=name, tag="base", changes=f"ENV PATH={path}:/bin")
    try:
        built, _ = docker.images.build(
            path=str(context), buildargs={"BASE": f"{name}:base"}, tag=f"{name}:built", rm=True, forcerm=True
        )
        yield f"{name}:built"
        docker.images.remove(built.id, force=True)
    finally:
        docker.images.remove(f"{name}:base", force=True)


def run(docker: Any, image: str, *arguments: str, **how: Any) -> str:
    """What a container says, restricted as the pods are. Raises ContainerError if it fails."""
    restricted = {"read_only": True, "cap_drop": ["ALL"], "security_opt": ["no-new-privileges"]}
    said: bytes = docker.containers.run(image, list(arguments), remove=True, stderr=True, **restricted, **how)
    return said.decode()


def test_the_image_is_nobody_and_the_pod_syncs_in_it(
    docker: Any, image: str, own: World, machine: Mapping[str, str], tmp_path: Path
) -> None:
    assert run(docker, image, "--version").startswith("klearstack-vault")
    ask = "import os; print(os.getuid(), os.access('/', os.W_OK))"
    assert run(docker, image, "-c", ask, entrypoint="python") == "65532 False\n"
    spec = yaml.safe_load((FOLDER / "cronjob.yaml").read_text(encoding="utf-8"))["spec"]
    with cluster(own, machine, tmp_path) as applied:
        pod = applied.pod(spec["jobTemplate"]["spec"]["template"])
        volumes = {
            str(folder): {"bind": path, "mode": "rw" if path == "/tmp" else "ro"}
            for path, folder in pod.mounts.items()
        }
        said = run(
            docker, image, *pod.arguments, environment=pod.environ, volumes=volumes, network_mode="host"
        )
    assert (stored(own), own.endpoint.mints) == (IDENTITIES, 6), said
