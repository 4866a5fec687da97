"""The credential helpers as their callers start them, git and kubectl among these; and `get` as a step of a CI job."""

import base64
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import ClassVar

import pytest
from support.cli import COMMAND, World, run
from support.devices import device
from support.fakes import ACME
from support.fakes import token as made_token
from support.leaks import leaked, watched_processes
from support.tls import pki, serving_https

from vault_plugin.timing.clock import parse_rfc3339
from vault_plugin.tokens.jwt import Kind
from vault_plugin.vault.record import to_data

SCRIPTS = Path(sys.executable).parent
BAZEL, GIT = "klearstack-vault-credential-helper", "git-credential-klearstack-vault"
HOSTS = {"KLEARSTACK_HELPER_HOSTS": "cache.example git.example:8443"}
QUERY = "protocol=https\nhost=git.example:8443\n\n"
EXEC_INFO = '{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1beta1","spec":{}}'
KUBERNETES = ("--any-cluster", "exec-credential")


def script(
    world: World, name: str, *arguments: str, stdin: str = "", **environ: str
) -> subprocess.CompletedProcess[str]:
    """A console script as it was installed."""
    return subprocess.run(
        [SCRIPTS / name, *arguments],
        env=world.environ | HOSTS | environ,
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def exp(jwt: str) -> int:
    payload = jwt.split(".")[1]
    return int(json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["exp"])


def test_bazel_gets_its_header_from_a_path_without_arguments_of_ours(kv2: World) -> None:
    done = script(kv2, BAZEL, "get", stdin='{"uri": "https://cache.example/ac/1"}')
    assert (done.returncode, done.stderr) == (0, "")
    answer = json.loads(done.stdout)
    token = kv2.endpoint.issued[1]
    assert answer == {"headers": {"Authorization": [f"Bearer {token}"]}, "expires": answer["expires"]}
    assert exp(token) - 32 <= (parse_rfc3339(answer["expires"]) or 0) <= exp(token) - 30
    assert script(kv2, BAZEL, "get", stdin='{"uri": "https://cache.example/ac/2"}').stdout == done.stdout


@pytest.mark.parametrize(
    ("arguments", "stdin", "code"),
    [
        ((), "", 64),
        (("put",), "{}", 64),
        (("get", "more"), "{}", 64),
        (("get",), "", 76),
        (("get",), '{"uri": "https://evil.example"}', 76),
        (("get",), '{"uri": "http://cache.example"}', 76),
        (("get",), '{"uri": "' + "x" * 2**20, 76),
    ],
)
def test_what_bazel_must_not_ask_fails_in_one_line(
    kv2: World, arguments: tuple[str, ...], stdin: str, code: int
) -> None:
    done = script(kv2, BAZEL, *arguments, stdin=stdin)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1)
    assert kv2.endpoint.requests == 0


def git(world: World, operation: str, query: str, **config: str) -> subprocess.CompletedProcess[str]:
    """`git credential` with our helper in its configuration."""
    settings = {"credential.helper": "klearstack-vault", "safe.directory": "*"} | config
    environ = {"GIT_CONFIG_COUNT": str(len(settings)), "GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_NOSYSTEM": "1"}
    for number, (name, value) in enumerate(settings.items()):
        environ |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
    return subprocess.run(
        ["git", "credential", operation],
        env=world.environ | HOSTS | environ | {"PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}"},
        input=query,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=world.home,
    )


def test_git_itself_fills_in_the_token_as_it_can(kv2: World) -> None:
    done = git(kv2, "fill", f"capability[]=authtype\n{QUERY}")
    assert (done.returncode, done.stderr) == (0, "")
    told = dict(one.split("=", 1) for one in done.stdout.splitlines())
    token = kv2.endpoint.issued[1]
    assert (told["protocol"], told["host"]) == ("https", "git.example:8443")
    if "credential" in told:  # from 2.46
        assert (told["authtype"], told["credential"], told["ephemeral"]) == ("Bearer", token, "1")
    else:
        assert (told["username"], told["password"]) == ("oauth2", token)
    assert int(told.get("password_expiry_utc", exp(token) - 31)) in range(exp(token) - 32, exp(token) - 29)


