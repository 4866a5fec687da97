"""`doctor` names the culprit: one set-up after another is broken, on real servers, and nothing is minted or written."""

import json
import re
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from support.cli import World, run
from support.diagnosis import Diagnosis
from support.ports import own_port
from support.tls import Doors, doors_of_openbao, pki, serving_https
from support.vault import Vault
from support.waiting import until

from vault_plugin.demo.embedded import binary, openbao, stop
from vault_plugin.doctor.verdicts import Level


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def doors(files: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    with doors_of_openbao(files, tmp_path_factory.mktemp("doors")) as doors:
        yield doors


class _Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<html>Welcome</html>")

    do_POST = do_GET  # noqa: N815  http.server's names

    def log_message(self, *_: object) -> None:
        pass


def test_where_all_is_well_it_says_so_and_changes_nothing(kv2: World) -> None:
    found = Diagnosis(kv2)
    assert found.of(Level.FAILED, Level.WARNING) == []
    assert found.skips() == ["endpoint TLS", "Vault TLS"]
    assert found.code == 0
    assert kv2.vault.admin.list(f"{kv2.mount}/metadata") is None
    lines = found.text.splitlines()
    for line in (
        f"ok           setting url: {kv2.endpoint.url} (KLEARSTACK_URL)",
        "ok           setting vault_token: (hidden) (VAULT_TOKEN)",
        "ok           setting path_prefix: klearstack (default)",
        "ok           Vault state: it is unsealed, and the active node.",
        f"ok           KV mount: KV v2 is mounted at {kv2.mount}.",
        f"ok           capabilities on {kv2.mount}/metadata/klearstack/COMPANY/USER/refresh: create, update.",
        "ok           stored access token: none, and the path can be read.",
    ):
        assert line in lines, line
    assert "Acme" not in found.text


def test_the_command_prints_a_line_or_an_object_for_each_verdict(kv2: World) -> None:
    text, broken = run("doctor", environ=kv2.environ), kv2.environ | {"VAULT_TOKEN": "s.unknown"}
    assert (text.returncode, text.stderr) == (0, "")
    assert "\nok           KV mount: " in text.stdout
    done = run("doctor", "--format", "json", environ=broken)
    found = json.loads(done.stdout)
    assert (done.returncode, found["exit_code"], done.stderr) == (77, 77, "")
    (login,) = [verdict for verdict in found["verdicts"] if verdict["check"] == "Vault login"]
    assert login["verdict"] == "failed"
    assert login["code"] == "vault_refused"
    assert "Vault does not know the Vault token" in login["remedy"]


def test_tls(doors: Doors, files: dict[str, str], kv2: World, tmp_path: Path) -> None:
    """Wrong CA, expired certificate, and the chain where both are right."""
    tls = {"VAULT_ADDR": doors["tls"], "VAULT_TOKEN": doors.root_token, "KLEARSTACK_VAULT_MOUNT": "secret"}
    well = Diagnosis(kv2, **tls, VAULT_CACERT=files["ca"])
    assert well.of(Level.FAILED, Level.WARNING) == []
    assert "ok           Vault TLS: the certificate of 127.0.0.1 verifies by " in well.text
    wrong = Diagnosis(kv2, **tls, VAULT_CACERT=files["other"])
    wrong.names("Vault TLS", "its TLS certificate does not verify", "Name its CA's PEM file with ", 78)
    assert wrong.skips()[-2:] == ["clock of Vault", "Vault login and KV mount"]
    long_ago = datetime.now(UTC) - timedelta(days=30)
    expired = pki(tmp_path, dates=(long_ago, long_ago + timedelta(days=1)))
    soon = datetime.now(UTC) + timedelta(days=5)
    (tmp_path / "soon").mkdir()
    ending = pki(tmp_path / "soon", dates=(long_ago, soon))
    with serving_https(expired, _Page) as old, serving_https(ending, _Page) as page:
        found = Diagnosis(kv2, KLEARSTACK_URL=old, KLEARSTACK_CACERT=expired["ca"])
        found.names(
            "endpoint TLS", "(it has expired)", "Check this host's clock and the certificate's dates.", 78
        )
        found = Diagnosis(kv2, KLEARSTACK_URL=page, KLEARSTACK_CACERT=ending["ca"])
        assert (found.of(Level.FAILED)[0].check, found.code) == ("endpoint response", 76)
        assert "is not JSON" in found.text
        found = Diagnosis(kv2, VAULT_ADDR=page, VAULT_CACERT=ending["ca"])
        found.names("Vault server", "is not Vault (status 200, an HTML page)", "Vault's own address", 78)
        (warned,) = found.of(Level.WARNING)
        assert warned.check == "Vault TLS"
        assert f"to expire is that of 127.0.0.1, at {soon:%Y-%m-%d}" in warned.text


class _Guarded(BaseHTTPRequestHandler):
    """A proxy that requires a login."""

    def do_CONNECT(self) -> None:
        self.send_error(407)

    def log_message(self, *_: object) -> None:
        pass


def test_proxies(doors: Doors, files: dict[str, str], kv2: World) -> None:
    """Dead proxy, and one that wants a login, which is never shown."""
    tls = {"VAULT_ADDR": doors["tls"], "VAULT_CACERT": files["ca"], "VAULT_TOKEN": doors.root_token}
    dead = f"127.0.0.1:{own_port()}"
    found = Diagnosis(kv2, **tls, VAULT_PROXY_ADDR=f"http://{dead}")
    found.names("Vault proxy", f"the proxy http://{dead} refused the connection", "Check --vault-proxy", 69)
    assert "Vault name" in found.skips()
    with ThreadingHTTPServer(("127.0.0.1", 0), _Guarded) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        proxy = f"127.0.0.1:{server.server_address[1]}"
        found = Diagnosis(kv2, **tls, VAULT_PROXY_ADDR=f"http://me:hidden-word@{proxy}")
        server.shutdown()
    said = f"the proxy http://{proxy} requires a login, or rejects the one given (status 407)"
    found.names("Vault proxy", said, "Put user and password into its URL", 78)
    assert f"setting vault_proxy: http://{proxy} (VAULT_PROXY_ADDR)" in found.text
    assert "hidden-word" not in found.text
    through = Diagnosis(kv2, HTTPS_PROXY=f"http://{dead}", KLEARSTACK_URL="https://api.example")
    through.names("endpoint proxy", f"the proxy http://{dead} refused the connection", "Check --proxy", 69)
    assert f"setting vault_proxy: http://{dead} (HTTPS_PROXY)" in through.text


def test_servers_that_cannot_be_reached(kv2: World) -> None:
    """Endpoint down, endpoint over http, not a Vault, unix socket absent, a name that does not resolve."""
    port = own_port()
    Diagnosis(kv2, KLEARSTACK_URL=f"http://127.0.0.1:{port}").names(
        "endpoint connection", "cannot be reached: connection refused", "Check --url", 69
    )
    http = Diagnosis(kv2, KLEARSTACK_URL="http://api.example")
    http.names("settings", "uses plain http to a remote host", "use https", 78)
    assert "endpoint" in http.skips()
    plain = kv2.endpoint.url.replace("http:", "https:")
    Diagnosis(kv2, KLEARSTACK_URL=plain).names(
        "endpoint connection", "it speaks plain HTTP, use http://", "Check --url", 78
    )
    Diagnosis(kv2, VAULT_ADDR=kv2.endpoint.url).names(
        "Vault server", "the server there is not Vault (status 404", "Check that --vault-addr", 78
    )
    Diagnosis(kv2, VAULT_ADDR=f"unix://{kv2.home}/none.sock").names(
        "Vault connection", "failed: there is no socket at that path", "Check --vault-addr", 69
    )
    Diagnosis(kv2, VAULT_ADDR="http://no-such-host.invalid").names(
        "Vault name", "its name does not resolve", "Check --vault-addr", 69
    )


def test_a_node_that_is_down_is_a_warning_where_another_one_responds(kv2: World) -> None:
    dead = f"http://127.0.0.1:{own_port()}"
    found = Diagnosis(kv2, VAULT_ADDR=f"{dead},{kv2.vault.address}")
    found.warns(f"Vault {dead} connection", "connection refused")
    same = kv2.vault.address.replace("127.0.0.1", "localhost")
    both = Diagnosis(kv2, VAULT_ADDR=f"{kv2.vault.address},{same}")
    assert both.of(Level.FAILED, Level.WARNING) == []
    assert f"ok           Vault {same} name: localhost resolves to " in both.text


def test_a_sealed_vault(kv2: World) -> None:
    with openbao() as server:
        vault = Vault(server.address, server.root_token)
        vault.admin.sys.seal()
        vault.close()
        found = Diagnosis(kv2, VAULT_ADDR=server.address, VAULT_TOKEN=server.root_token)
        found.names("Vault state", "failed: it is sealed.", "Unseal Vault.", 69)


def test_the_endpoints_responses(kv2: World) -> None:
    for fault, code, said in (
        ("404", 77, "rejected the request (status 404)"),
        ("502", 69, "responded with status 502"),
        ("redirect", 77, "a redirect (status 302)"),
    ):
        kv2.endpoint.fault = fault
        Diagnosis(kv2).names("endpoint response", said, "Check", code)
    kv2.endpoint.fault = "500"
    Diagnosis(kv2).warns("endpoint response", "responds with status 500 to a request without an identity")
    kv2.endpoint.fault = "400"
    assert "without an identity (status 400; no token was requested)" in Diagnosis(kv2).text


def test_the_mount(kv2: World) -> None:
    """Missing mount, v1 where v2 was meant, a mount that keeps tokens or deletes them early."""
    Diagnosis(kv2, KLEARSTACK_VAULT_MOUNT="missing").names(
        "KV mount", "No KV secrets engine is mounted at missing", "`vault secrets list` shows the mounts.", 78
    )
    old = {"KLEARSTACK_VAULT_MOUNT": kv2.vault.mount("v1")}
    Diagnosis(kv2, **old).warns("KV mount", "Vault does not delete tokens when they expire")
    meant = Diagnosis(kv2, **old, KLEARSTACK_VAULT_KV_VERSION="2")
    meant.names("KV mount", "is not version 2", "`vault secrets list -detailed` shows the version", 78)
    for limit, said in (("-1s", "Vault keeps tokens after"), ("1h", "Vault deletes tokens after that time")):
        limited = kv2.vault.mount("v2", delete_version_after=limit)
        Diagnosis(kv2, KLEARSTACK_VAULT_MOUNT=limited).warns("KV configuration", said)


DEFAULT = """
path "auth/token/lookup-self" { capabilities = ["read"] }
path "sys/capabilities-self" { capabilities = ["update"] }
"""


def test_policies(kv2: World) -> None:
    """Denied metadata, denied data, a reader's policy, and one that hides what it allows."""
    data, metadata = f'path "{kv2.mount}/data/*"', f'path "{kv2.mount}/metadata/*"'
    writes = f'{metadata} {{ capabilities = ["create", "update"] }}'

    def under(policy: str, **environ: str | None) -> Diagnosis:
        return Diagnosis(kv2, VAULT_TOKEN=kv2.vault.policy_token(policy), **environ)

    found = under(f'{DEFAULT} {data} {{ capabilities = ["read", "update"] }}', KLEARSTACK_USER_ID=None)
    place = f"capabilities on {kv2.mount}/metadata/klearstack/*"
    found.names(place, "lacks create and update on", "`klearstack-vault policy syncer`", 77)
    assert found.skips()[-1] == "stored tokens"
    found = under(f"{DEFAULT} {writes}")
    assert found.code == 77
    assert [verdict.check for verdict in found.of(Level.FAILED)] == [
        *(
            f"capabilities on {kv2.mount}/data/klearstack/COMPANY/USER/{kind}"
            for kind in ("access", "refresh")
        ),
        *(f"stored {kind} token" for kind in ("access", "refresh")),
    ]
    reader = under(f'{DEFAULT} {data} {{ capabilities = ["read"] }}')
    assert reader.code == 0
    assert len(reader.of(Level.WARNING)) == 4
    assert "Stored tokens can be read; new ones cannot be stored." in reader.text
    hidden = under(f'{data} {{ capabilities = ["read"] }}')
    assert hidden.of(Level.FAILED, Level.WARNING) == []
    assert hidden.skips()[2:] == ["Vault login", "KV configuration", "capabilities"]
    denied = under(f'{metadata} {{ capabilities = ["create"] }}')
    assert [verdict.check for verdict in denied.of(Level.FAILED)] == [
        "stored access token",
        "stored refresh token",
    ]


def test_vault_tokens(kv2: World) -> None:
    """Expired or unknown, valid for a short time, an AppRole's."""
    said, hint = "Vault denied the lookup of the Vault token", "Vault does not know the Vault token"
    ended = kv2.vault.admin.auth.token.create(ttl="1h")["auth"]["client_token"]
    kv2.vault.admin.auth.token.revoke(ended)  # as Vault does with one that expires
    for unknown in (ended, "s.unknown"):
        Diagnosis(kv2, VAULT_TOKEN=unknown).names("Vault login", said, hint, 77)
    short = kv2.vault.admin.auth.token.create(ttl="30s")["auth"]["client_token"]
    found = Diagnosis(kv2, VAULT_TOKEN=short)
    found.warns("Vault login", "the Vault token is valid for another ")
    role_id, secret_id, accessors = kv2.vault.approle(f'path "{kv2.mount}/*" {{ capabilities = ["read"] }}')
    login_by = {"KLEARSTACK_VAULT_AUTH": "approle", "VAULT_ROLE_ID": role_id}
    before = accessors()
    found = Diagnosis(kv2, **login_by, VAULT_SECRET_ID=secret_id)
    assert "Vault login: by approle; policies: default, " in found.text
    assert accessors() <= before
    found = Diagnosis(kv2, **login_by, VAULT_SECRET_ID="wrong")
    assert "Vault rejected the approle login at approle: " in found.of(Level.FAILED)[0].text
    missing = Diagnosis(kv2, **login_by)
    missing.names("settings", "VAULT_SECRET_ID or BAO_SECRET_ID is missing", "See ", 78)
    assert missing.skips()[-1] == "Vault login and KV mount"


def test_a_rate_limit_quota(kv2: World) -> None:
    quota = f"sys/quotas/rate-limit/{kv2.mount}"
    kv2.vault.admin.write_data(quota, data={"path": f"{kv2.mount}/", "rate": 0.1, "interval": "60s"})
    try:
        found = Diagnosis(kv2, KLEARSTACK_TIMEOUT="2")
    finally:
        kv2.vault.admin.delete(quota)
    assert found.code == 75
    assert "its rate limit quota is exceeded (status 429)" in found.of(Level.FAILED)[0].text


def test_a_skewed_clock(kv2: World) -> None:
    kv2.endpoint.ahead = 3600
    found = Diagnosis(kv2)
    first, second = found.of(Level.WARNING)
    assert first.check == "clock of the endpoint"
    assert re.search(r"it is 3(599|60\d) s ahead of this host's\.", first.text)
    assert second.check == "clocks of both servers"
    assert re.search(r"Vault's is 3(599|60\d) s behind the endpoint's\.", second.text)
    assert found.code == 0


def test_the_lock_folder(kv2: World) -> None:
    (kv2.home / "file").touch()
    found = Diagnosis(kv2, KLEARSTACK_LOCK_DIR=str(kv2.home / "file"))
    found.names("lock folder", "No lock file can be created in", "KLEARSTACK_LOCK_DIR", 73)


def test_namespaces(kv2: World) -> None:
    """A wrong namespace, a wrong auth namespace, and a login in another namespace than that of the KV mount."""
    missing = Diagnosis(kv2, VAULT_NAMESPACE="nowhere")
    missing.names("Vault login", "Vault has no namespace of the given name.", "Check --vault-namespace", 78)
    other = Diagnosis(kv2, VAULT_NAMESPACE="nowhere", KLEARSTACK_VAULT_AUTH_NAMESPACE="root")
    other.names("KV mount", "Vault has no namespace of the given name.", "Check --vault-namespace", 78)
    role_id, secret_id, _ = kv2.vault.approle(DEFAULT)
    approle = {"KLEARSTACK_VAULT_AUTH": "approle", "VAULT_ROLE_ID": role_id, "VAULT_SECRET_ID": secret_id}
    wrong = Diagnosis(kv2, **approle, KLEARSTACK_VAULT_AUTH_NAMESPACE="nowhere")
    assert wrong.code == 77
    assert [one.check for one in wrong.of(Level.FAILED)] == ["Vault login"]
    assert "Vault rejected the approle login at approle: there is no such namespace. " in wrong.text
    assert "Check --auth-namespace (KLEARSTACK_VAULT_AUTH_NAMESPACE)" in wrong.text
    namespace = kv2.vault.namespace()
    apart = {"VAULT_NAMESPACE": namespace, "KLEARSTACK_VAULT_MOUNT": "kv"}
    policy = run("policy", "syncer", "--auth-namespace", "root", environ=kv2.environ | apart).stdout
    token = kv2.vault.policy_token(DEFAULT + policy)
    found = Diagnosis(kv2, **apart, VAULT_TOKEN=token, KLEARSTACK_VAULT_AUTH_NAMESPACE="root")
    assert found.of(Level.FAILED, Level.WARNING) == []
    assert "ok           Vault login: by token; policies: policy-" in found.text
    assert "ok           capabilities on kv/metadata/klearstack/COMPANY/USER/access: create" in found.text


def test_a_wrapping_token_is_recognized_and_not_used_up(kv2: World) -> None:
    wrapped = kv2.vault.admin.auth.token.create(ttl="1h", wrap_ttl="60s")["wrap_info"]["token"]
    for _ in range(2):
        found = Diagnosis(kv2, VAULT_TOKEN=wrapped)
        said = "A wrapping token is given as the Vault token."
        found.names("Vault login", said, "`vault unwrap -field=token`", 77)
    assert kv2.vault.admin.sys.unwrap(wrapped)["auth"]["client_token"]


def test_an_agent_without_auto_auth(kv2: World) -> None:
    port = own_port()
    config = kv2.home / "proxy.hcl"
    config.write_text(
        f'vault {{ address = "{kv2.vault.address}" }}\napi_proxy {{}}\n'
        f'listener "tcp" {{\n  address = "127.0.0.1:{port}"\n  tls_disable = true\n}}\n'
    )
    process = subprocess.Popen(
        [binary(), "proxy", f"-config={config}"],
        env={"HOME": str(kv2.home)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: accepts(port))
        agent = {"VAULT_ADDR": f"http://127.0.0.1:{port}", "KLEARSTACK_VAULT_AUTH": "none"}
        found = Diagnosis(kv2, **agent, VAULT_TOKEN=None)
    finally:
        stop(process)
    found.names("Vault login", "Vault denied the lookup", "its auto-auth works", 77)


def accepts(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


def test_the_write_test_writes_the_same_path_which_vault_deletes(world: World) -> None:
    for _ in range(2):
        found = Diagnosis(world, True)
        (test,) = [verdict for verdict in found.verdicts if verdict.check == "write test"]
        expires = world.vault.is_v2(world.mount)
        assert (test.level, found.code) == (Level.OK if expires else Level.WARNING, 0)
        assert f"{world.mount}/klearstack/klearstack-vault-doctor was written and read" in test.text
    assert set(world.vault.read(world.mount, "klearstack/klearstack-vault-doctor") or {}) == {"written-by"}
    world.vault.write(world.mount, "klearstack/klearstack-vault-doctor", {"another": "secret"})
    place = f"{world.mount}/klearstack/klearstack-vault-doctor"
    Diagnosis(world, True).names("write test", f"{place} holds a secret", "Choose another path", 78)
    assert world.vault.read(world.mount, "klearstack/klearstack-vault-doctor") == {"another": "secret"}


def test_it_ends_by_the_deadline(kv2: World) -> None:
    kv2.endpoint.latency = 30
    found = Diagnosis(kv2, KLEARSTACK_DEADLINE="1")
    (culprit,) = found.of(Level.FAILED)
    assert culprit.check == "endpoint response"
    assert found.skips()[1:3] == [f"Vault {kv2.vault.address}", "clock of Vault"]
