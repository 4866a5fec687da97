"""What has a published schema keeps to it, by the tools that its own world checks it with. None needs the network.

Each is spoilt, too, and refused then: a checker that takes anything would be no check.
"""

import subprocess
import sys
import sysconfig
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from support.cli import kept

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPTS = Path(sysconfig.get_path("scripts"))
SCHEMA = [sys.executable, "-m", "check_jsonschema", "--builtin-schema"]
# What stands in the example, what would spoil it, and who says so.
CHECKS = {
    "ci/github-actions.yml": [
        ([*SCHEMA, "vendor.github-workflows"], "runs-on:", "runs-at:"),
        ([str(SCRIPTS / "zizmor"), "--offline", "--quiet"], "@08c6903cd8c0fde910a37f88322edcfb5dd907a8", "@v5"),
    ],
    "ci/gitlab-ci.yml": [
        ([*SCHEMA, "vendor.gitlab-ci", "--data-transform", "gitlab-ci"], "exit_codes:", "exits:"),
    ],
    "ansible/execution-environment.yml": [
        ([str(SCRIPTS / "ansible-builder"), "create", "-f"], "package_pip: ansible-core", "pip: ansible-core"),
    ],
}  # fmt: skip
MANIFESTS = {
    "kubernetes/config.yaml": ("automountServiceAccountToken", "automountToken"),
    "kubernetes/job.yaml": ("backoffLimitPerIndex", "backoffLimitPerindex"),
    "kubernetes/cronjob.yaml": ("concurrencyPolicy", "concurrency"),
}
KUBERNETES = ("1.33", kubernetes_validate.latest_version())  # the first in which all that they use is stable


def spoilt(name: str, good: str, bad: str, folder: Path) -> Path:
    text = (EXAMPLES / name).read_text(encoding="utf-8")
    assert good in text
    copy = folder / Path(name).name
    copy.write_text(text.replace(good, bad), encoding="utf-8")
    return copy


@pytest.mark.parametrize(
    ("name", "checker", "good", "bad"),
    [(name, *check) for name, checks in CHECKS.items() for check in checks],
    ids=lambda value: Path(value[0]).name if isinstance(value, list) else None,
)
def test_an_example_passes_its_checker_and_a_spoilt_one_does_not(
    name: str, checker: list[str], good: str, bad: str, tmp_path: Path
) -> None:
    codes = {}
    for path in (EXAMPLES / name, spoilt(name, good, bad, tmp_path)):
        codes[path] = subprocess.run(
            [*checker, str(path)],
            env=kept() | {"HOME": str(tmp_path)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
    fine, bad_one = codes.values()
    assert fine.returncode == 0, fine.stdout + fine.stderr
    assert bad_one.returncode != 0, bad_one.stdout


def validate(path: Path, version: str) -> None:
    for document in yaml.safe_load_all(path.read_text(encoding="utf-8")):
        kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_is_what_kubernetes_takes_and_a_spoilt_one_is_not(
    name: str, version: str, tmp_path: Path
) -> None:
    validate(EXAMPLES / name, version)
    with pytest.raises(kubernetes_validate.ValidationError):
        validate(spoilt(name, *MANIFESTS[name], tmp_path), version)
