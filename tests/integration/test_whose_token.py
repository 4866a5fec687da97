"""A token belongs to the identity that asked for it, and to the endpoint that it was asked of, in every face."""

import http.server
import json
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar
from urllib.parse import parse_qs

import pytest
from support.cli import World, run, start
from support.fakes import jwt
from support.fault_proxy import FaultProxy
from support.leaks import leaked

from vault_plugin.app import connect
from vault_plugin.demo.simulator import Simulator
from vault_plugin.errors import OtherEndpointError, UserMismatchError
from vault_plugin.settings import Settings
from vault_plugin.timing.clock import ServerClock
from vault_plugin.timing.deadline import Deadline
from vault_plugin.tokens.jwt import Kind
from vault_plugin.vault.transport import Transport

HOST = "cache.example.com"
FACES = {
    "get": (["get"], ""),
    "get, both": (["get", "--token", "both", "--format", "env"], ""),
    "get, JSON": (["get", "--format", "json"], ""),
    "exec": (["exec", "--", "env"], ""),
    "exec, file": (["exec", "--as-file", "--", "env"], ""),
    "Kubernetes": (["helper", "exec-credential"], ""),
    "Bazel": (["helper", "bazel", "get"], json.dumps({"uri": f"https://{HOST}/x"})),
    "git": (["helper", "git", "get"], f"protocol=https\nhost={HOST}\n\n"),
    "Terraform": (["terraform"], json.dumps({"user_id": "26", "company_name": "Acme"})),
    "Terraform, ephemeral": (
        ["terraform", "--with-tokens"],
        json.dumps({"user_id": "26", "company_name": "Acme"}),
    ),
}


@contextmanager
def serving(handler: type[http.server.BaseHTTPRequestHandler]) -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def ask(world: World, face: str, **environ: str) -> subprocess.CompletedProcess[str]:
    arguments, stdin = FACES[face]
    helpers = {"KLEARSTACK_HELPER_HOSTS": HOST, "KUBERNETES_EXEC_INFO": EXEC_INFO}
    return run(*arguments, environ=world.environ | helpers | environ, stdin=stdin)


EXEC_INFO = json.dumps(
    {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "spec": {"cluster": {"server": f"https://{HOST}"}, "interactive": False},
    }
)


def settings(world: World, **environ: str) -> Settings:
    return Settings.from_env(world.environ | environ)


def stored(world: World, kind: Kind = Kind.ACCESS) -> dict[str, str] | None:
    return world.vault.read(world.mount, f"klearstack/Acme/26/{kind}")


def manifest(world: World, *users: int) -> str:
    path = world.home / "manifest.yaml"
    rows = "".join(f'  - user_id: "{user}"\n    company_name: Acme\n' for user in users)
    path.write_text(f"identities:\n{rows}")
    return str(path)


# 1. Client state


