"""Each login but those by a JWT (test_logins.py), at a real OpenBao that is configured for it."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.cli import World
from support.fault_proxy import FaultProxy
from support.oidc import Platform
from support.ports import own_port
from support.tls import Doors, doors_of_openbao, pki
from support.vault import Vault
from support.waiting import until

from vault_plugin.app import connect
from vault_plugin.demo.embedded import binary, stop
from vault_plugin.demo.simulator import Simulator
from vault_plugin.settings import Settings

PASSWORD = "corréct hörse"
MINE = "KLEARSTACK_VAULT_AUTH"


def rejected(world: World, reason: str, *arguments: str, **environ: str | None) -> None:
    """`get` says why in one line, exits 77, and quotes no credential; nothing is minted."""
    done = world.run("get", *arguments, **environ)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (77, "", 1)
    assert reason in done.stderr
    assert [text for name, text in environ.items() if "PASS" in name and text and text in done.stderr] == []
    assert world.endpoint.requests == 0


def assert_logs_in(world: World, *arguments: str, **environ: str | None) -> None:
    """The login reads and writes, and its token is revoked at the end."""
    before = world.vault.accessors()
    assert world.get("--renew", *arguments, **environ)["source"] == "endpoint"
    assert world.get(*arguments, **environ)["source"] == "vault"
    assert world.vault.accessors() <= before


def test_userpass(kv2: World) -> None:
    login: dict[str, str | None] = {MINE: "userpass", "VAULT_TOKEN": None, "VAULT_PASSWORD": PASSWORD}
    own = kv2.home / "password"
    own.write_text(f"{PASSWORD}\n")
    with kv2.vault.logins("userpass", "userpass", {}, {"password": PASSWORD}, kv2.mount, place="users/j.doe"):
        assert_logs_in(kv2, "--auth-username", "j.doe", **login)
        from_file = login | {"VAULT_PASSWORD": None, "VAULT_PASSWORD_FILE": str(own)}
        assert kv2.get("--auth-username", "j.doe", **from_file)["source"] == "vault"
        kv2.endpoint.requests = 0
        reason = "the user name or the password is wrong"
        for user in ("j.doe", "n ob%dy?"):
            rejected(kv2, reason, "--auth-username", user, **login | {"VAULT_PASSWORD": "wr0ng"})


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Doors, dict[str, str], Vault]]:
    """An OpenBao with TLS, its files, and a handle on it."""
    folder = tmp_path_factory.mktemp("tls")
    files = pki(folder)
    with doors_of_openbao(files, folder) as doors:
        vault = Vault(doors["tls"], doors.root_token, verify=files["ca"])
        yield doors, files, vault
        vault.close()


def test_a_tls_certificate(tls: tuple[Doors, dict[str, str], Vault], tmp_path: Path) -> None:
    doors, files, vault = tls
    mount = vault.mount("v2")
    environ: dict[str, str | None] = {
        MINE: "cert",
        "VAULT_TOKEN": None,
        "VAULT_CACERT": files["ca"],
        "VAULT_CLIENT_CERT": files["client"],
        "VAULT_CLIENT_KEY": files["client-key"],
    }
    role = {"certificate": Path(files["ca"]).read_text(), "allowed_names": "client@example.org"}
    with Simulator() as endpoint, vault.logins("cert", "cert", {}, role, mount, place="certs/ci"):
        world = World(endpoint, vault, mount, tmp_path)
        assert_logs_in(world, **environ)
        assert world.get("--auth-role", "ci", **environ)["source"] == "vault"
        endpoint.requests = 0
        rejected(
            world, "no role of the auth method accepts the client certificate", "--auth-role", "b", **environ
        )
        environ_of_server = {"VAULT_CLIENT_CERT": files["server"], "VAULT_CLIENT_KEY": files["server-key"]}
        vault.admin.write_data("auth/cert/certs/any", data={"certificate": role["certificate"]})
        nameless = world.run("get", **environ | environ_of_server)
        assert (nameless.returncode, "has no common name" in nameless.stderr) == (69, True)
        foreign = pki(tmp_path)
        other = {"VAULT_CLIENT_CERT": foreign["client"], "VAULT_CLIENT_KEY": foreign["client-key"]}
        rejected(world, "no role of the auth method accepts the client certificate", **environ | other)
        plain = world.run("get", **environ | {"VAULT_ADDR": doors["unix"]})
        assert (plain.returncode, "the connection has no TLS" in plain.stderr) == (77, True)


def wrapped(world: World, mount: str, seconds: int = 60) -> tuple[dict[str, str | None], str]:
    """The environment for an AppRole login whose secret id is wrapped, and the name of its role."""
    policy = f'path "{world.mount}/*" {{ capabilities = ["create", "update", "read"] }}'
    role_id, _, _ = world.vault.approle(policy, mount)
    roles = world.vault.admin.auth.approle
    name = roles.list_roles(mount_point=mount)["data"]["keys"][0]
    made = roles.generate_secret_id(name, mount_point=mount, wrap_ttl=f"{seconds}s")["wrap_info"]["token"]
    login = {MINE: "approle", "KLEARSTACK_VAULT_AUTH_MOUNT": mount, "VAULT_TOKEN": None}
    return login | {"VAULT_ROLE_ID": role_id, "VAULT_WRAPPED_SECRET_ID": made}, name


def test_a_wrapped_secret_id_is_unwrapped_once(kv2: World) -> None:
    others = kv2.vault.accessors()
    login, _ = wrapped(kv2, f"approle-{kv2.mount}")
    assert len(kv2.vault.accessors() - others) == 1  # of the wrapping token
    assert kv2.get(**login)["source"] == "endpoint"
    assert kv2.vault.accessors() <= others
    kv2.endpoint.requests = 0
    rejected(kv2, "it has expired, has been used, or is not one", **login)
    rejected(kv2, "it has expired, has been used, or is not one", **login | {"VAULT_WRAPPED_SECRET_ID": "x"})


def test_a_token_that_wraps_something_else_contains_no_secret_id(kv2: World) -> None:
    login, _ = wrapped(kv2, f"approle-{kv2.mount}")
    other = kv2.vault.admin.auth.token.create(ttl="1m", wrap_ttl="60s")["wrap_info"]["token"]
    rejected(kv2, "The wrapping token contains no secret id.", **login | {"VAULT_WRAPPED_SECRET_ID": other})
    with FaultProxy(kv2.vault.address) as proxy:
        proxy.answer(lambda line: "/unwrap" in line, 200, when="before", times=1, body=b'{"data": {}}')
        rejected(kv2, "contains no secret id", **login, VAULT_ADDR=proxy.address)
        proxy.reset(lambda line: "/unwrap" in line, when="after", times=1)
        assert kv2.run("get", **login, VAULT_ADDR=proxy.address).returncode == 69  # it is not sent again
    assert sum("/unwrap" in line for line in proxy.requests) == 2


HELPER = """\
#!/bin/sh
case $1 in
  get) cat "$0.stored" ;;
  store) cat >"$0.stored" ;;
  erase) rm -f "$0.stored" ;;
