"""No response of a server at Vault's or the endpoint's address leads to an internal error."""

import io
import json
import time
from collections.abc import Callable, Mapping
from email.message import Message
from http.client import HTTPMessage
from typing import Any, NoReturn

import pytest
import requests
import urllib3
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support.fakes import ACME, jwt
from support.texts import CHARACTERS

from vault_plugin.endpoint.client import EndpointSource
from vault_plugin.endpoint.connections import Adapter
from vault_plugin.errors import KlearstackVaultError, MountMissingError, SourceBusyError, StoreError
from vault_plugin.network.tls import Tls
from vault_plugin.settings import Settings
from vault_plugin.timing.clock import ServerClock
from vault_plugin.timing.deadline import Deadline
from vault_plugin.tokens.identity import Identity
from vault_plugin.tokens.jwt import Kind, Token
from vault_plugin.tokens.place import Place
from vault_plugin.tokens.secret import Secret
from vault_plugin.tokens.stored import PathState
from vault_plugin.vault import schema
from vault_plugin.vault.client import VaultClient
from vault_plugin.vault.connections import Connections, Response
from vault_plugin.vault.reader import WarmReader
from vault_plugin.vault.record import MANAGED_BY
from vault_plugin.vault.store import VaultStore
from vault_plugin.vault.transport import Transport

FUZZ = settings(suppress_health_check=list(HealthCheck))

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(CHARACTERS, max_size=8)
    | st.sampled_from(
        ["", "2", "3", "kv", "kv/", "2026-11-26T00:00:00Z", "0001-01-01T00:00:00+23:59", 10**400]
    ),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["data", "metadata", "errors", "auth", "options", "version", "client_token", "x"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)
DEEP = b'{"data":' * 5_000 + b"1" + b"}" * 5_000  # which some versions of Python read
DEEPER = b"[" * 30_000 + b"]" * 30_000  # which none reads
TEXTS = st.text(st.characters(max_codepoint=255), max_size=12)
HEADERS = st.dictionaries(
    st.sampled_from(["Date", "Location", "X-Vault-Index", "Retry-After", "Content-Length", "Content-Type"]),
    TEXTS
    | st.sampled_from(
        [
            "application/json",
            "\u00b2",
            "9" * 5000,
            "-1",
            "0x1",
            "http://[::1",
            "Thu, 26 Nov 2026 00:00:00 GMT",
            "a\nb",
        ]
    ),
)
STATUSES = st.sampled_from(
    [200, 201, 204, 206, 300, 307, 400, 401, 403, 404, 405, 412, 418, 429, 451, 500, 501, 503]
)
TOKEN = Token.from_jwt(jwt(exp=int(time.time()) + 900, iat=int(time.time())), Kind.ACCESS)


def mutated(true: Any) -> st.SearchStrategy[Any]:
    """The true response with one part of it replaced or left out."""
    if not isinstance(true, dict) or not true:
        return JSON
    return JSON | st.sampled_from(sorted(true)).flatmap(
        lambda key: (
            st.just({name: part for name, part in true.items() if name != key})
            | mutated(true[key]).map(lambda part: true | {key: part})
        )
    )


METADATA = {
    "version": 1,
    "created_time": "2026-11-26T00:00:00.1Z",
    "deletion_time": "",
    "destroyed": False,
    "custom_metadata": dict(MANAGED_BY),
}
SECRET = {
    "access_token": TOKEN.value.reveal(),
    "user_id": "26",
    "company_name": "Acme",
    "issued_at": "2026-11-26T00:00:00Z",
    "release_version": "1",
    "issued_by": "https://api.example",
}
V2 = {"data": {"metadata": METADATA, "data": SECRET}}
V1 = {"data": SECRET}
MOUNT = {"data": {"type": "kv", "path": "secret/", "options": {"version": "2"}}}
LOGIN = {"auth": {"client_token": "hvs.x"}}
WRITTEN = {"data": METADATA}
WRAPPED = {"wrap_info": {"token": "hvs.x", "ttl": 5, "creation_time": "2026-11-26T00:00:00Z"}}
REFUSED = {"errors": ["1 error occurred: permission denied"], "data": {"metadata": METADATA, "data": None}}
VAULTS = st.one_of(*(mutated(one) for one in (V2, V1, MOUNT, LOGIN, WRITTEN, REFUSED, WRAPPED)))
BODIES = (
    VAULTS.map(lambda answer: json.dumps(answer).encode())
    | st.binary(max_size=40)
    | st.sampled_from([DEEP, DEEPER])
)


