"""No example without a test that runs it or holds it to its schema."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
# Each file below examples/, and where it is run or checked.
PAGES = "examples/test_commands.py::test_each_block_of_the_shell_is_run_or_says_why_not"
PLAYS = "ansible/test_examples.py::test_the_examples_call_the_api_with_one_token_for_all_hosts_and_show_none"
MODULE = "terraform/test_modules.py::test_the_modules_own_tests_pass"
SCHEMA = "examples/test_schemas.py::test_an_example_passes_its_checker_and_a_spoilt_one_does_not"
MANIFESTS = "examples/test_manifests.py::test_the_three_forms_name_the_same_identities"
PODS = "examples/test_kubernetes.py::test_the_pods_of_the_job_mint_each_token_once_and_leave_none_out"
WITH_VAULT = (
    "terraform/test_modules.py::test_with_vault_runs_with_four_variables_and_its_policy_from_plan_to_destroy"
)
TESTED = {
    "ansible/README.md": PAGES,
    "ansible/execution-environment.yml": SCHEMA,
    "ansible/group_vars/all.yml": PLAYS,
    "ansible/inventory.yml": PLAYS,
    "ansible/with-lookup.yml": PLAYS,
    "ansible/with-task.yml": PLAYS,
    "call-api.sh": "integration/test_examples.py::test_call_api",
    "ci/README.md": PAGES,
    "ci/github-actions.yml": "examples/test_github_actions.py::test_a_job_masks_its_token_before_its_program_runs_and_shows_no_id",
    "ci/gitlab-ci.yml": "examples/test_gitlab_ci.py::test_the_parallel_job_mints_each_token_once_and_leaves_none_out",
    "ci/vault-setup.sh": "examples/test_gitlab_ci.py::test_another_ref_or_project_gets_nothing",
    "kubernetes/Dockerfile": "examples/test_dockerfile.py::test_the_image_is_nobody_and_the_pod_syncs_in_it",
    "kubernetes/README.md": PAGES,
    "kubernetes/config.yaml": PODS,
    "kubernetes/cronjob.yaml": "examples/test_kubernetes.py::test_the_pod_of_the_cronjob_does_all_alone_and_nothing_twice",
    "kubernetes/job.yaml": PODS,
    "kubernetes/vault-setup.sh": PODS,
    "library.py": "integration/test_examples.py::test_library",
    "manifest-two-vaults.yaml": "examples/test_manifests.py::test_one_mint_lands_in_both_vaults",
    "manifest.csv": MANIFESTS,
    "manifest.jsonl": MANIFESTS,
    "manifest.yaml": MANIFESTS,
    "systemd/README.md": "examples/test_systemd.py::test_the_readmes_commands_let_nobody_else_read_ids_and_credentials",
    "systemd/klearstack-vault-watch.service": "examples/test_systemd.py::test_its_command_writes_the_files_notifies_reloads_and_ends",
    "systemd/vault-setup.sh": "examples/test_systemd.py::test_its_command_writes_the_files_notifies_reloads_and_ends",
    "terraform/README.md": "terraform/test_modules.py::test_the_readmes_ten_lines_work_as_pasted",
    "terraform/ephemeral-command/main.tf": "terraform/test_modules.py::test_ephemeral_command_calls_the_api_and_writes_tokens_into_a_trace_alone",
    "terraform/modules/klearstack-token/README.md": "terraform/test_modules.py::test_the_modules_readme_names_each_variable_and_output",
    "terraform/modules/klearstack-token/main.tf": MODULE,
    "terraform/modules/klearstack-token/outputs.tf": MODULE,
    "terraform/modules/klearstack-token/tests/module.tftest.hcl": MODULE,
    "terraform/modules/klearstack-token/variables.tf": MODULE,
    "terraform/modules/klearstack-token/versions.tf": MODULE,
    "terraform/with-vault/main.tf": WITH_VAULT,
    "terraform/with-vault/policy.hcl": WITH_VAULT,
}  # fmt: skip


def examples() -> set[str]:
    """The files that git knows below examples/; in a copy without git, all that are there."""
    listed = subprocess.run(
        ["git", "-C", str(EXAMPLES), "ls-files", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode == 0:
        return set(listed.stdout.splitlines())
    return {str(path.relative_to(EXAMPLES)) for path in EXAMPLES.rglob("*") if path.is_file()}


def test_each_example_has_a_test_and_each_test_is_there() -> None:
    assert examples() == TESTED.keys()
    missing = []
    for test in TESTED.values():
        file, _, name = test.partition("::")
        if f"\ndef {name}(" not in (ROOT / "tests" / file).read_text(encoding="utf-8"):
            missing.append(test)
    assert missing == []


def test_what_an_example_pins_it_pins_by_digest() -> None:
    pin = re.compile(r"(?:\buses: |\bimage: |\bARG BASE=|\bname: (?=\S+:\d))(\S+)")
    files = [name for name in TESTED if name.endswith((".yml", ".yaml", "Dockerfile"))]
    pins = [pin.findall((EXAMPLES / name).read_text(encoding="utf-8")) for name in files]
    found = [one for each in pins for one in each]
    assert len(found) == 7  # two actions; the images of GitLab, Docker and Ansible, two of Kubernetes
    assert [one for one in found if not re.search(r"@(sha256:[0-9a-f]{64}|[0-9a-f]{40})$", one)] == []
