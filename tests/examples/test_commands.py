"""Each command line of README, docs/ and the other pages runs, or says why no test runs it.

The blocks of a page run in their order, in one shell, with a real OpenBao and a simulated endpoint, on what each of
them leaves behind.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import pytest
from support.cli import World, kept
from support.oidc import Platform
from support.pages import PAGES, ROOT, blocks, policy, read
from support.ports import own_port

from vault_plugin.demo.embedded import binary

MODULES = {
    "klearstack-vault": "vault_plugin",
    "klearstack-vault-credential-helper": "vault_plugin.cli import bazel_helper",
    "git-credential-klearstack-vault": "vault_plugin.cli import git_helper",
}
# `watch` never ends by itself: it is told to when it has written its files.
COMMAND = """\
#!/bin/sh
if [ "$1" != watch ]; then exec "{python}" -m vault_plugin "$@"; fi
"{python}" -m vault_plugin "$@" &
until [ -e changed ]; do sleep 0.05; done
kill $! && wait $!
"""
UPLOAD = """\
#!/bin/sh -eu
case $* in '') test -n "$KLEARSTACK_ACCESS_TOKEN" ;; *) test -s "$2" ;; esac
"""
RUN = [page for page in PAGES if any(one.is_shell and not one.note for one in blocks(page))]


def test_each_block_of_the_shell_is_run_or_says_why_not() -> None:
    notes = [one.note for page in PAGES for one in blocks(page) if one.is_shell and one.note]
    reasons = [note for note in notes if re.fullmatch(r"not run: \w.{9,}", note)]
    elsewhere = [note.removeprefix("run by ") for note in notes if note.startswith("run by ")]
    assert sorted(notes) == sorted([*reasons, *(f"run by {one}" for one in elsewhere)])
    missing = []
    for one in elsewhere:
        file, _, name = one.partition("::")
        if f"\ndef {name}(" not in (ROOT / file).read_text(encoding="utf-8"):
            missing.append(one)
    assert missing == []


def test_most_pages_are_run() -> None:
    assert {"README.md", "docs/authentication.md", "docs/commands.md", "docs/storage.md"} <= set(RUN)


@contextmanager
def logins(world: World, folder: Path) -> Iterator[None]:
    """The mounts and roles of docs/authentication.md that need an issuer of JWTs, and a JWT for each."""
    platform = Platform()
    jwt = {"role_type": "jwt", "user_claim": "sub", "bound_audiences": ["vault"]}
    pod = {"bound_service_account_names": "runner", "bound_service_account_namespaces": "build"}
    with platform.serving(folder):
        keys = {"jwks_url": f"{platform.url}/jwks", "jwks_ca_pem": platform.ca}
        reviewer = {"token_reviewer_jwt": platform.issue_to_pod("vault", "reviewer")}
        cluster = {"kubernetes_host": platform.url, "kubernetes_ca_cert": platform.ca}
        (folder / "secrets/jwt").write_text(platform.issue())
        (folder / "secrets/pod-jwt").write_text(platform.issue_to_pod())
        with (
            world.vault.logins("jwt", "jwt", keys, jwt, "secret"),
            world.vault.logins(
                "kubernetes",
                "kubernetes",
                cluster | reviewer | {"disable_local_ca_jwt": True},
                pod | {"audience": "vault"},
                "secret",
            ),
        ):
            yield


def prepared(world: World, folder: Path) -> dict[str, str]:
    """A folder as the pages assume it, with the programs that they call; the environment of the shell."""
    programs = folder / "bin"
    for name in ("bin", "home", "secrets", "locks"):
        (folder / name).mkdir()
    for name, module in MODULES.items():
        text = COMMAND.format(python=sys.executable)
        if " " in module:
            function = module.rpartition(" ")[2]
            text = f'#!/bin/sh\nexec "{sys.executable}" -c "from {module}; {function}()" "$@"\n'
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    for name in ("vault", "bao"):
        (programs / name).symlink_to(binary())
    (programs / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (programs / "python").chmod(0o755)
    (folder / "upload.sh").write_text(UPLOAD)
    (folder / "upload.sh").chmod(0o755)
    shutil.copytree(ROOT / "examples", folder / "examples")
    for manifest in (folder / "examples").glob("manifest.*"):
        manifest.write_text(manifest.read_text().replace("/run/klearstack", f"{folder}/klearstack"))
    for part in ("docs", "tests/support", "tests/unit"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    world.vault.admin.sys.create_or_update_policy("klearstack", policy(read("docs/storage.md")))
    made = world.vault.admin.auth.token.create(policies=["klearstack"], no_default_policy=True, ttl="1h")
    (folder / "secrets/vault-token").write_text(made["auth"]["client_token"])
    (folder / "home/.vault-token").write_text(world.vault.root_token)
    return kept() | {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HOME": str(folder / "home"),
        "KLEARSTACK_LOCK_DIR": str(folder / "locks"),
        "KLEARSTACK_URL": world.endpoint.url,
        "KLEARSTACK_USER_ID": "26",
        "KLEARSTACK_COMPANY_NAME": "Acme",
        "VAULT_ADDR": world.vault.address,
    }


def with_our_servers(text: str, world: World, folder: Path) -> str:
    """The commands, with the servers and folders of this test for those of the pages."""
    theirs = {
        "https://api.example.com": world.endpoint.url,
        "https://vault.example.com:8200": world.vault.address,
        "/run/secrets": str(folder / "secrets"),
        '"$KLEARSTACK_URL/..."': '"$KLEARSTACK_URL/simulator/stats"',
        "server -dev ": "server -dev -dev-listen-address=127.0.0.1:8200 ",
    }
    for one, instead in theirs.items():
        text = text.replace(one, instead)
    ports = {port: str(own_port()) for port in ("8080", "8200", "9100") if port in text}
    return re.sub(r"\b(8080|8200|9100)\b", lambda port: ports[port[0]], text)


def run(script: str, environ: Mapping[str, str], folder: Path) -> tuple[int, str]:
    """The exit code of a shell, and all that it wrote; nothing that it started is left."""
    with subprocess.Popen(
        ["bash", "-euxo", "pipefail", "-c", script],
        cwd=folder,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as shell:
        try:
            shell.wait(60)
        finally:
            with suppress(ProcessLookupError):  # servers in its background
                os.killpg(shell.pid, signal.SIGKILL)
        assert shell.stdout is not None
        return shell.returncode, shell.stdout.read()


@pytest.mark.parametrize("page", RUN)
def test_the_commands_of_a_page_run(page: str, own: World, tmp_path: Path) -> None:
    environ = prepared(own, tmp_path)
    script = "".join(one.text for one in blocks(page) if one.is_shell and not one.note)
    script = with_our_servers(script, own, tmp_path)
    with logins(own, tmp_path) if page == "docs/authentication.md" else nullcontext():
        code, said = run(script, environ, tmp_path)
    assert code == 0, said


PYTHON = [(page, one.text) for page in PAGES for one in blocks(page) if one.language == "python"]


@pytest.mark.parametrize(("page", "text"), PYTHON, ids=[f"{page}-{n}" for n, (page, _) in enumerate(PYTHON)])
def test_the_python_of_a_page_runs(page: str, text: str, own: World, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", text],
        env=own.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    assert not any(token in done.stdout for token in own.endpoint.issued)
    assert own.endpoint.mints == 1