def message(headers: dict[str, str]) -> HTTPMessage:
    made = HTTPMessage()
    for name, text in ({"Content-Type": "application/json"} | headers).items():
        Message.__setitem__(made, name, text.replace("\n", "\n "))
    return made


class Scripted(Connections):
    """Connections to a node that gives these responses, the last of them again and again."""

    def __init__(self, *replies: tuple[int, dict[str, str], bytes]) -> None:
        super().__init__(["https://vault.example"], Tls(None))
        self._replies = list(replies)

    def exchange(
        self, node: str, method: str, path: str, headers: Mapping[str, str], body: bytes | None
    ) -> Response:
        for text in headers.values():  # as http.client does it, whose complaint is an internal error
            assert not set("\r\n") & set(str(text).replace("\n ", ""))
        status, found, content = self._replies.pop(0) if len(self._replies) > 1 else self._replies[0]
        return Response(status, message(found), content, time.monotonic())


def scripted(*replies: tuple[int, dict[str, str], bytes]) -> Transport:
    """A transport over such connections."""
    transport = Transport(["https://vault.example"], ServerClock(), timeout=5, sleep=lambda _: None)
    transport._connections = Scripted(*replies)
    return transport


REPLY = st.tuples(STATUSES, HEADERS, BODIES)
FOUND_MOUNT: tuple[int, dict[str, str], bytes] = (200, {}, json.dumps(MOUNT).encode())
FOUND_V1: tuple[int, dict[str, str], bytes] = (
    200,
    {},
    json.dumps({"data": {**MOUNT["data"], "options": None}}).encode(),
)
PLACE = Place.of(ACME)
ENOUGH: dict[str, Any] = {
    "user_id": "26",
    "company_name": "Acme",
    "url": "https://api.example",
    "vault_addr": ("https://vault.example",),
}


def store(*replies: tuple[int, dict[str, str], bytes], auth: str = "token") -> VaultStore:
    transport = scripted(*replies)
    made: Any = Settings(
        **ENOUGH,
        auth=auth,
        auth_role="r",
        vault_token=Secret("x"),
        vault_jwt=Secret("j"),
    )
    return VaultStore(VaultClient(transport, made), ServerClock(), "secret", "p")


def documented(call: Callable[[], object]) -> None:
    """It returns, or raises an error with a documented exit code."""
    failure: KlearstackVaultError | None = None
    try:
        call()
    except KlearstackVaultError as exc:
        failure = exc
    assert failure is None or failure.exit_code != 70


@FUZZ
@given(REPLY, st.sampled_from([FOUND_MOUNT, FOUND_V1, None]))
def test_no_response_of_vault_to_a_read_is_an_internal_error(
    reply: tuple[int, dict[str, str], bytes], first: tuple[int, dict[str, str], bytes] | None
) -> None:
    replies = (first, reply) if first else (reply,)
    documented(lambda: store(*replies).read(ACME, Kind.ACCESS, Deadline(0.005)))


@FUZZ
@given(REPLY, REPLY, st.sampled_from([FOUND_MOUNT, FOUND_V1]))
@example((200, {}, b'{"data": {"keys": ["a/", 5]}}'), FOUND_MOUNT, FOUND_V1)
@example((404, {}, b'{"errors": []}'), (200, {}, b'{"data": {"custom_metadata": 5}}'), FOUND_MOUNT)
@example((404, {}, b'{"errors": []}'), (200, {}, b'{"data": 5}'), FOUND_MOUNT)
def test_no_response_of_vault_to_a_listing_or_a_deletion_is_an_internal_error(
    one: tuple[int, dict[str, str], bytes],
    other: tuple[int, dict[str, str], bytes],
    first: tuple[int, dict[str, str], bytes],
) -> None:
    documented(lambda: store(first, one).inventory(Deadline(5)).companies(Deadline(0.005)))
    documented(lambda: store(first, one).inventory(Deadline(5)).look(PLACE, Kind.ACCESS, Deadline(0.005)))
    documented(
        lambda: store(first, one, other).inventory(Deadline(5)).delete(PLACE, Kind.ACCESS, Deadline(0.005))
    )