class Sticky(http.server.BaseHTTPRequestHandler):
    """Mints for whoever asked first on the client's session, as an endpoint behind a login page does."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        known = re.search(r"sessionid=for-(\w+)", self.headers.get("Cookie", ""))
        user = known[1] if known else form["user_id"][0]
        dates = {"iat": int(time.time()), "exp": int(time.time()) + 900}
        pair = {f"{kind}_token": jwt(kind, jti=f"for-{user}", user_id=None, **dates) for kind in Kind}
        body = json.dumps(pair).encode()
        self.send_response(200)
        self.send_header("Set-Cookie", f"sessionid=for-{user}; Path=/")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def test_an_endpoint_that_sets_cookies_mints_for_each_identity_of_its_own(kv2: World) -> None:
    users = (1, 2, 3)
    with serving(Sticky) as url:
        done = kv2.run("sync", manifest(kv2, *users), "--concurrency", "1", KLEARSTACK_URL=url)
    assert done.returncode == 0
    for user in users:
        for kind in Kind:
            secret = kv2.vault.read(kv2.mount, f"klearstack/Acme/{user}/{kind}")
            assert secret is not None
            assert secret["jti"] == f"for-{user}"


def test_a_vault_that_sets_cookies_or_asks_for_a_login_gets_the_same_request_again() -> None:
    class Chatty(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        heads: ClassVar[list[dict[str, str]]] = []

        def do_GET(self) -> None:
            self.heads.append(dict(self.headers))
            self.send_response(200)
            self.send_header("Set-Cookie", "sessionid=for-1; Path=/")
            self.send_header("WWW-Authenticate", "Basic")
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            pass

    with serving(Chatty) as url:
        transport = Transport([url], ServerClock(), timeout=2)
        for _ in range(3):
            transport.request("GET", "/v1/secret/data/x", {"X-Vault-Token": "t"}, None, Deadline(5))
        transport.close()
    assert len(Chatty.heads) == 3
    assert all(head == Chatty.heads[0] for head in Chatty.heads)
    assert not {"cookie", "authorization", "referer"} & {name.lower() for name in Chatty.heads[0]}


# 2. Tokens that name another user


@pytest.mark.parametrize("face", FACES)
def test_a_token_that_names_another_user_is_refused(kv2: World, face: str) -> None:
    kv2.endpoint.fault = "another-user"
    done = ask(kv2, face)
    assert done.returncode == 65
    assert leaked(kv2, kv2.endpoint, done.stdout + done.stderr) == []
    said = json.loads(done.stdout)["error"] if done.stdout else None
    assert said is None or said["code"] == "user_mismatch"
    setting = r"(`on_user_mismatch` in the query )?\S*( ?\()?KLEARSTACK_ON_USER_MISMATCH\)?"
    assert re.search(f"set {setting} to warn", done.stderr)
    assert (stored(kv2), stored(kv2, Kind.REFRESH)) == (None, None)
    assert kv2.endpoint.mints == 1


@pytest.mark.parametrize("face", FACES)
def test_where_that_is_accepted_it_is_stored_and_served_with_a_warning(kv2: World, face: str) -> None:
    kv2.endpoint.fault = "another-user"
    for source in ("endpoint's", "stored"):
        done = ask(kv2, face, KLEARSTACK_ON_USER_MISMATCH="warn")
        assert done.returncode == 0
        warned = done.stderr.count(f"the {source} token names another user than the one asked for")
        assert warned == (face.startswith(("get", "exec")))  # the others' callers log what is said there
    assert stored(kv2) is not None
    assert kv2.endpoint.mints == 1


def test_in_bulk_it_is_refused_for_whom_it_concerns_and_stored_for_nobody(kv2: World) -> None:
    kv2.endpoint.fault, kv2.endpoint.fault_count = "another-user", 1
    report = kv2.home / "report.jsonl"
    arguments = [manifest(kv2, 26, 27), "--concurrency", "1", "--report", str(report)]
    done = kv2.run("sync", *arguments)
    assert done.returncode == 5
    rows = [json.loads(line) for line in report.read_text().splitlines()]
    assert [(row["result"], (row.get("error") or {}).get("code")) for row in rows] == [
        ("failed", "user_mismatch"),
        ("minted", None),
    ]
    assert (stored(kv2), stored(kv2, Kind.REFRESH)) == (None, None)


def test_watch_stores_and_writes_none_and_asks_once(kv2: World) -> None:
    kv2.endpoint.fault = "another-user"
    path = kv2.home / "manifest.yaml"
    path.write_text(f'identities:\n  - user_id: "26"\n    company_name: Acme\n    file: {kv2.home}/token\n')
    with start("watch", str(path), environ=kv2.environ, stderr=subprocess.PIPE) as process:
        try:
            assert process.stderr is not None
            assert "keeping the tokens of 1 identity\n" in process.stderr.readline()
            assert "--on-user-mismatch (KLEARSTACK_ON_USER_MISMATCH) to warn" in process.stderr.readline()
            time.sleep(1)  # an outage would have been tried again by then
            process.terminate()
            process.communicate(timeout=30)
        finally:
            process.kill()
    assert kv2.endpoint.mints == 1
    assert stored(kv2) is None
    assert not (kv2.home / "token").exists()


def test_python_raises_it_instead_of_returning_the_token_that_is_still_valid(kv2: World) -> None:
    first = kv2.store()
    kv2.endpoint.fault = "another-user"
    ours = settings(kv2, KLEARSTACK_MIN_TTL="1h")
    with connect(ours) as broker:
        assert broker.get(ours.identity()).access.token.value.reveal() == first
        with pytest.raises(UserMismatchError):
            broker.get(ours.identity(), renew=True)
        assert broker.get(ours.identity()).access.token.value.reveal() == first


def test_a_stored_token_that_names_another_user_is_replaced(world: World) -> None:
    world.endpoint.fault, world.endpoint.fault_count = "another-user", 1
    done = world.run("get", "--on-user-mismatch", "warn")
    assert done.returncode == 0
    answer = world.get("--token", "both")
    assert (answer["source"], world.endpoint.mints) == ("endpoint", 2)
    assert answer["access_token"] != done.stdout.strip()
    assert world.get("--token", "both")["source"] == "vault"


def test_whole_numbers_are_the_same_user_on_paths_of_their_own(kv2: World) -> None:
    for user in ("7", "007"):
        assert kv2.get("--user-id", user)["vault"]["path"] == f"klearstack/Acme/{user}/access"
        assert kv2.get("--user-id", user)["source"] == "vault"
    assert kv2.endpoint.mints == 2


# 6. Tokens of another endpoint


@pytest.mark.parametrize("face", FACES)
def test_a_token_of_another_endpoint_is_refused(kv2: World, face: str) -> None:
    kv2.store()
    with Simulator() as production:
        done = ask(kv2, face, KLEARSTACK_URL=production.url)
        assert production.requests == 0
    assert done.returncode == 78
    assert leaked(kv2, kv2.endpoint, done.stdout + done.stderr) == []
    assert not done.stdout or json.loads(done.stdout)["error"]["code"] == "vault_other_endpoint"
    assert re.search("--path-prefix|`path_prefix` in the query", done.stderr)
    assert re.search("--renew|`renew` in the query", done.stderr)


def test_in_bulk_and_in_python_it_is_refused_too(kv2: World) -> None:
    kv2.store()
    with Simulator() as production:
        for options in ([], ["--check"]):
            done = kv2.run("sync", manifest(kv2, 26, 27), *options, KLEARSTACK_URL=production.url)
            assert done.returncode == 5
        mine = settings(kv2, KLEARSTACK_URL=production.url)
        with connect(mine) as broker, pytest.raises(OtherEndpointError):
            broker.get(mine.identity())
        assert production.mints == 1  # for 27
    assert kv2.get()["source"] == "vault"


def test_renew_replaces_it_and_then_the_first_endpoint_is_the_other_one(world: World) -> None:
    first = world.store()
    with Simulator() as production:
        there = {"KLEARSTACK_URL": production.url}
        second = world.get("--renew", "--token", "both", **there)
        assert (second["source"], second["access_token"] in production.issued) == ("endpoint", True)
        assert world.get("--token", "both", **there)["access_token"] == second["access_token"]
        for kind in Kind:
            secret = stored(world, kind)
            assert secret is not None
            assert secret["issued_by"] == production.url
        assert world.run("get").returncode == 78
    assert second["access_token"] != first
    assert world.endpoint.mints == 1


def test_with_a_path_prefix_of_its_own_each_endpoint_is_served(kv2: World) -> None:
    kv2.store()
    with Simulator() as production:
        for source in ("endpoint", "vault"):
            answer = kv2.get("--path-prefix", "production", KLEARSTACK_URL=production.url)
            assert answer["source"] == source
    assert kv2.get()["source"] == "vault"


def test_another_spelling_of_the_url_is_the_same_endpoint(kv2: World) -> None:
    kv2.store()
    port = kv2.endpoint.url.rpartition(":")[2]
    for url in (
        f"HTTP://127.0.0.1:{port}/",
        f"{kv2.endpoint.url}/access/klearstack/getaccesstokenfromuserid",
    ):
        assert kv2.get(KLEARSTACK_URL=url)["source"] == "vault"


def test_the_issuer_is_seen_by_the_one_read_of_a_hit(kv2: World) -> None:
    kv2.store()
    with FaultProxy(kv2.vault.address) as proxy:
        assert kv2.get(VAULT_ADDR=proxy.address)["source"] == "vault"
        assert [line.split(" ")[0] for line in proxy.requests] == ["GET"]


def test_what_version_010_stored_is_served_and_gets_its_issuer_with_the_next_mint(world: World) -> None:
    first = world.store()
    for kind in Kind:
        secret = stored(world, kind)
        assert secret is not None
        del secret["issued_by"]
        world.vault.write(world.mount, f"klearstack/Acme/26/{kind}", secret)
    with Simulator() as production:
        there = {"KLEARSTACK_URL": production.url}
        for environ in ({}, there):
            answer = world.get(**environ)
            assert (answer["source"], answer["access_token"]) == ("vault", first)
        world.get("--renew", **there)
        secret = stored(world, Kind.REFRESH)
        assert secret is not None
        assert secret["issued_by"] == production.url


def test_an_endpoint_that_is_another_one_by_the_time_of_the_write_is_told_so(kv2: World) -> None:
    with Simulator() as production, FaultProxy(kv2.vault.address) as proxy:
        proxy.before(
            lambda line: line.startswith("POST") and "/data/" in line, lambda: kv2.get() and None, times=1
        )
        done = kv2.run("get", KLEARSTACK_URL=production.url, VAULT_ADDR=proxy.address)
        assert proxy.all_happened()
    assert (done.returncode, done.stdout) == (78, "")
    assert kv2.get()["source"] == "vault"


# The order of the writes


def test_nobody_finds_an_access_token_without_its_refresh_token(kv2: World) -> None:
    found: list[bool] = []

    def look() -> None:
        found.append(stored(kv2, Kind.REFRESH) is not None)
        found.append(stored(kv2) is not None)

    with FaultProxy(kv2.vault.address) as proxy:
        path = "/data/klearstack/Acme/26/access"
        proxy.before(lambda line: line.startswith("POST") and path in line, look, times=1)
        kv2.get(VAULT_ADDR=proxy.address)
    assert found == [True, False]
