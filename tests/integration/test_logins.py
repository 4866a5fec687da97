"""Logins by a JWT, as a CI server or a pod has one, at a real OpenBao that verifies it at a test issuer."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.cli import World, start
from support.fault_proxy import FaultProxy
from support.oidc import Platform
from support.runners import GitHub
from support.vault import Vault

from vault_plugin.demo.simulator import Simulator

JWT = {"KLEARSTACK_VAULT_AUTH": "jwt", "VAULT_TOKEN": None}
POD = {"KLEARSTACK_VAULT_AUTH": "kubernetes", "KLEARSTACK_VAULT_AUTH_ROLE": "ci", "VAULT_TOKEN": None}


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    platform = Platform()
    with platform.serving(tmp_path):
        yield platform


@contextmanager
def jwt_mount(world: World, platform: Platform, at: str = "jwt", **config: str) -> Iterator[None]:
    """The method `jwt`, which lets the pipelines of project 7 use the KV mount."""
    config |= {"jwks_url": f"{platform.url}/jwks", "jwks_ca_pem": platform.ca}
    bound = {"role_type": "jwt", "user_claim": "sub"}
    bound_to = {"bound_audiences": ["vault"], "bound_subject": "project:7"}
    with world.vault.logins("jwt", at, config, bound | bound_to, world.mount):
        yield


@contextmanager
def kubernetes_mount(world: World, platform: Platform) -> Iterator[str]:
    """The method `kubernetes`, which lets one service account use the KV mount; the JWT of its own."""
    reviewer = platform.issue_to_pod("vault", "reviewer")
    config = {"kubernetes_host": platform.url, "kubernetes_ca_cert": platform.ca}
    own = {"token_reviewer_jwt": reviewer, "disable_local_ca_jwt": True}
    bound = {"bound_service_account_names": "runner", "bound_service_account_namespaces": "build"}
    with world.vault.logins(
        "kubernetes", "kubernetes", config | own, bound | {"audience": "vault"}, world.mount
    ):
        yield reviewer


def assert_rejected(world: World, reason: str, jwt: str, *arguments: str, **environ: str | None) -> None:
    """`get` says why in one line and exits 77; it quotes nothing of the JWT."""
    done = world.run("get", *arguments, VAULT_JWT=jwt, **environ)
    said = f"klearstack-vault: Vault rejected the {environ['KLEARSTACK_VAULT_AUTH']} login at "
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (77, "", 1)
    assert done.stderr.startswith(said)
    assert f": {reason}. " in done.stderr
    assert [part for part in jwt.split(".") if part in done.stderr] == []
    assert world.endpoint.requests == 0


def test_a_jwt_logs_in_reads_writes_and_leaves_no_login_behind(kv2: World, platform: Platform) -> None:
    file = kv2.home / "jwt"
    file.write_text(platform.issue() + "\n")
    with jwt_mount(kv2, platform):
        before = kv2.vault.accessors()
        arguments = ("--auth-role", "ci")
        assert kv2.get(*arguments, **JWT, VAULT_JWT=platform.issue())["source"] == "endpoint"
        assert kv2.get(*arguments, **JWT, VAULT_JWT_FILE=str(file))["source"] == "vault"
        assert kv2.vault.accessors() <= before


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"aud": "github"}, "the role does not accept the audience of the JWT (aud)"),
        ({"sub": "project:8"}, "the role does not accept the subject of the JWT (sub)"),
        ({"exp": 1_000_000_000}, "the JWT has expired"),
    ],
    ids=str,
)
def test_a_jwt_for_another_audience_or_subject_or_time_is_rejected(
    kv2: World, platform: Platform, claims: dict[str, Any], reason: str
) -> None:
    with jwt_mount(kv2, platform):
        assert_rejected(kv2, reason, platform.issue(**claims), "--auth-role", "ci", **JWT)


def test_a_jwt_signed_by_another_key_is_rejected(kv2: World, platform: Platform) -> None:
    with jwt_mount(kv2, platform):
        reason = "no key of the auth method verifies the signature of the JWT"
        assert_rejected(kv2, reason, Platform().issue(), "--auth-role", "ci", **JWT)


def test_without_a_role_it_is_the_mounts_default_one(kv2: World, platform: Platform) -> None:
    with jwt_mount(kv2, platform, default_role="ci"):
        assert kv2.get(**JWT, VAULT_JWT=platform.issue())["source"] == "endpoint"


def test_a_mount_without_a_default_role_rejects_a_login_without_a_role(
    kv2: World, platform: Platform
) -> None:
    with jwt_mount(kv2, platform):
        reason = "no role is given, and the mount has no default role"
        assert_rejected(kv2, reason, platform.issue(), **JWT)


def test_a_login_at_a_missing_mount_is_rejected(kv2: World, platform: Platform) -> None:
    reason = "permission denied, without a reason"
    arguments = ("--auth-mount", "ci/github", "--auth-role", "ci")
    assert_rejected(kv2, reason, platform.issue(), *arguments, **JWT)


def test_a_mount_elsewhere_is_named_and_a_vault_token_in_the_environment_is_not_sent(
    kv2: World, platform: Platform
) -> None:
    arguments = ("--auth-mount", "ci/gitlab", "--auth-role", "ci")
    environ = JWT | {"VAULT_TOKEN": "hvs.stale", "VAULT_JWT": platform.issue()}
    with jwt_mount(kv2, platform, at="ci/gitlab"), FaultProxy(kv2.vault.address) as proxy:
        for source in ("endpoint", "vault"):
            assert kv2.get(*arguments, **environ, VAULT_ADDR=proxy.address)["source"] == source
    assert proxy.requests[0].startswith("POST /v1/auth/ci/gitlab/login ")
    assert b"stale" not in b"".join(proxy.heads)


def test_a_jwt_logs_in_to_a_namespace(bao: Vault, platform: Platform, tmp_path: Path) -> None:
    namespace = bao.namespace()
    inside = Vault(bao.address, bao.root_token, namespace=namespace)
    with Simulator() as endpoint:
        world = World(endpoint, inside, "kv", tmp_path)
        environ = JWT | {"VAULT_JWT": platform.issue(), "KLEARSTACK_VAULT_AUTH_ROLE": "ci"}
        with jwt_mount(world, platform):
            assert world.get(**environ, VAULT_NAMESPACE=namespace)["source"] == "endpoint"
    inside.close()


def is_login(line: str) -> bool:
    return "/login" in line


def test_a_jwt_login_is_sent_again_after_a_lost_response_and_nothing_of_it_is_logged(
    kv2: World, platform: Platform
) -> None:
    jwt = platform.issue()
    with jwt_mount(kv2, platform), FaultProxy(kv2.vault.address) as proxy:
        proxy.reset(is_login, when="after", times=1)
        done = kv2.run("get", "-vv", "--auth-role", "ci", **JWT, VAULT_JWT=jwt, VAULT_ADDR=proxy.address)
    assert (done.returncode, proxy.all_happened()) == (0, True)
    assert "Retrying with the lock of this identity" in done.stderr
    assert [part for part in jwt.split(".") if part in done.stderr] == []


def test_an_approle_login_is_not_sent_again_after_a_lost_response(kv2: World) -> None:
    environ = {"KLEARSTACK_VAULT_AUTH": "approle", "VAULT_ROLE_ID": "role", "VAULT_SECRET_ID": "once"}
    with FaultProxy(kv2.vault.address) as proxy:
        proxy.reset(is_login, when="after", times=1)
        assert kv2.run("get", **environ, VAULT_ADDR=proxy.address).returncode == 69
    assert len(proxy.requests) == 1


@pytest.mark.parametrize("body", [b"<html>", b"{}", b'{"auth": null}'])
def test_a_login_response_without_a_token_is_not_vaults(kv2: World, body: bytes) -> None:
    with FaultProxy(kv2.vault.address) as proxy:
        proxy.answer(is_login, 200, body=body, when="before", times=1)
        done = kv2.run("get", **JWT, VAULT_JWT="a.b.c", VAULT_ADDR=proxy.address)
    assert done.returncode == 78
    assert ("contains no token" if body[:1] == b"{" else "is not Vault") in done.stderr


def test_a_vault_that_is_down_is_unavailable_to_a_login_too(kv2: World) -> None:
    done = kv2.run("get", **POD, VAULT_JWT="a.b.c", VAULT_ADDR="http://127.0.0.1:9")
    assert (done.returncode, done.stdout) == (69, "")
    assert "connection refused" in done.stderr


@pytest.mark.usefixtures("measured")
def test_a_pod_logs_in_by_the_review_of_its_token_and_leaves_no_login_behind(
    kv2: World, platform: Platform
) -> None:
    jwt, file = platform.issue_to_pod(), kv2.home / "projected"
    file.write_text(jwt)
    with kubernetes_mount(kv2, platform) as reviewer:
        before = kv2.vault.accessors()
        assert kv2.get(**POD, VAULT_JWT=jwt)["source"] == "endpoint"
        assert kv2.get(**POD, VAULT_JWT_FILE=str(file))["source"] == "vault"
        assert kv2.vault.accessors() <= before
    assert platform.reviews == [(f"Bearer {reviewer}", {"token": jwt, "audiences": ["vault"]})] * 2


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"namespace": "prod"}, "the role does not accept the namespace or the service account of the pod"),
        ({"account": "default"}, "the role does not accept the namespace or the service account of the pod"),
        ({"aud": ["github"]}, "the role does not accept the audience of the JWT (aud)"),
    ],
    ids=str,
)
def test_another_service_account_is_rejected_before_any_review(
    kv2: World, platform: Platform, other: dict[str, Any], reason: str
) -> None:
    with kubernetes_mount(kv2, platform):
        assert_rejected(kv2, reason, platform.issue_to_pod(**other), **POD)
    assert platform.reviews == []


def test_a_deleted_pod_is_rejected_by_the_review(kv2: World, platform: Platform) -> None:
    jwt = platform.issue_to_pod()
    del platform.issued[jwt]
    with kubernetes_mount(kv2, platform):
        assert_rejected(kv2, "permission denied, without a reason", jwt, **POD)
    assert len(platform.reviews) == 1


@pytest.mark.parametrize("before", ["", " \n", None], ids=["empty", "blank", "missing"])
def test_a_credential_file_that_another_program_is_rewriting_at_the_start_is_read_again(
    kv2: World, before: str | None
) -> None:
    file = kv2.home / "token"
    if before is not None:
        file.write_text(before)
    environ = kv2.environ | {"VAULT_TOKEN_FILE": str(file)}
    environ.pop("VAULT_TOKEN")
    command = start("get", environ=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    time.sleep(1)  # by then it has looked, or will find the file as it is from now on
    file.write_text(kv2.vault.root_token)
    out, err = command.communicate(timeout=60)
    assert (command.returncode, err) == (0, "")
    assert out.strip() == kv2.endpoint.issued[1]


@pytest.mark.parametrize("content", ["", None], ids=["empty", "missing"])
def test_a_credential_file_that_stays_empty_or_missing_is_named(kv2: World, content: str | None) -> None:
    file = kv2.home / "token"
    if content is not None:
        file.write_text(content)
    done = kv2.run("get", "--deadline", "2", VAULT_TOKEN=None, VAULT_TOKEN_FILE=str(file))
    assert (done.returncode, done.stdout, kv2.endpoint.requests) == (78, "", 0)
    assert "VAULT_TOKEN" in done.stderr
    assert "VAULT_TOKEN_FILE" in done.stderr


def test_an_empty_device_is_not_read_again(kv2: World) -> None:
    began = time.monotonic()
    done = kv2.run("get", "--deadline", "60", VAULT_TOKEN=None, VAULT_TOKEN_FILE=os.devnull)
    assert (done.returncode, kv2.endpoint.requests) == (78, 0)
    assert time.monotonic() - began < 30  # no half of the deadline was waited


@pytest.fixture
def github(tmp_path: Path) -> Iterator[GitHub]:
    github = GitHub()
    github.claims = {"sub": "project:7"}
    with github.serving(tmp_path):
        yield github


def of_job(github: GitHub) -> dict[str, str | None]:
    """The environment of a job that may request an ID token and has no other credential."""
    return {**JWT, **github.requests, "SSL_CERT_FILE": str(github.ca_file)}


@pytest.mark.usefixtures("measured")
def test_a_job_of_github_actions_logs_in_with_an_id_token_that_it_requests(
    kv2: World, github: GitHub
) -> None:
    arguments = ("--auth-role", "ci", "--auth-audience", "vault")
    github.faults = ["reset", "empty", "blank"]
    with jwt_mount(kv2, github):
        before = kv2.vault.accessors()
        done = kv2.run("get", "-vv", *arguments, **of_job(github))
        assert (done.returncode, github.faults) == (0, []), done.stderr
        assert kv2.get(*arguments, **of_job(github))["source"] == "vault"
        assert kv2.vault.accessors() <= before
    hidden = [github.request_token, *(part for jwt in github.issued for part in jwt.split("."))]
    assert [secret for secret in hidden if secret in done.stderr] == []


def test_a_job_requests_its_id_token_for_githubs_default_audience_unless_one_is_given(
    kv2: World, github: GitHub
) -> None:
    with jwt_mount(kv2, github):
        done = kv2.run("get", "--auth-role", "ci", **of_job(github))
    assert (done.returncode, "the role does not accept the audience" in done.stderr) == (77, True)
    assert [claims["aud"] for claims in github.issued.values()] == ["https://github.com/acme"]


def test_a_job_that_gets_no_id_token_says_so(kv2: World, github: GitHub) -> None:
    github.grants = False
    done = kv2.run("get", **of_job(github))
    assert (done.returncode, done.stderr.count("\n"), kv2.endpoint.requests) == (77, 1, 0)
    host = github.url.removeprefix("https://")
    assert f"could not be requested from GitHub Actions at {host}: status 404. Check" in done.stderr
    github.grants, github.faults = True, ["blank"] * 99
    done = kv2.run("get", "--deadline", "4", **of_job(github))
    assert (done.returncode, "contains no ID token. Try again later." in done.stderr) == (69, True)
    foreign = kv2.run("get", **of_job(github) | {"SSL_CERT_FILE": None})
    assert (foreign.returncode, "Check that this host trusts" in foreign.stderr) == (78, True), foreign.stderr