def test_a_mount_that_is_removed_before_a_listing_is_missing() -> None:
    unrouted = b'{"errors": ["no handler for route \\"secret/metadata/p\\". route entry not found."]}'
    with pytest.raises(MountMissingError):
        store(FOUND_MOUNT, (404, {}, unrouted)).inventory(Deadline(5)).companies(Deadline(5))


@FUZZ
@given(REPLY, REPLY)
def test_no_response_of_vault_to_a_write_is_an_internal_error(
    one: tuple[int, dict[str, str], bytes], other: tuple[int, dict[str, str], bytes]
) -> None:
    made = store(FOUND_MOUNT, (204, {}, b""), one, other)
    documented(lambda: made.write(ACME, TOKEN, "1", PathState(), Deadline(0.005)))


@FUZZ
@given(REPLY)
@example((204, {}, b""))
def test_no_response_of_vault_to_a_wrapping_is_an_internal_error(
    reply: tuple[int, dict[str, str], bytes],
) -> None:
    documented(lambda: store(reply).wrap({}, 5, lambda: 900.0, Deadline(0.005)))


@FUZZ
@given(REPLY, REPLY)
@example((200, {}, json.dumps({"auth": {"client_token": "hvs.x\n"}}).encode()), FOUND_MOUNT)
@example((200, {}, json.dumps({"auth": {"client_token": 5}}).encode()), FOUND_MOUNT)
def test_no_response_of_vault_to_a_login_is_an_internal_error(
    login: tuple[int, dict[str, str], bytes], then: tuple[int, dict[str, str], bytes]
) -> None:
    made = store(login, then, auth="jwt")
    documented(lambda: made.read(ACME, Kind.ACCESS, Deadline(0.005)))


@FUZZ
@given(REPLY, REPLY)
@example((200, {}, b'{"data": null}'), (200, {}, b'{"data": null}'))
def test_the_warm_reader_accepts_every_response(
    one: tuple[int, dict[str, str], bytes], other: tuple[int, dict[str, str], bytes]
) -> None:
    reader = WarmReader(scripted(one, other), Secret("x"), None, "secret", "p")
    assert (
        reader.read(Identity("26", "Acme"), Kind.ACCESS, Deadline(5)) is None or b"eyJ" in one[2] + other[2]
    )


def test_the_warm_reader_says_whether_vault_failed_at_its_newest_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    transport = scripted((500, {}, b""), (429, {}, b'{"errors": ["quota"]}'), (404, {}, b'{"errors": []}'))
    reader, seen = WarmReader(transport, Secret("x"), None, "secret", "p"), []

    def look() -> None:
        assert reader.read(Identity("26", "Acme"), Kind.ACCESS, Deadline(5)) is None
        seen.append(reader.blind)

    def reset(*_: object) -> NoReturn:
        raise ConnectionResetError

    for _ in range(3):
        look()
    monkeypatch.setattr(Scripted, "exchange", reset)
    look()
    assert seen == [True, True, False, True]


@pytest.mark.parametrize(
    "token", ["hvs.x\n", "hvs.x\r\nX-Evil: 1", "", 5, None, ["x"], "\u00e9", "a b"], ids=ascii
)
def test_a_login_token_that_is_no_header_value_is_reported(token: object) -> None:
    made = store((200, {}, json.dumps({"auth": {"client_token": token}}).encode()), auth="jwt")
    with pytest.raises(StoreError, match="contains no token"):
        made.read(ACME, Kind.ACCESS, Deadline(5))


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff", DEEPER], ids=["empty", "HTML", "no UTF-8", "deep"])
def test_what_is_no_json_is_malformed(body: bytes) -> None:
    with pytest.raises(schema.MalformedError):
        schema.parsed(body)


