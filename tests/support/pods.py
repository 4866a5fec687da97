"""Just enough of Kubernetes to run a Job's pods: their volumes, their environment, an index each, another try or none."""

import itertools
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from support.cli import World
from support.oidc import Platform
from support.runners import shell

FOLDER = Path(__file__).parents[2] / "examples/kubernetes"
NAMESPACE = "klearstack"


@dataclass
class Pod:
    """What the kubelet starts: the only container's arguments and variables, and the folders it mounts where."""

    arguments: list[str]
    environ: dict[str, str]
    mounts: dict[str, Path]

    def as_a_process(self, environ: Mapping[str, str], cwd: Path) -> tuple[int, str]:
        """Its exit code, and all that it wrote. For want of mounts, it is told where its folders really are."""

        def here(text: str) -> str:
            for path, folder in self.mounts.items():
                if text.startswith(f"{path}/"):
                    return f"{folder}{text.removeprefix(path)}"
            return text

        known = {name: here(text) for name, text in self.environ.items()} | {
            "TMPDIR": str(self.mounts["/tmp"])
        }
        command = ["klearstack-vault", *map(here, self.arguments)]
        return shell(command, {**environ, **known}, cwd)


class Cluster(Platform):
    """A cluster that the examples were applied to."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self._numbers = itertools.count(1)
        self.said: list[str] = []  # by pods that ran
        documents = list(yaml.safe_load_all((FOLDER / "config.yaml").read_text(encoding="utf-8")))
        self.config_maps = {
            one["metadata"]["name"]: one["data"] for one in documents if one["kind"] == "ConfigMap"
        }
        self.secrets = {
            one["metadata"]["name"]: one["stringData"] for one in documents if one["kind"] == "Secret"
        }
        self.accounts = {one["metadata"]["name"] for one in documents if one["kind"] == "ServiceAccount"}

    def administer(self, world: World, machine: Mapping[str, str]) -> None:
        """Let its service account log in to Vault."""
        reviewer = self._folder / "reviewer-jwt"
        reviewer.write_text(self.issue_to_pod("vault", "reviewer"))
        administrator = {
            "KUBERNETES_CA": str(self.ca_file),
            "KUBERNETES_HOST": self.url,
            "NAMESPACE": NAMESPACE,
            "REVIEWER_JWT": str(reviewer),
            "VAULT_ADDR": world.vault.address,
            "VAULT_TOKEN": world.vault.root_token,
        }
        shell([str(FOLDER / "vault-setup.sh")], {**machine, **administrator}, self._folder, check=True)

    def pod(self, template: dict[str, Any]) -> Pod:
        """One made from a Job's template."""
        spec = template["spec"]
        (container,) = spec["containers"]
        assert spec["serviceAccountName"] in self.accounts
        place = self._folder / f"pod-{next(self._numbers)}"  # pods start side by side
        environ: dict[str, str] = {}
        for source in container["envFrom"]:
            environ |= self.config_maps[source["configMapRef"]["name"]]
        folders = {
            volume["name"]: self._volume(place, volume, spec["serviceAccountName"])
            for volume in spec["volumes"]
        }
        mounts = {mount["mountPath"]: folders[mount["name"]] for mount in container["volumeMounts"]}
        return Pod(container["args"], environ, mounts)

    def _volume(self, place: Path, volume: dict[str, Any], account: str) -> Path:
        name: str = volume["name"]
        folder = place / name
        folder.mkdir(parents=True)
        files: dict[str, str] = {}
        if "secret" in volume:
            files = self.secrets[volume["secret"]["secretName"]]
        elif "projected" in volume:
            (source,) = volume["projected"]["sources"]
            asked = source["serviceAccountToken"]
            files = {asked["path"]: self.issue_to_pod(NAMESPACE, account, aud=[asked["audience"]])}
        else:
            assert "emptyDir" in volume
            folder.chmod(0o777)
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
        return folder

    def run(self, name: str, environ: Mapping[str, str]) -> list[list[int]]:
        """An Indexed Job, all its pods as processes at once; the exit codes of each index's tries."""
        job = yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))["spec"]
        assert job["completionMode"] == "Indexed"
        hopeless = job["podFailurePolicy"]["rules"][0]
        assert hopeless["action"] == "FailJob"

        def run_index(index: int) -> list[int]:
            codes: list[int] = []
            while len(codes) <= job["backoffLimitPerIndex"]:
                pod = self.pod(job["template"])
                pod.environ["JOB_COMPLETION_INDEX"] = str(index)
                code, said = pod.as_a_process(environ, self._folder)
                self.said.append(said)
                codes.append(code)
                if code == 0 or code in hopeless["onExitCodes"]["values"]:
                    break
            return codes

        with ThreadPoolExecutor(job["parallelism"]) as pool:
            return list(pool.map(run_index, range(job["completions"])))


@contextmanager
def cluster(world: World, machine: Mapping[str, str], folder: Path) -> Iterator[Cluster]:
    """A cluster whose service account that Vault lets in, as its administrator's script says."""
    made = Cluster(folder)
    with made.serving(folder):
        made.administer(world, machine)
        settings = made.config_maps["klearstack-settings"]
        settings |= {"KLEARSTACK_URL": world.endpoint.url, "VAULT_ADDR": world.vault.address}
        yield made
