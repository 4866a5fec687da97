"""The pods of the Job and the CronJob as processes, with a real OpenBao that its administrator's script prepared."""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import yaml
from support.cli import World
from support.pods import FOLDER, Cluster, cluster
from support.runners import IDENTITIES, shell, stored


@pytest.fixture
def applied(own: World, machine: Mapping[str, str], tmp_path: Path) -> Iterator[Cluster]:
    with cluster(own, machine, tmp_path) as made:
        yield made


def test_the_pods_of_the_job_mint_each_token_once_and_leave_none_out(
    own: World, machine: Mapping[str, str], applied: Cluster
) -> None:
    applied.administer(own, machine)  # the script may be run again
    assert applied.run("job.yaml", machine) == [[0]] * 4, applied.said
    assert (stored(own), own.endpoint.mints) == (IDENTITIES, 6)
    assert len(applied.reviews) == 4


def test_the_job_ends_at_once_where_a_setting_is_wrong(
    own: World, machine: Mapping[str, str], applied: Cluster
) -> None:
    applied.config_maps["klearstack-settings"]["VAULT_ADDR"] = ""
    assert applied.run("job.yaml", machine) == [[78]] * 4, applied.said
    assert own.endpoint.requests == 0


def test_another_service_account_gets_nothing(
    own: World, machine: Mapping[str, str], applied: Cluster, tmp_path: Path
) -> None:
    template = yaml.safe_load((FOLDER / "job.yaml").read_text(encoding="utf-8"))["spec"]["template"]
    applied.accounts.add("default")
    template["spec"]["serviceAccountName"] = "default"
    pod = applied.pod(template)
    pod.environ["JOB_COMPLETION_INDEX"] = "0"
    code, said = pod.as_a_process(machine, tmp_path)
    assert code == 5, said
    assert "Vault rejected the kubernetes login" in said
    assert own.endpoint.requests == 0


def test_the_pod_of_the_cronjob_does_all_alone_and_nothing_twice(
    own: World, machine: Mapping[str, str], applied: Cluster, tmp_path: Path
) -> None:
    job = yaml.safe_load((FOLDER / "cronjob.yaml").read_text(encoding="utf-8"))["spec"]["jobTemplate"]["spec"]
    for _ in range(2):
        code, said = applied.pod(job["template"]).as_a_process(machine, tmp_path)
        assert code == 0, said
        assert (stored(own), own.endpoint.mints) == (IDENTITIES, 6)


def test_both_have_as_many_shards_as_pods_and_the_same_pod() -> None:
    job = yaml.safe_load((FOLDER / "job.yaml").read_text(encoding="utf-8"))["spec"]
    cronjob = yaml.safe_load((FOLDER / "cronjob.yaml").read_text(encoding="utf-8"))["spec"]["jobTemplate"][
        "spec"
    ]
    arguments = [one["template"]["spec"]["containers"][0].pop("args") for one in (job, cronjob)]
    assert arguments[0][1:3] == ["--shard", str(job["completions"])]
    assert "--shard" not in arguments[1]
    assert job["template"] == cronjob["template"]


def test_no_config_map_holds_an_identity(tmp_path: Path) -> None:
    made = Cluster(tmp_path)
    (manifest,) = made.secrets.values()
    assert "user_id: 26" in manifest["manifest.yaml"]
    told = [text for settings in made.config_maps.values() for text in settings.values()]
    assert [text for text in told if "user_id" in text] == []


def test_the_readmes_command_puts_the_pushed_image_into_both(tmp_path: Path) -> None:
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    (command,) = [line for line in readme.splitlines() if line.startswith("sed -i")]
    for name in ("job.yaml", "cronjob.yaml"):
        shutil.copy(FOLDER / name, tmp_path)
    pushed = f"registry.example.com/klearstack-vault@sha256:{'ab' * 32}"
    shell(["sh", "-euc", command], {"image": pushed}, tmp_path, check=True)
    images = [
        line.split()[1]
        for name in ("job.yaml", "cronjob.yaml")
        for line in (tmp_path / name).read_text().splitlines()
        if "image: " in line
    ]
    assert images == [pushed, pushed]