def test_git_without_the_capability_gets_a_password(kv2: World) -> None:
    told = git(kv2, "fill", QUERY).stdout
    assert f"username=oauth2\npassword={kv2.endpoint.issued[1]}\n" in told


def test_git_asks_on_for_another_host(kv2: World) -> None:
    done = git(kv2, "fill", "protocol=https\nhost=github.example\n\n")
    assert (done.returncode, done.stdout, kv2.endpoint.requests) == (128, "", 0)  # nobody else knows either
    assert "klearstack" not in done.stderr


def test_hosts_may_stand_in_gits_configuration(kv2: World) -> None:
    helper = {"credential.helper": "klearstack-vault --host other.example"}
    done = git(kv2, "fill", "protocol=https\nhost=other.example\n\n", **helper)
    assert f"password={kv2.endpoint.issued[1]}\n" in done.stdout


@pytest.mark.parametrize("operation", ["approve", "reject"])
def test_git_may_store_and_erase_as_it_likes(kv2: World, operation: str) -> None:
    done = git(kv2, operation, f"{QUERY.rstrip()}\nusername=u\npassword=p\n\n")
    assert (done.returncode, done.stdout, done.stderr, kv2.endpoint.requests) == (0, "", "", 0)


@pytest.mark.parametrize("capable", [True, False], ids=["authtype", "password"])
def test_what_git_itself_rejects_is_minted_again_at_most_once_a_minute(kv2: World, capable: bool) -> None:
    query = f"capability[]=authtype\n{QUERY}" if capable else QUERY
    tokens = []
    for _ in range(3):
        filled = git(kv2, "fill", query).stdout
        tokens.append(next(part for part in kv2.endpoint.issued if part in filled))
        done = git(kv2, "reject", f"{filled}\n")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert kv2.endpoint.mints == 2
    assert (tokens[0] != tokens[1], tokens[1] == tokens[2]) == (True, True)


@pytest.mark.parametrize("operation", ["store", "erase", "capability", "something-new"])
def test_what_needs_no_token_needs_no_setting_either(kv2: World, operation: str) -> None:
    done = script(kv2, GIT, operation, stdin=QUERY, VAULT_ADDR="", KLEARSTACK_URL="")
    said = "version 0\ncapability authtype\n" if operation == "capability" else ""
    assert (done.returncode, done.stdout, done.stderr) == (0, said, "")


def test_a_git_that_can_gets_a_bearer_token(kv2: World) -> None:
    done = script(kv2, GIT, "get", stdin=f"capability[]=authtype\ncapability[]=state\n{QUERY}")
    assert (done.returncode, done.stderr) == (0, "")
    token = kv2.endpoint.issued[1]
    start = f"capability[]=authtype\nauthtype=Bearer\ncredential={token}\nephemeral=1\npassword_expiry_utc="
    assert done.stdout.startswith(start)


@pytest.mark.parametrize("asked", ["", EXEC_INFO])
def test_kubernetes_gets_its_credential(kv2: World, asked: str) -> None:
    done = kv2.run("helper", *KUBERNETES, KUBERNETES_EXEC_INFO=asked)
    assert (done.returncode, done.stderr) == (0, "")
    answer = json.loads(done.stdout)
    assert answer["apiVersion"] == f"client.authentication.k8s.io/v1{'beta1' if asked else ''}"
    assert answer["status"]["token"] == kv2.endpoint.issued[1]


def test_kubernetes_is_refused_in_one_line(kv2: World) -> None:
    for arguments, asked, code in (((), "{}", 76), (("get",), "", 64)):
        done = kv2.run("helper", "exec-credential", *arguments, KUBERNETES_EXEC_INFO=asked)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1)


ASKING = [
    (KUBERNETES, ""),
    (("bazel", "get"), '{"uri": "https://cache.example"}'),
    (("git", "get"), QUERY),
]


