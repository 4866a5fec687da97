"""The protocols in which other programs ask for the token, by the letter, and whom it is given to.

ExecCredential: the reference of client.authentication.k8s.io; Bazel: EngFlow's specification of credential helpers;
git: git-credential(1). No schema of them can be installed, so what they demand is written down here.
"""

import io
import json
import logging
import re
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fakes import NOW, Done, Run, jwt

from vault_plugin.broker import Grant, GrantedToken
from vault_plugin.errors import QueryError, StoreError, UsageError
from vault_plugin.protocols import bazel, bearer, git
from vault_plugin.protocols.bearer import SAFETY, expiry_for_caller
from vault_plugin.protocols.kubernetes import MAX_EXEC_INFO, VERSIONS, exec_credential
from vault_plugin.protocols.query import MAX_QUERY
from vault_plugin.settings import Settings
from vault_plugin.timing.clock import parse_rfc3339
from vault_plugin.tokens.identity import Identity
from vault_plugin.tokens.jwt import Kind, Token
from vault_plugin.tokens.secret import Secret

SETTINGS = Settings(
    user_id="26", company_name="Acme", url="https://api.example/base", vault_addr=("https://v",)
)
asked: list[Identity] = []
rejected: list[tuple[Identity, Secret]] = []
OURS = {"server": "https://api.example"}  # as a cluster
START = int(time.time()) - 100
LIFE = 86400  # seconds: longer than a run of all tests, whose collection this is
JWT = jwt(iat=START, exp=START + LIFE)


class FakeBroker:
    def get(self, identity: Identity) -> Grant:
        asked.append(identity)
        held = {Kind.ACCESS: GrantedToken(Token.from_jwt(JWT, Kind.ACCESS), None)}
        return Grant(held, "vault", stale=False, now=time.time())

    def reject(self, identity: Identity, value: Secret) -> None:
        rejected.append((identity, value))


@contextmanager
def connect(settings: Settings) -> Iterator[FakeBroker]:
    yield FakeBroker()


@pytest.fixture(autouse=True)
def _a_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    asked.clear()
    rejected.clear()
    for module in (bearer, git):
        monkeypatch.setattr(module, "connect", connect)


def info(version: str, **spec: object) -> str:
    about = {"interactive": False, "cluster": OURS} | spec
    return json.dumps({"kind": "ExecCredential", "apiVersion": version, "spec": about})


def ask_bazel(uri: object, *hosts: str, **more: object) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(
        bazel.get_headers(json.dumps({"uri": uri} | more).encode(), SETTINGS, hosts)
    )
    return answer


def ask_git(*lines: str, hosts: Collection[str] = ()) -> list[str]:
    return git.get("".join(f"{line}\n" for line in [*lines, ""]).encode(), SETTINGS, hosts).splitlines()


def refusal(ask: Callable[..., object], *arguments: object, **more: object) -> QueryError:
    with pytest.raises(QueryError) as caught:
        ask(*arguments, **more)
    return caught.value


# ExecCredential


@pytest.mark.parametrize("version", VERSIONS)
def test_the_answer_is_of_the_version_that_was_asked_for(version: str) -> None:
    text = exec_credential(info(version), SETTINGS, ())
    answer = json.loads(text)
    assert (answer["apiVersion"], answer["kind"], answer.keys()) == (
        version,
        "ExecCredential",
        {"apiVersion", "kind", "status"},
    )
    assert answer["status"] == {"token": JWT, "expirationTimestamp": answer["status"]["expirationTimestamp"]}
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", answer["status"]["expirationTimestamp"]
    )  # metav1.Time
    assert parse_rfc3339(answer["status"]["expirationTimestamp"]) == pytest.approx(
        START + LIFE - SAFETY, abs=1.5
    )
    assert text.endswith("}\n")


def test_who_says_nothing_gets_v1() -> None:
    answer = json.loads(exec_credential("", SETTINGS, (), any_cluster=True))
    assert answer["apiVersion"] == "client.authentication.k8s.io/v1"


def test_what_kubernetes_would_not_say_is_refused_unquoted() -> None:
    for text in (
        info("client.authentication.k8s.io/v1alpha1"),
        info("v1"),
        "{}",
        "[]",
        "null",
        '"x"',
        "{",
        "CANARY",
        '{"apiVersion": ["client.authentication.k8s.io/v1"]}',
        '{"apiVersion": null}',
        "[" * 10_000,
        # With a byte of the environment that is not UTF-8.
        info(VERSIONS[0], note="CANARY\udcff").replace("\\udcff", "\udcff"),
    ):
        assert "CANARY" not in str(refusal(exec_credential, text, SETTINGS, (), any_cluster=True)), ascii(
            text
        )
        assert asked == [], ascii(text)