esac
"""


def test_the_token_helper_of_bao_login_is_used(kv2: World) -> None:
    helper = kv2.home / "helper"
    helper.write_text(HELPER)
    helper.chmod(0o755)
    (kv2.home / ".bao").write_text(f'token_helper = "{helper}"\n')
    environ = {"HOME": str(kv2.home), "BAO_ADDR": kv2.vault.address}
    user = {"password": PASSWORD}
    with kv2.vault.logins("userpass", f"up-{kv2.mount}", {}, user, kv2.mount, place="users/j"):
        login = [binary(), "login", "-no-print", "-method=userpass", f"-path=up-{kv2.mount}"]
        subprocess.run([*login, "username=j", f"password={PASSWORD}"], env=environ, check=True)
        assert kv2.get(VAULT_TOKEN=None)["source"] == "endpoint"
        kv2.vault.admin.auth.token.lookup((kv2.home / "helper.stored").read_text())  # it was not revoked
    helper.write_text("#!/bin/sh\necho two; echo lines\n")
    kv2.endpoint.requests = 0
    done = kv2.run("get", VAULT_TOKEN=None)
    assert (done.returncode, done.stderr.count("\n"), kv2.endpoint.requests) == (78, 1, 0)


@contextmanager
def proxy_of_bao(world: World, folder: Path, *, auto_auth: bool = True) -> Iterator[tuple[str, str]]:
    """`bao proxy`, which adds the token of its own login; its addresses, by TCP and by a unix socket."""
    policy = f'path "{world.mount}/*" {{ capabilities = ["create", "update", "read"] }}'
    role_id, secret_id, _ = world.vault.approle(policy)
    for name, text in (("role-id", role_id), ("secret-id", secret_id)):
        (folder / name).write_text(text)
    port, path = own_port(), folder / "proxy.sock"
    method = f"""
        auto_auth {{
          method "approle" {{
            config = {{
              role_id_file_path = "{folder}/role-id"
              secret_id_file_path = "{folder}/secret-id"
              remove_secret_id_file_after_reading = false
            }}
          }}
        }}
        api_proxy {{ use_auto_auth_token = true }}
    """
    config = folder / "proxy.hcl"
    config.write_text(f"""
        vault {{ address = "{world.vault.address}" }}
        {method if auto_auth else ""}
        listener "tcp" {{
          address = "127.0.0.1:{port}"
          tls_disable = true
          require_request_header = true
        }}
        listener "unix" {{
          address = "{path}"
          tls_disable = true
        }}
    """)
    log = (folder / "proxy.log").open("wb")
    with log:
        process = subprocess.Popen(
            [binary(), "proxy", f"-config={config}"],
            env={"HOME": str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
        try:
            ready = b"authentication successful" if auto_auth else b"Proxy started"
            until(lambda: ready in (folder / "proxy.log").read_bytes() and path.exists())
            yield f"http://127.0.0.1:{port}", f"unix://{path}"
        finally:
            stop(process)


def test_without_a_token_the_proxy_adds_its_own_also_on_a_unix_socket(kv2: World, tmp_path: Path) -> None:
    login: dict[str, str | None] = {MINE: "none", "VAULT_TOKEN": "hvs.of-another-server"}
    with proxy_of_bao(kv2, tmp_path) as (tcp, unix):
        assert kv2.get(**login, VAULT_ADDR=tcp)["source"] == "endpoint"
        assert kv2.get(**login, VAULT_ADDR=unix)["source"] == "vault"
        settings = Settings.from_env(kv2.environ | {MINE: "none", "VAULT_ADDR": unix})
        with connect(settings) as broker:
            assert broker.get(settings.identity()).access.token.value.reveal() == kv2.endpoint.issued[1]
        with FaultProxy(tcp) as seen:
            kv2.get("--renew", **login, VAULT_ADDR=seen.address)
        assert [head for head in seen.heads if b"x-vault-token" in head.lower() or b"hvs." in head] == []
        kv2.endpoint.requests = 0
        kv2.vault.admin.sys.disable_secrets_engine(kv2.mount)
        done = kv2.run("get", **login, VAULT_ADDR=tcp)
        assert (done.returncode, "no secrets engine is mounted" in done.stderr) == (77, True)


def test_a_proxy_that_adds_no_token_is_named(kv2: World, tmp_path: Path) -> None:
    with proxy_of_bao(kv2, tmp_path, auto_auth=False) as (tcp, _):
        rejected(kv2, "check that --vault-addr", **{MINE: "none"}, VAULT_TOKEN=None, VAULT_ADDR=tcp)


def test_a_unix_socket_that_is_absent_is_named(kv2: World, tmp_path: Path) -> None:
    done = kv2.run("get", **{MINE: "none"}, VAULT_ADDR=f"unix://{tmp_path}/none.sock")
    assert (done.returncode, done.stderr.count("\n")) == (69, 1)


def test_a_wrapped_vault_token_is_recognized(kv2: World) -> None:
    def token() -> str:
        made: str = kv2.vault.admin.auth.token.create(ttl="1m", wrap_ttl="60s")["wrap_info"]["token"]
        return made

    for arguments in (("get",), ("sync", str(manifest(kv2)))):
        done = kv2.run(*arguments, VAULT_TOKEN=token())
        assert "is a wrapping token" in done.stderr
        assert kv2.endpoint.requests == 0


def manifest(world: World) -> Path:
    path = world.home / "m.jsonl"
    path.write_text(json.dumps({"user_id": "26", "company_name": "Acme"}))
    return path


def test_the_login_may_be_in_another_namespace_than_the_mount(bao: Vault, tmp_path: Path) -> None:
    outer = bao.namespace()
    inner = bao.namespace(bao.namespace(outer))
    policy = (
        f'path "{inner.removeprefix(outer + "/")}/kv/*" {{ capabilities = ["create", "update", "read"] }}'
    )
    with Simulator() as endpoint:
        login: dict[str, str | None] = {MINE: "approle", "VAULT_TOKEN": None, "VAULT_NAMESPACE": inner}
        for place, of_policy in ((outer, policy), ("root", policy.replace('path "', f'path "{outer}/'))):
            at = Vault(bao.address, bao.root_token, namespace=None if place == "root" else place)
            role_id, secret_id, _ = at.approle(of_policy, f"a-{endpoint.mints}")
            world = World(endpoint, at, "kv", tmp_path)
            ids = {"VAULT_ROLE_ID": role_id, "VAULT_SECRET_ID": secret_id}
            where = "--auth-mount", f"a-{endpoint.mints}", "--auth-namespace", place
            before = at.accessors()
            assert world.get("--renew", *where, **login, **ids)["source"] == "endpoint"
            assert world.get(*where, **login, **ids)["source"] == "vault"
            assert at.accessors() <= before
            wrong = world.run("get", "--auth-mount", where[1], **login, **ids)
            assert (wrong.returncode, wrong.stdout) == (77, "")
            at.close()


@pytest.mark.container
def test_the_logins_on_a_vault_in_a_container(vault_container: Vault, tmp_path: Path) -> None:
    """Those for which it needs to reach nothing outside."""
    with Simulator() as endpoint:
        world = World(endpoint, vault_container, vault_container.mount("v2"), tmp_path)
        assert world.get()["source"] == "endpoint"  # by the root token
        helper = tmp_path / "helper"
        helper.write_text(f"#!/bin/sh\necho {vault_container.root_token}\n")
        helper.chmod(0o755)
        (tmp_path / ".vault").write_text(f'token_helper = "{helper}"\n')
        assert world.get(VAULT_TOKEN=None)["source"] == "vault"
        login, _ = wrapped(world, f"approle-{world.mount}")
        assert world.get("--renew", **login)["source"] == "endpoint"
        password: dict[str, str | None] = {MINE: "userpass", "VAULT_TOKEN": None, "VAULT_PASSWORD": PASSWORD}
        user = {"password": PASSWORD}
        with world.vault.logins("userpass", "userpass", {}, user, world.mount, place="users/j.doe"):
            assert_logs_in(world, "--auth-username", "j.doe", **password)
        platform = Platform()
        config = {"jwt_validation_pubkeys": platform.public_key}
        role = {"role_type": "jwt", "user_claim": "sub", "bound_audiences": ["vault"]}
        jwt: dict[str, str | None] = {MINE: "jwt", "VAULT_TOKEN": None, "VAULT_JWT": platform.issue()}
        with world.vault.logins("jwt", "jwt", config, role, world.mount):
            assert_logs_in(world, "--auth-role", "ci", **jwt)