@pytest.mark.parametrize(("arguments", "stdin"), ASKING)
@pytest.mark.parametrize("fault", ["401", "503", "not-json", "documented"])
def test_a_failure_is_one_line_without_a_secret(
    kv2: World, arguments: tuple[str, ...], stdin: str, fault: str
) -> None:
    kv2.endpoint.fault = fault
    done = run("helper", "--deadline", "1", *arguments, environ=kv2.environ | HOSTS, stdin=stdin)
    assert (done.returncode in {65, 69, 75, 76, 77}, done.stdout, done.stderr.count("\n")) == (True, "", 1)
    assert leaked(kv2, kv2.endpoint, done.stderr) == []


def test_a_stale_token_is_handed_over_in_silence(kv2: World) -> None:
    kv2.store()
    kv2.endpoint.fault = "503"
    now, path = int(time.time()), ACME.path("klearstack", Kind.ACCESS)
    # Past half of its life, so that a new one is wanted.
    stored = made_token(at=now - 100, exp=now + 90, by=kv2.endpoint.url)
    token = stored.value.reveal()
    kv2.vault.set_life(kv2.mount, path, "88s")
    kv2.vault.write(kv2.mount, path, to_data(stored, ACME, "7.8.9"))
    done = kv2.run("helper", *KUBERNETES, KLEARSTACK_MIN_TTL="1h")
    assert (done.returncode, done.stderr) == (0, "")
    status = json.loads(done.stdout)["status"]
    assert status["token"] == token
    assert time.time() - 2 < (parse_rfc3339(status["expirationTimestamp"]) or 0) <= exp(token)


def test_no_helper_reads_an_identity_from_the_standard_input_of_its_caller(kv2: World) -> None:
    for arguments, stdin in ASKING:
        done = run("helper", *arguments, "--user-id", "-", environ=kv2.environ | HOSTS, stdin=stdin)
        assert (done.returncode, done.stdout) == (64, "")


def test_no_process_list_shows_a_token(kv2: World) -> None:
    with watched_processes() as lines:
        for arguments, stdin in ASKING:
            assert run("helper", *arguments, environ=kv2.environ | HOSTS, stdin=stdin).returncode == 0
        git(kv2, "fill", QUERY)
    listed = b"\n".join(lines).decode(errors="replace")
    assert "helper" in listed
    assert leaked(kv2, kv2.endpoint, listed) == []


# `get` in CI


def test_a_job_of_github_masks_first_and_hands_on_where_the_token_lies(world: World, tmp_path: Path) -> None:
    output = tmp_path / "output"
    done = world.run("get", "--format", "github", "--token", "both", GITHUB_OUTPUT=str(output))
    assert (done.returncode, done.stderr) == (0, "")
    refresh, access = world.endpoint.issued
    assert done.stdout.splitlines() == [
        f"::add-mask::{part}"
        for token in (access, refresh)
        for part in (token, token.rpartition(".")[0], token.rpartition(".")[2])
    ]
    handles = re.findall(r"^(\w*handle)<<(ghadelimiter_\w+)\n(.*)\n\2$", output.read_text(), re.MULTILINE)
    version = "#1" if world.vault.is_v2(world.mount) else ""
    assert [(name, text) for name, _, text in handles] == [
        ("handle", f"{world.mount}/klearstack/Acme/26/access{version}"),
        ("refresh_handle", f"{world.mount}/klearstack/Acme/26/refresh{version}"),
    ]
    assert leaked(world, world.endpoint, output.read_text()) == []


def test_a_mask_is_out_before_the_handle_is_there(kv2: World, tmp_path: Path) -> None:
    with device(tmp_path, "full").open("w") as full:
        done = subprocess.run(
            [*COMMAND, "get", "--format", "github"],
            env=kv2.environ | {"GITHUB_OUTPUT": str(tmp_path / "output")},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, (tmp_path / "output").exists()) == (74, False)