@pytest.mark.parametrize("any_cluster", [False, True])
def test_a_cluster_that_is_named_must_be_one_of_ours(any_cluster: bool) -> None:
    for server in ("https://evil.example", "http://api.example", "api.example", ""):
        text = info(VERSIONS[0], cluster={"server": server})
        assert "host" in str(refusal(exec_credential, text, SETTINGS, (), any_cluster=any_cluster)), server
        assert asked == [], server


def test_the_user_may_name_clusters() -> None:
    k8s = info(VERSIONS[0], cluster={"server": "https://k8s.example:6443", "config": None})
    assert exec_credential(k8s, SETTINGS, ["k8s.example:6443"])


MALFORMED: list[dict[str, object]] = [
    {"cluster": []},
    {"cluster": {}},
    {"cluster": "https://api.example"},
    {"cluster": 5},
    {"cluster": False},
    {"cluster": {"server": None}},
    {"cluster": {"server": 5}},
    {"cluster": {"server": ["https://api.example"]}},
    {"cluster": {"Server": "https://api.example"}},
]
NO_SPEC: list[object] = [[], "x", 5, False]


def test_a_malformed_cluster_is_refused_even_if_any_will_do() -> None:
    for text in (
        *(info(VERSIONS[0], **spec) for spec in MALFORMED),
        *(json.dumps({"apiVersion": VERSIONS[0], "spec": spec}) for spec in NO_SPEC),
    ):
        told = str(refusal(exec_credential, text, SETTINGS, (), any_cluster=True))
        assert "`spec.cluster` without the address" in told, text
        assert asked == [], text


@pytest.mark.parametrize(
    "text",
    [
        "",
        info(VERSIONS[0], cluster=None),
        json.dumps({"apiVersion": VERSIONS[0], "spec": {"interactive": False}}),
        json.dumps({"apiVersion": VERSIONS[0], "spec": None}),
        json.dumps({"apiVersion": VERSIONS[1]}),
    ],
)
def test_a_cluster_that_is_not_named_is_refused_unless_any_will_do(text: str) -> None:
    with pytest.raises(QueryError) as caught:
        exec_credential(text, SETTINGS, ())
    assert "--any-cluster" in caught.value.hint
    assert "provideClusterInfo: true" in caught.value.hint
    assert asked == []
    assert exec_credential(text, SETTINGS, (), any_cluster=True)


