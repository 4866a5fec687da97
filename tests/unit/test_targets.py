"""One identity in several Vaults: whose credentials go where, and what one mint does for all."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest
from support.fakes import ACME, NOW, FakeClock, FakeLock, FakeSource, FakeStore, pair, token

from vault_plugin.broker import Broker
from vault_plugin.broker.freshness import Freshness
from vault_plugin.bulk import targets
from vault_plugin.bulk.targets import Targets, connect_all
from vault_plugin.errors import SettingsError, SourceError, StoreError, StoreRefusedError
from vault_plugin.manifest.row import Row
from vault_plugin.manifest.targets import KEYS, settings_of
from vault_plugin.settings import Settings
from vault_plugin.settings.credentials import for_another_vault
from vault_plugin.settings.declarations import ORIGINS
from vault_plugin.settings.gathering import Flags
from vault_plugin.settings.origin import Group, Origin, setting, without_logins
from vault_plugin.settings.proxies import Proxy
from vault_plugin.settings.values import RateLimit
from vault_plugin.timing.deadline import Deadline
from vault_plugin.timing.rate_limiter import AdaptiveRateLimiter
from vault_plugin.tokens.jwt import Kind, TokenSet
from vault_plugin.tokens.secret import Secret
from vault_plugin.tokens.stored import PathState

ENVIRON = {
    "KLEARSTACK_URL": "https://api.example",
    "VAULT_ADDR": "https://vault.example",
    "VAULT_TOKEN": "hvs.theirs",
}
OTHER = "https://other.example"


def gathered(
    fields: dict[str, str] | None, environ: Mapping[str, str] | None = None, **flags: str | bool | None
) -> Settings:
    row = None if fields is None else Row("targets", 1, fields)
    return settings_of(row, flags, ENVIRON if environ is None else environ)


@pytest.fixture
def secret(tmp_path: Path) -> str:
    (tmp_path / "secret").write_text("hvs.own\n")
    return str(tmp_path / "secret")


# Settings


def test_without_a_target_all_comes_from_command_line_and_environment() -> None:
    settings = gathered(None, mount="kv")
    assert (settings.vault_addr, settings.mount) == (("https://vault.example",), "kv")
    assert settings.vault_token == Secret("hvs.theirs")


def test_a_target_without_an_address_is_a_place_in_the_same_vault() -> None:
    settings = gathered(
        {"mount": "team", "namespace": "n", "path_prefix": "p"}, mount="kv", vault_namespace="m"
    )
    assert (settings.mount, settings.vault_namespace, settings.path_prefix) == ("team", "n", "p")
    assert (settings.vault_addr, settings.vault_token) == (("https://vault.example",), Secret("hvs.theirs"))


def test_a_targets_own_settings_are_each_of_its_keys(secret: str) -> None:
    settings = gathered(
        {
            "address": f"{OTHER},https://third.example",
            "namespace": "n",
            "cacert": secret,
            "tls_server_name": "v.example",
            "proxy": "http://p.example:3128",
            "client_cert": secret,
            "client_key": secret,
            "auth": "jwt",
            "auth_mount": "m",
            "auth_role": "r",
            "mount": "kv",
            "path_prefix": "p",
            "jwt_file": secret,
        }
    )
    assert settings == Settings(
        user_id="-",
        company_name="-",
        url="https://api.example",
        vault_addr=(OTHER, "https://third.example"),
        vault_namespace="n",
        vault_cacert=secret,
        vault_tls_server_name="v.example",
        vault_proxy=Proxy("p.example", 3128),
        vault_client_cert=secret,
        vault_client_key=secret,
        auth="jwt",
        auth_mount="m",
        auth_role="r",
        mount="kv",
        path_prefix="p",
        vault_jwt=Secret("hvs.own"),
    )


@pytest.mark.parametrize("address", [{}, {"address": OTHER}])
def test_a_targets_own_mount_and_prefix_come_before_those_of_the_command_line(
    secret: str, address: dict[str, str]
) -> None:
    row = {**address, "mount": "own", "path_prefix": "p", "token_file": secret}
    settings = gathered(row, mount="flag", path_prefix="flag")
    assert (settings.mount, settings.path_prefix) == ("own", "p")


@pytest.mark.parametrize("suffix", ["", "_FILE"])
@pytest.mark.parametrize("name", ["VAULT_TOKEN", "BAO_TOKEN"])
def test_a_vault_of_its_own_is_never_given_another_vaults_token(secret: str, name: str, suffix: str) -> None:
    environ = {"KLEARSTACK_URL": "https://api.example", name + suffix: secret if suffix else "hvs.theirs"}
    with pytest.raises(
        SettingsError,
        match="uses no login or connection setting of another Vault: VAULT_TOKEN or BAO_TOKEN is missing",
    ):
        gathered({"address": OTHER}, environ)
    assert gathered({"address": OTHER, "token_file": secret}, environ).vault_token == Secret("hvs.own")


def test_a_vault_of_its_own_is_never_given_the_token_in_the_home_folder(tmp_path: Path, secret: str) -> None:
    (tmp_path / ".vault-token").write_text("hvs.theirs")
    environ = {
        "KLEARSTACK_URL": "https://api.example",
        "VAULT_ADDR": "https://v.example",
        "HOME": str(tmp_path),
    }
    assert gathered({"mount": "kv"}, environ).vault_token == Secret("hvs.theirs")
    with pytest.raises(SettingsError, match="VAULT_TOKEN or BAO_TOKEN is missing"):
        gathered({"address": OTHER}, environ)


@pytest.mark.parametrize(
    ("name", "key"), [("ROLE_ID", "role_id_file"), ("SECRET_ID", "secret_id_file"), ("JWT", "jwt_file")]
)
@pytest.mark.parametrize("maker", ["VAULT", "BAO"])
def test_no_other_credential_goes_to_a_vault_of_its_own(secret: str, name: str, key: str, maker: str) -> None:
    auth = "jwt" if name == "JWT" else "approle"
    own = {"role_id_file": secret, "secret_id_file": secret, "jwt_file": secret}
    environ = {"KLEARSTACK_URL": "https://api.example", f"{maker}_{name}": "theirs"}
    row = {"address": OTHER, "auth": auth} | own
    gathered(row, environ)
    del row[key]
    with pytest.raises(SettingsError, match=f"VAULT_{name} or BAO_{name} is missing"):
        gathered(row, environ)


def test_the_way_to_another_vault_is_none_to_a_vault_of_its_own(secret: str) -> None:
    way = {
        "VAULT_NAMESPACE": "n",
        "VAULT_CACERT": secret,
        "VAULT_CACERT_BYTES": "-----BEGIN CERTIFICATE-----",
        "VAULT_CAPATH": "/",
        "VAULT_TLS_SERVER_NAME": "v.example",
        "VAULT_PROXY_ADDR": "http://u:CANARY@p.example",
        "VAULT_HTTP_PROXY": "http://u:CANARY@p.example",
        "VAULT_CLIENT_CERT": secret,
        "VAULT_CLIENT_KEY": secret,
        "KLEARSTACK_VAULT_AUTH": "approle",
        "KLEARSTACK_VAULT_AUTH_MOUNT": "m",
        "KLEARSTACK_VAULT_AUTH_ROLE": "r",
    }
    bao = {name.replace("VAULT_", "BAO_"): text for name, text in way.items() if not name.startswith("KLEAR")}
    flags = {
        "vault_addr": "https://flag.example",
        "vault_namespace": "n",
        "vault_cacert": secret,
        "vault_capath": "/",
        "vault_tls_server_name": "v.example",
        "vault_proxy": "http://p.example",
        "vault_client_cert": secret,
        "vault_client_key": secret,
        "auth": "approle",
        "auth_mount": "m",
        "auth_role": "r",
    }
    row = {"address": OTHER, "token_file": secret}
    alone = gathered(row, {"KLEARSTACK_URL": "https://api.example"})
    assert gathered(row, {**ENVIRON, **way, **bao, "BAO_ADDR": "https://b.example"}, **flags) == alone
    assert (alone.vault_addr, alone.auth, alone.vault_cacert) == ((OTHER,), "token", None)
    assert (alone.vault_capath, alone.vault_tls_server_name, alone.vault_proxy) == (None, None, None)


@pytest.mark.parametrize(
    "variable", ["VAULT_PROXY_ADDR", "VAULT_HTTP_PROXY", "BAO_PROXY_ADDR", "BAO_HTTP_PROXY"]
)
def test_a_target_without_an_address_uses_the_proxy_and_the_id_token_url_with_its_own_login(
    secret: str, variable: str
) -> None:
    way = {variable: "http://u:p@p.example:3128", "ACTIONS_ID_TOKEN_REQUEST_URL": "https://ids.example/?a=b"}
    found = gathered({"token_file": secret}, ENVIRON | way)
    assert (str(found.vault_proxy), found.vault_token) == ("http://p.example:3128", Secret("hvs.own"))
    assert found.actions_url == "https://ids.example/?a=b"
    assert "VAULT_TOKEN" not in without_logins(ENVIRON | way, Settings.origins)


def test_a_target_with_a_folder_of_cas_takes_no_file_of_the_settings(secret: str) -> None:
    found = gathered({"capath": "/", "mount": "kv"}, ENVIRON | {"VAULT_CACERT": secret, "HOME": "/"})
    assert (found.vault_capath, found.vault_cacert) == ("/", None)
    with pytest.raises(SettingsError, match="contains a login") as caught:
        gathered({"proxy": "http://u:CANARY@p.example"})
    assert "CANARY" not in str(caught.value)


def test_another_vault_is_reached_through_https_proxy_and_keeps_the_limits(secret: str) -> None:
    general = {"KLEARSTACK_URL": "https://api.example", "HTTPS_PROXY": "http://p.example", "NO_PROXY": "x"}
    limits = {"VAULT_MAX_RETRIES": "3", "VAULT_RATE_LIMIT": "5", "VAULT_CLIENT_TIMEOUT": "7"}
    own = {"VAULT_PROXY_ADDR": "http://other.example"}
    found = gathered(
        {"address": OTHER, "token_file": secret}, general | limits | own, vault_proxy="http://f.example"
    )
    assert (str(found.vault_proxy), found.vault_proxy == found.proxy) == ("http://p.example:80", True)
    assert found.vault_rate_limit == RateLimit(5, 5)
    assert (found.vault_max_retries, found.vault_timeout) == (3, 7)


def test_each_setting_is_either_shared_by_all_vaults_or_withheld_from_another() -> None:
    for name, origin in ORIGINS.items():
        environ = {f"{variable}{suffix}": "x" for variable in origin.env for suffix in ("", "_FILE")}
        shared = origin.group not in {Group.VAULT_CONNECTION, Group.VAULT_LOGIN}
        given: tuple[dict[str, str], Flags] = (environ, {name: "x"})
        assert for_another_vault(*given) == (given if shared else ({}, {})), name


@pytest.mark.parametrize(
    ("group", "secret"),
    [
        (Group.VAULT_LOGIN, True),  # a password
        (Group.VAULT_LOGIN, False),  # a user name
        (Group.VAULT_CONNECTION, False),  # a proxy
        (Group.LIMITS, True),  # a secret in the wrong group
    ],
)
def test_a_new_login_setting_is_never_taken_for_a_target_of_another_address(
    monkeypatch: pytest.MonkeyPatch, group: Group, secret: bool
) -> None:
    new = Origin(("BAO_NEW", "VAULT_NEW"), group, "New.", secret=secret)
    monkeypatch.setitem(ORIGINS, "new", new)
    given = {**ENVIRON, "VAULT_NEW": "a", "BAO_NEW_FILE": "b"}
    taken: list[tuple[Mapping[str, str], Mapping[str, object]]] = []
    monkeypatch.setattr(Settings, "for_many", lambda environ, **flags: taken.append((environ, flags)))
    gathered({"address": OTHER}, given, new="flag", mount="kv")
    assert taken == [
        (
            {"KLEARSTACK_URL": "https://api.example"},
            {"mount": "kv", "vault_addr": OTHER, "on_vault_error": "fail"},
        )
    ]


def test_a_new_setting_cannot_be_declared_without_a_group() -> None:
    with pytest.raises(TypeError, match="group"):
        setting("VAULT_NEW", help="New.")  # type: ignore[call-arg]


def test_what_is_no_way_to_a_vault_is_shared_by_all(secret: str) -> None:
    environ = {**ENVIRON, "KLEARSTACK_VAULT_MOUNT": "kv", "KLEARSTACK_TIMEOUT": "3"}
    row = {"address": OTHER, "token_file": secret}
    settings = gathered(row, environ, min_ttl="5m", ca_cert=secret, path_prefix="p")
    assert (settings.mount, settings.timeout, settings.min_ttl) == ("kv", 3.0, 300.0)
    assert (settings.ca_cert, settings.url, settings.path_prefix) == (secret, "https://api.example", "p")


def test_a_targets_credentials_are_taken_instead_of_those_of_the_environment(secret: str) -> None:
    for name in ("VAULT_TOKEN", "BAO_TOKEN", "BAO_TOKEN_FILE"):
        environ = {**ENVIRON, name: "hvs.theirs"}
        settings = gathered({"token_file": secret}, environ)
        assert (settings.vault_token, settings.vault_addr) == (Secret("hvs.own"), ("https://vault.example",))


def test_a_credential_that_cannot_be_read_is_told_without_its_path(tmp_path: Path) -> None:
    for row in ({}, {"address": OTHER}):
        with pytest.raises(
            SettingsError, match="cannot be read from the file that VAULT_TOKEN_FILE"
        ) as caught:
            gathered({**row, "token_file": str(tmp_path / "CANARY")})
        assert "CANARY" not in str(caught.value)


@pytest.mark.parametrize("row", [None, {}, {"address": OTHER}])
def test_vault_cannot_be_bypassed(row: dict[str, str] | None, secret: str) -> None:
    if row:
        row = row | {"token_file": secret}
    environ = {**ENVIRON, "KLEARSTACK_ON_VAULT_ERROR": "bypass"}
    assert gathered(row, environ, on_vault_error="bypass").on_vault_error == "fail"


def test_no_identity_is_asked_for_and_none_is_taken() -> None:
    environ = {**ENVIRON, "KLEARSTACK_USER_ID": "26", "KLEARSTACK_COMPANY_NAME": "Acme"}
    settings = gathered(None, environ, company_name="Acme")
    assert (settings.user_id, settings.company_name) == ("-", "-")


def test_the_environment_is_the_processs_unless_another_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in ENVIRON.items():
        monkeypatch.setenv(name, text)
    flags: Flags = {}
    assert settings_of(None, flags) == gathered(None)
    assert settings_of(Row("targets", 1, {"mount": "kv"}), flags).mount == "kv"


def test_the_keys_of_a_target_are_the_promised_ones() -> None:
    assert KEYS == (
        *(
            "address",
            "namespace",
            "cacert",
            "capath",
            "tls_server_name",
            "proxy",
            "client_cert",
            "client_key",
            "auth",
            "auth_mount",
            "auth_role",
        ),
        *("mount", "path_prefix", "token_file", "role_id_file", "secret_id_file", "jwt_file"),
    )


def test_settings_are_gathered_anew_within_what_is_left_of_the_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    again: list[Callable[[Deadline], Settings]] = []

    @contextmanager
    def connect(*_: object, reread: Callable[[Deadline], Settings], **_more: object) -> Iterator[None]:
        again.append(reread)
        yield

    monkeypatch.setattr(targets, "connect", connect)
    flags = {"deadline": "60"}
    with connect_all([lambda **newer: settings_of(None, {**flags, **newer}, ENVIRON)]):
        assert 1 < again[0](Deadline(2)).deadline <= 2
        assert 0 < again[0](Deadline(0)).deadline < 0.1


def test_to_connect_contacts_nobody_and_each_vault_has_a_broker(secret: str) -> None:
    rows: list[dict[str, str] | None] = [None, {"address": OTHER, "token_file": secret}]
    with connect_all([lambda row=row: gathered(row) for row in rows]) as targets:
        assert len(targets._brokers) == 2


# Tokens


class ReadOnly(FakeStore):
    """A Vault whose policy has no write."""

    def write(self, *_: object) -> NoReturn:
        raise StoreRefusedError("403 of a write")


class World:
    """Vaults a, b and c, and what is in them."""

    def __init__(self, *stores: type[FakeStore], minted: TokenSet | Exception | None = None) -> None:
        self.clock = FakeClock()
        self.source = FakeSource([minted or pair(jti="minted")])
        self.stores = [store(self.clock.now) for store in stores]
        self.targets = Targets(
            [
                Broker(
                    reader=None,
                    store=lambda store=store: store,  # type: ignore[misc]
                    source=lambda: self.source,
                    lock=FakeLock(),
                    freshness=Freshness(
                        now=self.clock.now,
                        vault_now=self.clock.now,
                        endpoint="https://api.example",
                        min_ttl=60,
                    ),
                    deadline=10,
                    bypass=False,
                )
                for store in self.stores
            ]
        )

    def keep(self, number: int, *, life: int = 900, jti: str = "kept") -> None:
        for kind in Kind:
            self.stores[number].write(ACME, token(kind, life=life, jti=jti), "1", PathState(), Deadline(10))

    @property
    def held(self) -> list[list[str | None]]:
        """The ids of access and refresh token in each Vault."""
        for store in self.stores:
            store.error = None
        found = [
            [store.read(ACME, kind, Deadline(10)).stored for kind in (Kind.ACCESS, Kind.REFRESH)]
            for store in self.stores
        ]
        return [[one.token.jti if one else None for one in two] for two in found]

    def ensure(self, min_ttl: float | None = None, *, renew: bool = False) -> tuple[str, str, int]:
        result, grant = self.targets.ensure(ACME, min_ttl=min_ttl, renew=renew)
        return result, grant.access.token.jti, self.source.mints


def test_one_mint_lands_in_all() -> None:
    world = World(FakeStore, FakeStore, FakeStore)
    assert world.ensure() == ("minted", "minted", 1)
    assert world.held == [["minted", "minted"]] * 3
    assert world.ensure() == ("fresh", "minted", 1)


def test_one_vault_alone_needs_one_look() -> None:
    world = World(FakeStore)
    assert world.ensure() == ("minted", "minted", 1)
    (store,) = world.stores
    assert store.reads == 2 + 2  # the fake store reads once more for each write
    store.reads = 0
    assert world.ensure() == ("fresh", "minted", 1)
    assert store.reads == 1


@pytest.mark.parametrize("number", [0, 1, 2])
def test_what_one_vault_holds_is_copied_to_the_others_without_minting(number: int) -> None:
    world = World(FakeStore, FakeStore, FakeStore)
    world.keep(number)
    assert world.ensure() == ("copied", "kept", 0)
    assert world.held == [["kept", "kept"]] * 3
    assert world.ensure() == ("fresh", "kept", 0)


def test_a_token_that_is_too_old_to_use_is_too_old_to_copy() -> None:
    world = World(FakeStore, FakeStore, minted=pair(at=NOW + 850, jti="minted"))
    world.keep(0)
    world.clock.time = NOW + 850
    assert world.ensure() == ("minted", "minted", 1)
    assert [access for access, _ in world.held] == ["minted"] * 2


def test_what_is_too_old_is_as_the_caller_says() -> None:
    for count in (1, 2):
        world = World(*[FakeStore] * count, minted=pair(at=NOW + 500, jti="minted"))
        for number in range(count):
            world.keep(number)
        world.clock.time = NOW + 500
        assert world.ensure(min_ttl=400) == ("fresh", "kept", 0)
        assert world.targets.check(ACME, min_ttl=400) is not None
        assert world.targets.check(ACME, min_ttl=401) is None
        assert world.ensure(min_ttl=401) == ("minted", "minted", 1)
        assert [access for access, _ in world.held] == ["minted"] * count


def test_of_several_good_tokens_the_one_that_ends_first_is_told() -> None:
    world = World(FakeStore, FakeStore, FakeStore)
    for number, life in enumerate((900, 600, 700)):
        world.keep(number, life=life, jti=f"{life}")
    assert world.ensure() == ("fresh", "600", 0)
    found = world.targets.check(ACME)
    assert found is not None
    assert (found.result, found.grant.access.token.jti) == ("fresh", "600")


@pytest.mark.parametrize("down", [0, 1, 2])
def test_a_vault_that_is_down_keeps_no_token_from_the_others_and_is_told(down: int) -> None:
    world = World(FakeStore, FakeStore, FakeStore)
    world.stores[down].error = StoreError(f"{down} is down")
    with pytest.raises(StoreError, match=f"{down} is down") as caught:
        world.ensure()
    assert caught.value.for_all is False  # the others took the token
    assert world.source.mints == 1
    assert world.held == [[None, None] if number == down else ["minted"] * 2 for number in range(3)]
    assert world.ensure() == ("copied", "minted", 1)


def test_the_error_of_the_first_vault_that_fails_is_the_one_that_is_told() -> None:
    world = World(FakeStore, FakeStore)
    for number in (0, 1):
        world.stores[number].error = StoreError(f"{number} is down")
    with pytest.raises(StoreError, match="0 is down"):
        world.ensure()
    assert world.source.mints == 0  # a token that can be stored nowhere is not minted


def test_a_first_vault_that_takes_no_write_keeps_no_token_from_the_others() -> None:
    world = World(ReadOnly, FakeStore, FakeStore)
    with pytest.raises(StoreRefusedError, match="403 of a write"):
        world.ensure()
    assert world.held == [[None, None], ["minted"] * 2, ["minted"] * 2]
    assert world.source.mints == 2  # what was minted for the first is lost


def test_a_later_vault_that_takes_no_write_is_told_and_nothing_is_minted_for_it() -> None:
    world = World(FakeStore, ReadOnly, FakeStore)
    for _ in range(2):
        with pytest.raises(StoreRefusedError):
            world.ensure()
    assert world.source.mints == 1
    assert world.held == [["minted"] * 2, [None, None], ["minted"] * 2]


def test_a_good_token_is_found_in_a_vault_that_takes_no_write() -> None:
    world = World(FakeStore, FakeStore)
    for number in (0, 1):
        world.keep(number)
        world.stores[number].__class__ = ReadOnly
    assert world.ensure() == ("fresh", "kept", 0)


def test_an_endpoint_that_fails_is_asked_once_and_told() -> None:
    world = World(FakeStore, FakeStore, minted=SourceError("the endpoint is down"))
    with pytest.raises(SourceError):
        world.ensure()
    assert (world.source.mints, world.held) == (1, [[None, None]] * 2)


def test_what_another_process_minted_meanwhile_is_no_mint_of_ours() -> None:
    world = World(FakeStore, FakeStore)
    lock = FakeLock()
    lock.meanwhile = lambda: world.keep(0)
    world.targets._brokers[0]._minter._lock = lock
    assert world.ensure() == ("copied", "kept", 0)
    assert world.held == [["kept", "kept"]] * 2


def test_a_check_finds_what_is_good_everywhere_and_changes_nothing() -> None:
    world = World(FakeStore, FakeStore)
    assert world.targets.check(ACME) is None
    world.keep(1)
    assert world.targets.check(ACME) is None
    assert world.held == [[None, None], ["kept", "kept"]]
    world.keep(0)
    found = world.targets.check(ACME)
    assert found is not None
    assert found.result == "fresh"
    assert world.source.mints == 0


def test_a_check_of_a_vault_that_is_down_fails() -> None:
    world = World(FakeStore, FakeStore)
    world.stores[1].error = StoreError("down")
    with pytest.raises(StoreError):
        world.targets.check(ACME)


def test_an_identity_waits_for_each_vault() -> None:
    limiters = [AdaptiveRateLimiter(), AdaptiveRateLimiter()]
    targets = Targets([], limiters)
    stopping = threading.Event()
    with targets.slot(stopping) as admitted:
        assert admitted
        assert [one._in_progress["identity"] for one in limiters] == [1, 1]
    assert [one._in_progress["identity"] for one in limiters] == [0, 0]
    limiters[1].refuse(0, 0.0)
    stopping.set()
    with targets.slot(stopping) as admitted:
        assert not admitted


def test_one_mint_renews_all() -> None:
    world = World(FakeStore, FakeStore, FakeStore, minted=pair(at=NOW + 1, jti="minted"))
    for number in range(3):
        world.keep(number)
    assert world.ensure(renew=True) == ("minted", "minted", 1)
    assert world.held == [["minted", "minted"]] * 3
    assert world.ensure() == ("fresh", "minted", 1)


def test_what_another_endpoint_issued_is_renewed_in_all() -> None:
    world = World(FakeStore, FakeStore, minted=pair(at=NOW + 1, jti="minted", by="https://api.example"))
    for store in world.stores:
        for kind in Kind:
            theirs = token(kind, jti="theirs", by="https://staging.example")
            store.write(ACME, theirs, "1", PathState(), Deadline(10))
    assert world.ensure(renew=True) == ("minted", "minted", 1)
    assert world.held == [["minted", "minted"]] * 2