def test_outside_of_github_nothing_is_asked_and_nothing_minted(kv2: World) -> None:
    done = kv2.run("get", "--format", "github")
    assert (done.returncode, done.stdout, kv2.endpoint.requests) == (78, "", 0)


def test_github_never_gets_the_handle_of_a_token_that_is_not_in_vault(kv2: World, tmp_path: Path) -> None:
    more = {"GITHUB_OUTPUT": str(tmp_path / "output"), "VAULT_ADDR": "http://127.0.0.1:9"}
    done = kv2.run("get", "--format", "github", "--on-vault-error", "bypass", **more)
    assert (done.returncode, done.stdout, kv2.endpoint.requests) == (69, "", 0)
    assert not (tmp_path / "output").exists()


def test_gitlab_gets_no_artifact_with_a_token(kv2: World, tmp_path: Path) -> None:
    file = tmp_path / "build.env"
    done = kv2.run("get", "--format", "env", "--output", str(file), GITLAB_CI="true")
    assert (done.returncode, done.stdout, file.exists()) == (64, "", False)
    assert "klearstack-vault exec" in done.stderr
    with file.open("w") as stdout:
        command = [*COMMAND, "get", "--format", "env"]
        redirected = subprocess.run(
            command, env=kv2.environ | {"GITLAB_CI": "true"}, stdout=stdout, check=False, stderr=-3
        )
    assert (redirected.returncode, file.read_text(), kv2.endpoint.requests) == (64, "", 0)
    assert kv2.run("get", "--format", "env", GITLAB_CI="true").returncode == 0  # into a pipe, as for `eval`


class ApiServer(http.server.BaseHTTPRequestHandler):
    """As much of a Kubernetes API as `kubectl get --raw /version` asks for."""

    seen: ClassVar[list[str | None]] = []

    def do_GET(self) -> None:
        self.seen.append(self.headers["Authorization"])
        body = b'{"major": "1", "minor": "33"}'
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def kubectl(world: World, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["kubectl", *arguments],
        env=world.environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def ask(world: World, version: str, server: str, ca: str, host: str) -> subprocess.CompletedProcess[str]:
    """`kubectl get --raw /version` with a kubeconfig that runs our helper for that host."""
    plugin = {
        "apiVersion": f"client.authentication.k8s.io/{version}",
        "command": str(SCRIPTS / "klearstack-vault"),
        "args": ["helper", f"--host={host}", "exec-credential"],
        "interactiveMode": "Never",
        "provideClusterInfo": True,
    }
    kubeconfig = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "it", "cluster": {"server": server, "certificate-authority": ca}}],
        "users": [{"name": "it", "user": {"exec": plugin}}],
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
        "current-context": "it",
    }
    file = world.home / "kubeconfig"
    file.write_text(json.dumps(kubeconfig))  # JSON is YAML
    return kubectl(world, f"--kubeconfig={file}", "get", "--raw", "/version")


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="there is no `kubectl` on PATH")
def test_kubectl_itself_sends_the_token_to_a_named_host_and_to_no_other(kv2: World, tmp_path: Path) -> None:
    about = json.loads(kubectl(kv2, "version", "--client", "--output=json").stdout)["clientVersion"]
    knows_v1 = int(re.match(r"[0-9]+", about["minor"])[0]) >= 22  # type: ignore[index]
    files = pki(tmp_path)
    ApiServer.seen.clear()
    with serving_https(files, ApiServer) as url:
        host = url.removeprefix("https://")
        for version in ("v1beta1", "v1") if knows_v1 else ("v1beta1",):
            refused = ask(kv2, version, url, files["ca"], "other.example")
            done = ask(kv2, version, url, files["ca"], host)
            assert (refused.returncode != 0, done.stdout) == (True, '{"major": "1", "minor": "33"}'), (
                done.stderr
            )
    assert set(ApiServer.seen) == {f"Bearer {kv2.endpoint.issued[1]}"}  # never without it
    assert kv2.endpoint.mints == 1