@pytest.mark.parametrize("errors", [5, "x", {"a": 1}, [5, None, ["x"]], None])
def test_the_errors_in_a_response_may_be_anything(errors: object) -> None:
    refused: tuple[int, dict[str, str], bytes] = (403, {}, json.dumps({"errors": errors}).encode())
    with pytest.raises(StoreError, match="denied"):
        store(refused).read(ACME, Kind.ACCESS, Deadline(5))


@pytest.mark.parametrize(
    "change",
    [
        {"version": True},
        {"version": -1},
        {"version": "1"},
        {"created_time": ""},
        {"created_time": 5},
        {"deletion_time": None},
        {"deletion_time": "soon"},
        {"custom_metadata": "x"},
        {"custom_metadata": {"a": 5}},
    ],
    ids=str,
)
def test_metadata_must_have_the_shape_that_vault_gives_it(change: dict[str, Any]) -> None:
    with pytest.raises(schema.MalformedError):
        schema.version_metadata(METADATA | change)
    assert schema.version_metadata(METADATA | {"custom_metadata": None})["custom_metadata"] == {}
    body = json.dumps({"data": {"metadata": METADATA | change, "data": SECRET}}).encode()
    with pytest.raises(StoreError, match="not in Vault's form"):
        store(FOUND_MOUNT, (200, {}, body)).read(ACME, Kind.ACCESS, Deadline(5))


def test_an_unknown_kv_version_is_reported() -> None:
    body = json.dumps({"data": {**MOUNT["data"], "options": {"version": "3"}}}).encode()
    with pytest.raises(StoreError, match="not in Vault's form"):
        store((200, {}, body)).read(ACME, Kind.ACCESS, Deadline(5))


# The endpoint

PAIR = {
    "access_token": TOKEN.value.reveal(),
    "refresh_token": jwt("refresh", exp=int(time.time()) + 86400, iat=int(time.time())),
    "release_version": "1",
}
PAIRS = (
    mutated(PAIR).map(lambda answer: json.dumps(answer).encode())
    | st.binary(max_size=40)
    | st.sampled_from([DEEP, DEEPER])
)
CLAIMS = st.dictionaries(st.sampled_from(["exp", "iat", "jti", "user_id", "token_type"]), JSON)


def answered(status: int, headers: dict[str, str], body: bytes) -> Callable[..., requests.Response]:
    """What an adapter's `send` gives for that response, made by the libraries themselves."""

    def send(request: requests.PreparedRequest, **_: object) -> requests.Response:
        raw = urllib3.HTTPResponse(
            body=io.BytesIO(body),
            headers={name: text.replace("\n", "") for name, text in headers.items()},
            status=status,
            preload_content=False,
        )
        adapter = requests.adapters.HTTPAdapter()
        return adapter.build_response(request, raw)

    return send


@FUZZ
@given(STATUSES | st.just(200), HEADERS, PAIRS)
@example(200, {"Content-Length": "\u00b2"}, json.dumps(PAIR).encode())
@example(200, {"Content-Length": "9" * 5000}, json.dumps(PAIR).encode())
def test_no_answer_of_the_endpoints_is_an_internal_error(
    status: int, headers: dict[str, str], body: bytes
) -> None:
    asked(status, headers, body)


@FUZZ
@given(CLAIMS, CLAIMS)
def test_no_claim_of_a_token_is_an_internal_error(one: dict[str, Any], other: dict[str, Any]) -> None:
    pair = {"access_token": jwt(**one), "refresh_token": jwt("refresh", **other)} if one else {}
    asked(200, {}, json.dumps(pair).encode())


def asked(status: int, headers: dict[str, str], body: bytes) -> None:
    source = EndpointSource("https://api.example", ServerClock(), timeout=5, sleep=lambda _: None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Adapter, "send", staticmethod(answered(status, headers, body)))
        documented(lambda: source.obtain(ACME, Deadline(5)))


def test_whoever_asks_for_all_identities_is_told_at_once_that_the_endpoint_is_busy() -> None:
    def sleep(_: float) -> None:
        pytest.fail("it waited")

    one = EndpointSource("https://api.example", ServerClock(), timeout=5, sleep=sleep, waits_when_busy=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Adapter, "send", staticmethod(answered(429, {"Retry-After": "0"}, b"")))
        with pytest.raises(SourceBusyError):
            one.obtain(ACME, Deadline(5))