def test_kubernetes_query_may_be_1_mib_long_in_bytes_and_no_longer() -> None:
    def padded(size: int, char: str) -> str:
        cluster = OURS | {"certificate-authority-data": ""}
        text = info(VERSIONS[0], cluster=cluster)
        text = text.replace('data": "', 'data": "' + char * ((size - len(text)) // len(char.encode())))
        return text + " " * (size - len(text.encode()))

    for char in ("A", "\u00e9"):
        assert len(padded(MAX_EXEC_INFO, char).encode()) == MAX_EXEC_INFO == 2**20
        assert exec_credential(padded(MAX_EXEC_INFO, char), SETTINGS, ())
        with pytest.raises(QueryError):
            exec_credential(padded(MAX_EXEC_INFO + 1, char), SETTINGS, ())


# Bazel


def test_bazel_gets_a_header_and_its_end() -> None:
    answer = ask_bazel("https://api.example/some/path?query#fragment")
    assert answer == {"headers": {"Authorization": [f"Bearer {JWT}"]}, "expires": answer["expires"]}
    assert parse_rfc3339(answer["expires"]) == pytest.approx(START + LIFE - SAFETY, abs=1.5)
    assert asked == [Identity("26", "Acme")]


def test_keys_that_nobody_knows_yet_are_ignored() -> None:
    assert ask_bazel("https://api.example", future={"x": 1})["headers"]


def test_what_bazel_would_not_say_is_refused() -> None:
    for query in (
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b"\xff\xfe",
        b'{"URI": "https://api.example"}',
        b"[" * 60_000,
    ):
        refusal(bazel.get_headers, query, SETTINGS, ())
        assert asked == [], query


def test_a_query_may_be_64_kib_long_and_no_longer() -> None:
    query = json.dumps({"uri": "https://api.example"}).encode()
    assert bazel.get_headers(query.ljust(MAX_QUERY), SETTINGS, ())
    with pytest.raises(QueryError):
        bazel.get_headers(query.ljust(MAX_QUERY + 1), SETTINGS, ())
    lines = b"protocol=https\nhost=api.example\n\n"
    assert git.get(lines.ljust(MAX_QUERY), SETTINGS, ())
    with pytest.raises(QueryError):
        git.get(lines.ljust(MAX_QUERY + 1), SETTINGS, ())


# Whom the token is given to


def test_a_uri_of_klearstacks_own_host_is_served() -> None:
    for uri in (
        "https://api.example",
        "https://api.example/",
        "https://api.example?x",
        "https://api.example#x",
        "HTTPS://API.EXAMPLE/x",
        "https://api.example:443/x",
        "https://api.example/https://evil.example",
    ):
        assert ask_bazel(uri)["headers"], uri


def test_any_other_uri_is_an_error_that_does_not_quote_it() -> None:
    for uri in (
        "https://evil.example",
        "https://api.example.evil.example",
        "https://evil-api.example",
        "https://sub.api.example",
        "https://api.example:8443",
        "https://api.example@evil.example",
        "https://evil.example\\@api.example",
        "https://api.example\\.evil.example",
        "https://user@api.example",
        "https://user:pw@api.example",
        "https://api.example%2eevil.example",
        "https://api.example.",
        "https://api.example:",
        "https://api.example:443443",
        "https://ap\u0131.example",  # a dotless i
        "https://api.example\u2024evil.example",  # a dot that is none
        "https://api.example\nevil.example",
        "http://api.example",
        "https:api.example",
        "https:///api.example",
        "https://",
        "//api.example",
        "api.example",
        "grpcs://api.example",
        "ftp://api.example",
        " https://api.example",
        "https://[::1]",
        "",
        None,
        5,
        ["https://api.example"],
        {"https://api.example": 1},
    ):
        error = refusal(ask_bazel, uri)
        assert "KLEARSTACK_HELPER_HOSTS" in error.hint, uri
        assert "example" not in str(error) + error.hint, uri
        assert asked == [], uri


def test_hosts_that_the_user_names_are_served_besides_but_only_at_their_ports() -> None:
    hosts = ("Cache.example", "cask.example", "git.example:8443", "[2001:DB8:0::1]:8080", "10.0.0.1")
    for uri in (
        *("https://cache.EXAMPLE/x", "https://cache.example:443", "https://git.example:8443/x"),
        *("https://[2001:db8::1]:8080/", "https://10.0.0.1", "https://api.example"),
    ):
        assert ask_bazel(uri, *hosts)["headers"]
    folded = "https://ca\u017fk.example", "https://cas\u212a.example"  # whose small letters are s and k
    for uri in ("https://cache.example:8443", "https://git.example", "https://x.cache.example", *folded):
        with pytest.raises(QueryError):
            ask_bazel(uri, *hosts)


@pytest.mark.parametrize(
    "host",
    [
        *(
            "https://x.example",
            "*.example",
            "x.example/path",
            "a b",
            "",
            "x@y",
            "x:y",
            ".example",
            "a..b",
            ".",
        ),
        *("x:0", "x:65536", "x:99999", "x:", "[::1", "[]", "[::::]", "[1.2]", "[::1]:0", "ex\u00e4mple"),
    ],
)
def test_a_host_that_is_none_is_refused_whoever_asks(host: str) -> None:
    """Also where nothing else would look at the hosts: no cluster, another protocol, no credential."""
    jwt_line = f"password={JWT}"
    for ask in (
        lambda: ask_bazel("https://api.example", host),
        lambda: ask_bazel("http://evil.example", host),
        lambda: ask_git("protocol=https", "host=api.example", hosts=[host]),
        lambda: ask_git("protocol=ssh", "host=evil.example", hosts=[host]),
        lambda: ask_git(hosts=[host]),
        lambda: exec_credential("", SETTINGS, [host], any_cluster=True),
        lambda: exec_credential(info(VERSIONS[0]), SETTINGS, ["good.example", host]),
        lambda: erase("protocol=https", "host=api.example", jwt_line, hosts=[host]),
    ):
        with pytest.raises(UsageError, match="--host"):
            ask()
    assert (asked, rejected) == ([], [])


def test_a_url_without_tls_makes_no_host_of_klearstacks_own() -> None:
    plain = Settings(user_id="26", company_name="A", url="http://127.0.0.1:80", vault_addr=("https://v",))
    for uri in ("https://127.0.0.1:80", "http://127.0.0.1:80"):
        with pytest.raises(QueryError):
            bazel.get_headers(json.dumps({"uri": uri}).encode(), plain, ())
    # And what is no address at all is not served, as if it were equal to such a URL's.
    assert git.get(b"protocol=https\nhost=a b\n\n", plain, ()) == ""
    assert git.get(b"protocol=https\n\n", plain, ()) == ""


# git


def test_a_git_that_can_send_bearer_tokens_gets_one_its_capability_first() -> None:
    *lines, end = ask_git("capability[]=authtype", "capability[]=state", "protocol=https", "host=api.example")
    assert lines == ["capability[]=authtype", "authtype=Bearer", f"credential={JWT}", "ephemeral=1"]
    name, _, seconds = end.partition("=")
    assert name == "password_expiry_utc"
    assert int(seconds) == pytest.approx(START + LIFE - SAFETY, abs=1.5)


@pytest.mark.parametrize("more", [(), ("capability[]=state",), ("capability[]=",), ("capability=authtype",)])
def test_an_older_git_gets_a_password(more: tuple[str, ...]) -> None:
    *lines, end = ask_git(
        *more, "protocol=https", "host=api.example", "path=x.git", "wwwauth[]=Basic realm=x"
    )
    assert lines == ["username=oauth2", f"password={JWT}"]
    assert end.startswith("password_expiry_utc=")


BASIC = 'Basic realm="x"'


def test_a_server_that_names_bearer_or_has_not_been_asked_gets_a_bearer_token() -> None:
    for offers in (
        (),
        ("Bearer",),
        ('bearer realm="x"',),
        (BASIC, 'Bearer realm="x"'),
        (f'{BASIC}, BEARER realm="y", error="invalid_token"',),
        ('Basic realm="a \\" b",Bearer',),
        (BASIC, ""),  # an empty value clears the list
    ):
        lines = [f"wwwauth[]={one}" for one in offers]
        said = ask_git("capability[]=authtype", "protocol=https", "host=api.example", *lines)
        assert said[1:3] == ["authtype=Bearer", f"credential={JWT}"], offers


def test_a_server_that_does_not_name_bearer_gets_a_password() -> None:
    for offers in (
        (BASIC,),
        ("Negotiate", BASIC),
        ('Basic realm="x, Bearer y"',),
        ('Basic realm="\\", Bearer "',),
        ("Basic realm=bearer",),
        ("Bearers",),
        ("xBearer",),
        ('Basic realm="without an end, Bearer',),
        ("", BASIC),
    ):
        lines = [f"wwwauth[]={one}" for one in offers]
        said = ask_git("capability[]=authtype", "protocol=https", "host=api.example", *lines)
        assert said[:2] == ["username=oauth2", f"password={JWT}"], offers


@pytest.mark.parametrize("hostile", ['"\\' * 30_000, '"' * 60_000, "," * 60_000, ", " * 30_000, " " * 60_000])
def test_what_a_server_offers_is_looked_at_in_linear_time(hostile: str) -> None:
    started = time.process_time()
    ask_git("capability[]=authtype", "protocol=https", "host=api.example", f"wwwauth[]={hostile}")
    assert time.process_time() - started < 5  # seconds; quadratic it takes a minute


def test_lines_may_end_with_cr_lf() -> None:
    lines = ("capability[]=authtype", "protocol=https", "host=api.example", "")
    query = "".join(f"{line}\r\n" for line in (*lines, "nonsense"))
    assert git.get(query.encode(), SETTINGS, ()).splitlines()[1:3] == ["authtype=Bearer", f"credential={JWT}"]
    mixed = b"protocol=https\nhost=api.example\r\n\r\n"
    assert git.get(mixed, SETTINGS, ())
    assert (
        git.get(b"protocol=https\nhost=api.example\r\r\n\n", SETTINGS, ()) == ""
    )  # one CR is the line's end


def erase(*lines: str, hosts: Collection[str] = ()) -> None:
    git.erase("".join(f"{line}\r\n" for line in [*lines, ""]).encode(), lambda: SETTINGS, hosts)


@pytest.mark.parametrize(
    "credential", [(f"password={JWT}",), (f"credential={JWT}", "authtype=Bearer"), (f"password={JWT}", "credential=")]
)  # fmt: skip
def test_what_git_rejects_is_told_to_the_broker(credential: Collection[str]) -> None:
    erase("protocol=https", "host=api.example", "username=oauth2", *credential)
    assert rejected == [(Identity("26", "Acme"), Secret(JWT))]
    assert asked == []  # nothing is minted for it


def test_no_other_credential_is_looked_at() -> None:
    for lines in (
        ("protocol=https", "host=evil.example", f"password={JWT}"),
        ("protocol=http", "host=api.example", f"password={JWT}"),
        ("protocol=https", f"password={JWT}"),
        ("protocol=https", "host=api.example", "password=p"),
        ("protocol=https", "host=api.example", f"password={jwt('refresh')}"),
        ("protocol=https", "host=api.example"),
        (),
    ):
        erase(*lines)
        assert rejected == [], lines


def test_what_git_would_not_say_is_refused_at_erase_too() -> None:
    with pytest.raises(QueryError) as caught:
        erase("protocol=https", "CANARY")
    assert "CANARY" not in str(caught.value)


def test_a_user_name_that_git_has_already_stays() -> None:
    assert ask_git("protocol=https", "host=api.example", "username=bob")[0] == "username=bob"


def test_for_another_host_git_gets_nothing_and_asks_on() -> None:
    for lines in (
        ("protocol=https", "host=evil.example"),
        ("protocol=https", "host=api.example:8443"),
        ("protocol=https", "host=api.example/path"),
        ("protocol=https", "host="),
        ("protocol=https",),
        ("protocol=http", "host=api.example"),
        ("protocol=ssh", "host=api.example"),
        ("host=api.example",),
        ("protocol=https", "", "host=api.example"),
        (),
    ):
        assert ask_git(*lines) == [], lines
        assert asked == [], lines


def test_a_host_that_the_user_named_is_served_to_git() -> None:
    assert ask_git("protocol=https", "host=git.example:8443", hosts=["git.example:8443"])


def test_what_stands_after_the_empty_line_is_not_git_s() -> None:
    assert ask_git("protocol=https", "host=api.example", "", "nonsense")
    assert git.get(b"protocol=https\nhost=api.example", SETTINGS, ())


@pytest.mark.parametrize("query", [b"nonsense\n\n", b"protocol=https\nCANARY\n\n", b"\xff\xfe\n"])
def test_what_git_would_not_say_is_refused_unquoted(query: bytes) -> None:
    with pytest.raises(QueryError) as caught:
        git.get(query, SETTINGS, ())
    assert "CANARY" not in str(caught.value)


@given(st.binary())
def test_no_query_does_anything_but_be_answered_or_refused(query: bytes) -> None:
    for respond in (git.get, bazel.get_headers):
        with suppress(QueryError):
            assert JWT not in respond(query, SETTINGS, ())


# The end that is told


@given(
    life=st.integers(1, 10_000_000),
    used=st.floats(0, 1),
    skew=st.floats(-1e6, 1e6),
)
def test_the_end_is_before_the_true_one_but_never_past(life: int, used: float, skew: float) -> None:
    token = Token.from_jwt(jwt(iat=NOW, exp=NOW + life), Kind.ACCESS)
    now = NOW + used * life
    here = now + skew
    end = expiry_for_caller(token, now, here)
    assert end >= here + 1  # by the caller's clock, whatever that says
    left_told, left = end - here, NOW + life - now
    assert left_told <= max(2, left - min(SAFETY, life / 2))  # however wrong that clock goes
    assert end <= max(here + 2, NOW + life - min(SAFETY, life / 2))


def test_half_a_minute_is_the_margin_but_half_of_a_short_life() -> None:
    assert expiry_for_caller(Token.from_jwt(jwt(iat=NOW, exp=NOW + 900), Kind.ACCESS), NOW, NOW) == NOW + 870
    assert expiry_for_caller(Token.from_jwt(jwt(iat=NOW, exp=NOW + 40), Kind.ACCESS), NOW, NOW) == NOW + 20


def test_a_host_whose_clock_is_behind_is_told_an_earlier_end() -> None:
    token = Token.from_jwt(jwt(iat=NOW, exp=NOW + 900), Kind.ACCESS)
    assert expiry_for_caller(token, NOW, NOW - 600) == NOW - 600 + 870
    assert expiry_for_caller(token, NOW, NOW + 600) == NOW + 870
    assert expiry_for_caller(token, NOW, NOW + 5000) == NOW + 5001


# On the command line


@pytest.fixture
def helper(run: Run, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Done]:
    """`helper` with these arguments, whose caller sends this query."""
    for name, text in (
        ("KLEARSTACK_USER_ID", "26"),
        ("KLEARSTACK_COMPANY_NAME", "Acme"),
        ("KLEARSTACK_URL", "https://api.example/base"),
        ("VAULT_ADDR", "https://vault.example"),
        ("VAULT_TOKEN", "hvs.x"),
        ("KUBERNETES_EXEC_INFO", info(VERSIONS[0])),
    ):
        monkeypatch.setenv(name, text)

    def call(*argv: str, query: str = "") -> Done:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(query.encode())))
        return run("helper", *argv)

    return call


def test_each_protocol_is_answered_on_standard_output(helper: Callable[..., Done]) -> None:
    done = helper("bazel", "get", query='{"uri": "https://api.example/x"}')
    assert json.loads(done.out)["headers"] == {"Authorization": [f"Bearer {JWT}"]}
    done = helper("git", "get", query="protocol=https\nhost=api.example\n\n")
    assert JWT in done.out
    done = helper("exec-credential")
    assert json.loads(done.out)["status"]["token"] == JWT


def test_kubernetes_may_be_answered_for_any_cluster(
    helper: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBERNETES_EXEC_INFO")
    done = helper("exec-credential")
    assert (done.code, done.out, "pass --any-cluster" in done.err, asked) == (76, "", True, [])
    done = helper("--any-cluster", "exec-credential")
    assert json.loads(done.out)["status"]["token"] == JWT
    for protocol in ("bazel", "git"):
        assert helper("--any-cluster", protocol, "get").code == 64


@pytest.mark.parametrize("operation", ["get", "store", "erase", "capability", "new"])
def test_hosts_of_the_environment_that_are_none_are_refused_in_every_operation(
    helper: Callable[..., Done], monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    monkeypatch.setenv("KLEARSTACK_HELPER_HOSTS", "good.example https://bad.example")
    for arguments in (("git", operation), ("bazel", operation), ("exec-credential",)):
        done = helper(*arguments, query="protocol=https\nhost=api.example\n\n")
        assert (done.code, done.out, asked) == (64, "", [])
        assert "KLEARSTACK_HELPER_HOSTS" in done.err
        assert "bad.example" not in done.err


def test_a_rejection_that_fails_is_one_line_that_quotes_nothing(
    helper: Callable[..., Done], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> NoReturn:
        raise StoreError("Vault is sealed.")

    caplog.set_level(logging.DEBUG)  # of all loggers
    monkeypatch.setattr(FakeBroker, "reject", fail)
    query = f"protocol=https\nhost=api.example\npassword={JWT}\n\n"
    assert helper("git", "erase", query=query) == (69, "", "klearstack-vault: Vault is sealed.\n")
    monkeypatch.delenv("KLEARSTACK_URL")
    done = helper("git", "erase", query=query)
    assert (done.code, done.out, done.err.count("\n")) == (78, "", 1)
    assert JWT not in done.err + caplog.text


def test_git_may_erase_on_the_command_line(helper: Callable[..., Done]) -> None:
    query = f"protocol=https\nhost=api.example\npassword={JWT}\n\n"
    assert helper("git", "erase", query=query) == (0, "", "")
    assert [one.reveal() for _, one in rejected] == [JWT]


def test_git_is_told_what_we_can_do_and_we_keep_nothing(helper: Callable[..., Done]) -> None:
    assert helper("git", "capability") == (0, git.CAPABILITY, "")
    for operation in ("store", "erase"):
        assert helper("git", operation, query="password=CANARY\n") == (0, "", "")
    assert asked == []


@pytest.mark.parametrize(
    "argv",
    [("bazel",), ("bazel", "store"), ("exec-credential", "get"), ("bazel", "get", "--user-id", "-")],
    ids=" ".join,
)
def test_no_other_operation_is_answered(helper: Callable[..., Done], argv: Collection[str]) -> None:
    done = helper(*argv)
    assert (done.code, done.out, asked) == (64, "", [])
