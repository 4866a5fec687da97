"""The simulated endpoint, over real HTTP: what the published samples send gets tokens, each fault looks as named."""

import ast
import base64
import contextlib
import hashlib
import hmac
import http.client
import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from support.waiting import until

from vault_plugin.demo.faults import FAULTS
from vault_plugin.demo.simulator import Simulator
from vault_plugin.settings.values import ENDPOINT_PATH as PATH

# --- The code samples of the endpoint's page -----------------------------------------------------------------------
# https://klearstack.gitbook.io/klearstack-api-documentation, "Get Access Token From UserID". The page has five: Shell,
# Python, Java, Nodejs and Javascript. Three run here as they stand, only the Python one got its indentation back. Of
# Java's and the browser's we keep the bytes that they were seen to send. A newer wording of the page has other samples.

SHELL = r"""curl -X POST URL/access/klearstack/getaccesstokenfromuserid \
-H "Content-Type: application/x-www-form-urlencoded" \
-d "user_id=Replace_User_id_Here&company_name=Replace_Company_Name_Here"
"""

NEWER_SHELL = r"""curl --location 'URL/access/klearstack/getaccesstokenfromuserid' \
--form 'user_id="Replace_User_id_Here"' \
--form 'company_name="Replace_Company_Name_Here"'
"""

PYTHON = """import requests
# API URL
url = "URL/access/klearstack/getaccesstokenfromuserid"
# Request payload
data = {
'user_id': 'Replace_User_id_Here',
'company_name': 'Replace_Company_Name_Here'
}
# Make the POST request
response = requests.post(url, data=data)
# Print the response
if response.status_code == 200:
    print(response.json())
else:
    print("Error:", response.text)
"""

NEWER_PYTHON = """import requests

url = "URL/access/klearstack/getaccesstokenfromuserid"

payload = {'user_id': 'Replace_User_id_Here',
'company_name': 'Replace_Company_Name_Here'}
files=[

]
headers = {}

response = requests.request("POST", url, headers=headers, data=payload, files=files)

print(response.text)
"""

# It declares urlencoded, but `request` replaces that header: multipart/form-data with a boundary arrives.
NODEJS = """var request = require('request');
const form_data = {
'user_id': 'Replace_User_id_Here',
'company_name': 'Replace_Company_Name_Here',
};
const options = {
url: 'URL/access/klearstack/getaccesstokenfromuserid',
formData: form_data,
headers: {
'Content-Type': 'application/x-www-form-urlencoded'
}
};
request.post(options, function(err, httpResponse, body) {
if (err) {
console.error('Request failed:', err);
return;
}
console.log('Response:', body);
});
"""

# The Java sample (FormBody), as okhttp 3.13 sends it.
OKHTTP = (
    b"POST /access/klearstack/getaccesstokenfromuserid HTTP/1.1\r\n"
    b"Content-Type: application/x-www-form-urlencoded\r\n"
    b"Content-Length: 54\r\n"
    b"Host: 127.0.0.1:8080\r\n"
    b"Connection: Keep-Alive\r\n"
    b"Accept-Encoding: gzip\r\n"
    b"User-Agent: okhttp/3.13.1\r\n"
    b"\r\n"
    b"user_id=26&company_name=Acme%20%26%20S%C3%B6hne%20Corp"
)

# The newer Java sample (MultipartBody), as okhttp 3.13 sends it.
OKHTTP_MULTIPART = (
    b"POST /access/klearstack/getaccesstokenfromuserid HTTP/1.1\r\n"
    b"Content-Type: multipart/form-data; boundary=1d146ca0-25d0-4d84-86d9-f42fa5244db7\r\n"
    b"Content-Length: 290\r\n"
    b"Host: 127.0.0.1:8080\r\n"
    b"Connection: Keep-Alive\r\n"
    b"Accept-Encoding: gzip\r\n"
    b"User-Agent: okhttp/3.13.1\r\n"
    b"\r\n"
    b"--1d146ca0-25d0-4d84-86d9-f42fa5244db7\r\n"
    b'Content-Disposition: form-data; name="user_id"\r\n'
    b"Content-Length: 2\r\n"
    b"\r\n"
    b"26\r\n"
    b"--1d146ca0-25d0-4d84-86d9-f42fa5244db7\r\n"
    b'Content-Disposition: form-data; name="company_name"\r\n'
    b"Content-Length: 18\r\n"
    b"\r\n"
    b"Acme & S\xc3\xb6hne Corp\r\n"
    b"--1d146ca0-25d0-4d84-86d9-f42fa5244db7--\r\n"
)

# The Javascript sample (FormData, XMLHttpRequest), as Chromium 156 sends it from a page of the same origin.
BROWSER = (
    b"POST /access/klearstack/getaccesstokenfromuserid HTTP/1.1\r\n"
    b"Host: 127.0.0.1:8080\r\n"
    b"Connection: keep-alive\r\n"
    b"Content-Length: 259\r\n"
    b'sec-ch-ua-platform: "Linux"\r\n'
    b"Authorization: Basic UkVQTEFDRV9BUElfS0VZOg==\r\n"
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
    b"HeadlessChrome/156.0.8078.79 Safari/537.36\r\n"
    b"Content-Type: multipart/form-data; boundary=----WebKitFormBoundarynf8VfvrtCn0nvBtx\r\n"
    b"Accept: */*\r\n"
    b"Origin: http://127.0.0.1:8080\r\n"
    b"Sec-Fetch-Mode: cors\r\n"
    b"Referer: http://127.0.0.1:8080/\r\n"
    b"Accept-Encoding: gzip, deflate, br, zstd\r\n"
    b"\r\n"
    b"------WebKitFormBoundarynf8VfvrtCn0nvBtx\r\n"
    b'Content-Disposition: form-data; name="user_id"\r\n'
    b"\r\n"
    b"26\r\n"
    b"------WebKitFormBoundarynf8VfvrtCn0nvBtx\r\n"
    b'Content-Disposition: form-data; name="company_name"\r\n'
    b"\r\n"
    b'Acme "&" S\xc3\xb6hne Corp\r\n'
    b"------WebKitFormBoundarynf8VfvrtCn0nvBtx--\r\n"
)

# --- Tools ---------------------------------------------------------------------------------------------------------

FORM = "user_id=26&company_name=Acme"
URLENCODED = "application/x-www-form-urlencoded"
PATIENCE = 10  # seconds before a test calls it a hang


class Answer(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def connect(endpoint: Simulator) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", port_of(endpoint), timeout=PATIENCE)


def port_of(endpoint: Simulator) -> int:
    return int(endpoint.url.rsplit(":", 1)[1])


def ask(
    connection: http.client.HTTPConnection,
    body: str | bytes = FORM,
    content_type: str = URLENCODED,
    *,
    method: str = "POST",
    path: str = PATH,
) -> Answer:
    connection.request(method, path, body, {"Content-Type": content_type})
    response = connection.getresponse()
    return Answer(response.status, response.headers, response.read())


def post(endpoint: Simulator, body: str | bytes = FORM, content_type: str = URLENCODED) -> Answer:
    with contextlib.closing(connect(endpoint)) as connection:
        return ask(connection, body, content_type)


def get(endpoint: Simulator, path: str) -> Answer:
    with contextlib.closing(connect(endpoint)) as connection:
        return ask(connection, "", method="GET", path=path)


def send(endpoint: Simulator, request: bytes) -> Answer:
    with socket.create_connection(("127.0.0.1", port_of(endpoint)), timeout=PATIENCE) as plug:
        plug.sendall(request)
        with http.client.HTTPResponse(plug) as response:
            response.begin()
            return Answer(response.status, response.headers, response.read())


def raw_request(form: str = FORM) -> bytes:
    return (
        f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {URLENCODED}\r\n"
        f"Content-Length: {len(form)}\r\n\r\n{form}"
    ).encode()


def decode(segment: str) -> bytes:
    return base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))


def claims_of(token: str) -> dict[str, Any]:
    claims: dict[str, Any] = json.loads(decode(token.split(".")[1]))
    return claims


def assert_is_a_pair_for_26(pair: dict[str, str]) -> None:
    assert list(pair) == ["refresh_token", "access_token", "release_version"]
    for kind in ("refresh", "access"):
        claims = claims_of(pair[f"{kind}_token"])
        assert (claims["token_type"], claims["user_id"]) == (kind, 26)


def filled_in(sample: str, endpoint: Simulator) -> str:
    return (
        sample.replace("URL/access", f"{endpoint.url}/access")
        .replace("Replace_User_id_Here", "26")
        .replace("Replace_Company_Name_Here", "Acme Corp")
    )


def output_of(*command: str, cwd: Path | None = None) -> str:
    environment = {**os.environ, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    return subprocess.run(
        command, check=True, cwd=cwd, env=environment, timeout=60, stdout=subprocess.PIPE, text=True
    ).stdout


@pytest.fixture
def endpoint() -> Iterator[Simulator]:
    with Simulator() as simulator:
        yield simulator


@pytest.fixture(scope="session")
def request_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which Node.js finds the `request` package; it is retired, so its last version will stay the last."""
    for tool in ("node", "npm"):
        if shutil.which(tool) is None:
            pytest.skip(f"the Node.js sample needs {tool}, which is not installed")
    folder = tmp_path_factory.mktemp("nodejs")
    done = subprocess.run(
        [
            "npm",
            "install",
            "--no-audit",
            "--no-fund",
            "--ignore-scripts",
            "--fetch-retries=1",
            "request@2.88.2",
        ],
        check=False,
        cwd=folder,
        timeout=300,
        capture_output=True,
        text=True,
    )
    silence = re.search(r"ENOTFOUND|EAI_AGAIN|ECONN\w+|ETIMEDOUT|ENETUNREACH|\bE50[234]\b", done.stderr)
    if done.returncode and silence:
        pytest.skip(f"the Node.js sample needs npm's registry, which does not answer: {silence[0]}")
    assert done.returncode == 0, done.stderr
    return folder


# --- What the samples send gets tokens -----------------------------------------------------------------------------


@pytest.mark.parametrize("sample", [SHELL, NEWER_SHELL], ids=["urlencoded", "newer: multipart"])
def test_the_shell_sample_gets_tokens(endpoint: Simulator, sample: str) -> None:
    assert_is_a_pair_for_26(json.loads(output_of("sh", "-c", filled_in(sample, endpoint))))


def test_the_python_sample_gets_tokens(endpoint: Simulator) -> None:
    printed = output_of(sys.executable, "-c", filled_in(PYTHON, endpoint))
    assert_is_a_pair_for_26(ast.literal_eval(printed))


def test_the_newer_python_sample_gets_tokens(endpoint: Simulator) -> None:
    assert_is_a_pair_for_26(json.loads(output_of(sys.executable, "-c", filled_in(NEWER_PYTHON, endpoint))))


def test_the_nodejs_sample_gets_tokens(endpoint: Simulator, request_package: Path) -> None:
    printed = output_of("node", "--eval", filled_in(NODEJS, endpoint), cwd=request_package)
    assert_is_a_pair_for_26(json.loads(printed.removeprefix("Response: ")))


@pytest.mark.parametrize("request_", [OKHTTP, OKHTTP_MULTIPART], ids=["urlencoded", "newer: multipart"])
def test_the_java_sample_gets_tokens(endpoint: Simulator, request_: bytes) -> None:
    assert_is_a_pair_for_26(send(endpoint, request_).json())


def test_the_browser_sample_gets_tokens_and_its_authorization_is_ignored(endpoint: Simulator) -> None:
    answer = send(endpoint, BROWSER)
    assert answer.status == 200
    assert_is_a_pair_for_26(answer.json())


# --- The contract --------------------------------------------------------------------------------------------------


def multipart(**fields: str) -> tuple[bytes, str]:
    parts = "".join(
        f'--edge\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    )
    return f"{parts}--edge--\r\n".encode(), "multipart/form-data; boundary=edge"


@pytest.mark.parametrize("user", ["Jürgen Öz", "a+b&c=d", "two\r\nlines", "007x", "“26”"])
def test_both_encodings_carry_any_text(endpoint: Simulator, user: str) -> None:
    def minted_for(body: bytes, content_type: str) -> object:
        return claims_of(post(endpoint, body, content_type).json()["access_token"])["user_id"]

    urlencoded = "&".join(
        f"{name}={''.join(f'%{byte:02X}' for byte in value.encode())}"
        for name, value in {"user_id": user, "company_name": "Acme"}.items()
    )
    assert minted_for(urlencoded.encode(), URLENCODED) == user
    assert minted_for(*multipart(user_id=user, company_name="Acme")) == user


@pytest.mark.parametrize(
    ("form", "named", "not_named"),
    [
        ("user_id=26", ["Company Name"], ["User Id"]),
        ("user_id=26&company_name=", ["Company Name"], ["User Id"]),
        ("company_name=Acme", ["User Id"], ["Company Name"]),
        ("user_id=&company_name=Acme", ["User Id"], ["Company Name"]),
        ("", ["User Id", "Company Name"], []),
        ('{"user_id": "26", "company_name": "Acme"}', ["User Id", "Company Name"], []),
    ],
)
def test_a_missing_parameter_is_named_in_the_documented_500(
    endpoint: Simulator, form: str, named: list[str], not_named: list[str]
) -> None:
    answer = post(endpoint, form)
    error = answer.json()["error"]
    assert answer.status == 500
    assert error.startswith("One or Many Required parameters from ")
    assert "must be missing, E.g error “" in error
    assert all(f"“{title}”" in error for title in named)
    assert not any(title.lower() in error.lower() for title in not_named)
    assert (endpoint.mints, endpoint.requests) == (0, 1)


@pytest.mark.parametrize(
    ("fields", "named"),
    [({"user_id": "26"}, "Company Name"), ({"company_name": "Acme", "user_id": ""}, "User Id")],
)
def test_a_parameter_missing_from_multipart_is_named(
    endpoint: Simulator, fields: dict[str, str], named: str
) -> None:
    answer = post(endpoint, *multipart(**fields))
    assert answer.status == 500
    assert answer.json()["error"].endswith(f"E.g error “{named}”")


@pytest.mark.parametrize("content_type", ["multipart/form-data", "multipart/form-data; boundary=other"])
def test_multipart_without_its_boundary_holds_no_parameter(endpoint: Simulator, content_type: str) -> None:
    body, _ = multipart(user_id="26", company_name="Acme")
    assert post(endpoint, body, content_type).status == 500


def test_a_multipart_field_that_holds_parts_of_its_own_counts_as_empty(endpoint: Simulator) -> None:
    nested = (
        b'--edge\r\nContent-Disposition: form-data; name="user_id"\r\n'
        b"Content-Type: multipart/mixed; boundary=inner\r\n\r\n--inner\r\n\r\n26\r\n--inner--\r\n--edge--\r\n"
    )
    assert post(endpoint, nested, "multipart/form-data; boundary=edge").status == 500


def test_the_tokens_are_jwts_with_the_documented_header_and_claims(endpoint: Simulator) -> None:
    before = int(time.time())
    pair = post(endpoint).json()
    for kind, ttl in (("access", 900), ("refresh", 2 * 86400)):
        header, payload, _ = pair[f"{kind}_token"].split(".")
        claims = json.loads(decode(payload))
        assert decode(header) == b'{"typ":"JWT","alg":"HS256"}'
        assert list(claims) == ["token_type", "exp", "iat", "jti", "user_id"]
        assert claims["token_type"] == kind
        assert before <= claims["iat"] <= time.time()
        assert claims["exp"] == claims["iat"] + ttl
        assert re.fullmatch("[0-9a-f]{32}", claims["jti"])


def test_the_signature_is_hs256_with_a_key_that_no_other_simulator_has(endpoint: Simulator) -> None:
    token = post(endpoint).json()["access_token"]
    signed, _, signature = token.rpartition(".")
    assert hmac.new(endpoint._key, signed.encode(), hashlib.sha256).digest() == decode(signature)
    with Simulator() as other:
        assert other._key != endpoint._key


@pytest.mark.parametrize(
    ("user", "claim"), [("26", 26), ("ada", "ada"), ("٢٦", "٢٦"), ("9" * 5000, "9" * 5000)]
)
def test_a_user_id_of_digits_becomes_a_number(endpoint: Simulator, user: str, claim: object) -> None:
    body, content_type = multipart(user_id=user, company_name="Acme")
    assert claims_of(post(endpoint, body, content_type).json()["access_token"])["user_id"] == claim


def test_each_login_mints_another_pair(endpoint: Simulator) -> None:
    tokens = {token for _ in range(3) for token in list(post(endpoint).json().values())[:2]}
    assert len(tokens) == 6
    assert tokens == set(endpoint.issued)


def test_the_lifetimes_are_those_asked_for_and_may_change() -> None:
    def lives() -> list[int]:
        pair = post(simulator).json()
        return [
            claims["exp"] - claims["iat"]
            for claims in (claims_of(pair["access_token"]), claims_of(pair["refresh_token"]))
        ]

    with Simulator(access_ttl=5, refresh_ttl=60) as simulator:
        assert lives() == [5, 60]
        simulator.access_ttl = 7
        assert lives() == [7, 60]


def test_latency_delays_the_answer() -> None:
    with Simulator(latency=0.3) as endpoint:
        started = time.monotonic()
        assert post(endpoint).status == 200
        assert 0.3 <= time.monotonic() - started < PATIENCE


def test_mints_and_requests_are_counted_when_many_ask_at_once(endpoint: Simulator) -> None:
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: post(endpoint), range(200)))
    assert {answer.status for answer in answers} == {200}
    assert (endpoint.mints, endpoint.requests, len(set(endpoint.issued))) == (200, 200, 400)


def test_the_stats_tell_mints_and_requests(endpoint: Simulator) -> None:
    post(endpoint)
    post(endpoint, "")
    assert get(endpoint, "/simulator/stats").json() == {"mints": 1, "requests": 2}


def test_the_api_answers_whoever_brings_a_living_access_token(endpoint: Simulator) -> None:
    def asked_by(authorization: str) -> tuple[int, object]:
        with contextlib.closing(connect(endpoint)) as connection:
            connection.request("POST", "/access/klearstack/getuserid", "", {"Authorization": authorization})
            response = connection.getresponse()
            return response.status, json.loads(response.read())

    pair = post(endpoint).json()
    endpoint.access_ttl = -1
    dead = post(endpoint).json()["access_token"]
    assert asked_by(f"Bearer {pair['access_token']}") == (200, {"user_id": "26"})
    with Simulator() as another:
        foreign = post(another).json()["access_token"]
    for nothing in (
        "",
        "Bearer",
        f"Basic {pair['access_token']}",
        *(f"Bearer {token}" for token in (pair["refresh_token"], dead, foreign)),
    ):
        assert asked_by(nothing) == (401, {"error": "The access token is invalid or has expired."})


def test_an_unknown_path_is_404_and_another_method_405_on_one_connection(endpoint: Simulator) -> None:
    with contextlib.closing(connect(endpoint)) as connection:
        for path in ("/", "/access/klearstack/get_access_token", PATH + "/"):
            assert ask(connection, path=path).status == 404
        for method in ("GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"):
            answer = ask(connection, method=method)
            assert (answer.status, answer.headers["Allow"]) == (405, "POST")
        assert ask(connection, path="/simulator/stats").headers["Allow"] == "GET"
        plug = connection.sock
        assert_is_a_pair_for_26(ask(connection, path=f"{PATH}?a=b").json())
        assert connection.sock is plug
    assert (endpoint.mints, endpoint.requests) == (1, 5)


@pytest.mark.parametrize(
    "header", ["Transfer-Encoding: chunked", "Content-Length: -1", "Content-Length: many"]
)
def test_a_body_without_a_length_is_turned_down(endpoint: Simulator, header: str) -> None:
    answer = send(endpoint, f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\n{header}\r\n\r\n".encode())
    assert (answer.status, answer.headers["Connection"]) == (411, "close")


def test_every_answer_is_dated(endpoint: Simulator) -> None:
    for answer in (post(endpoint), post(endpoint, ""), get(endpoint, "/"), get(endpoint, PATH)):
        assert abs(parsedate_to_datetime(answer.headers["Date"]).timestamp() - time.time()) < 5


def test_an_answer_arrives_in_one_piece(endpoint: Simulator) -> None:
    with socket.create_connection(("127.0.0.1", port_of(endpoint)), timeout=PATIENCE) as plug:
        plug.sendall(raw_request())
        piece = plug.recv(1 << 16)
    assert json.loads(piece.partition(b"\r\n\r\n")[2])["access_token"]


def test_nobody_can_connect_but_by_127_0_0_1(endpoint: Simulator) -> None:
    # A server on all addresses would answer here, too.
    with pytest.raises(OSError, match=r"refused|[Tt]imed out|assign"):
        socket.create_connection(("127.0.0.2", port_of(endpoint)), timeout=1).close()


def test_the_port_may_be_chosen() -> None:
    with socket.create_server(("127.0.0.1", 0)) as lot:
        port = lot.getsockname()[1]
    with Simulator(port=port) as endpoint:
        assert endpoint.url == f"http://127.0.0.1:{port}"
        assert post(endpoint).status == 200
    with pytest.raises(OSError, match="in use"), Simulator() as endpoint, Simulator(port=port_of(endpoint)):
        pass


# --- Faults --------------------------------------------------------------------------------------------------------

SPOILT_ANSWERS: dict[str, Callable[[Answer], bool]] = {
    "array": lambda answer: list(answer.json()[0]) == ["refresh_token", "access_token", "release_version"],
    "html": lambda answer: answer.headers["Content-Type"] == "text/html" and answer.body.startswith(b"<"),
    "no-access-token": lambda answer: list(answer.json()) == ["refresh_token", "release_version"],
    "no-refresh-token": lambda answer: list(answer.json()) == ["access_token", "release_version"],
    "empty-access-token": lambda answer: (
        answer.json()["access_token"] == "" and answer.json()["refresh_token"] != ""
    ),
    "empty-refresh-token": lambda answer: (
        answer.json()["refresh_token"] == "" and answer.json()["access_token"] != ""
    ),
    "oversized": lambda answer: len(answer.body) > 2**21 and answer.json()["access_token"] != "",
}
SPOILT_CLAIMS: dict[str, Callable[[dict[str, Any], str], bool]] = {
    "another-user": lambda claims, _: claims["user_id"] == -1,
    "bad-exp": lambda claims, _: isinstance(claims["exp"], str),
    "expired": lambda claims, _: claims["iat"] < claims["exp"] == pytest.approx(time.time() - 60, abs=5),
    "float-exp": lambda claims, _: (
        isinstance(claims["exp"], float) and isinstance(claims["iat"], float) and claims["exp"] > time.time()
    ),
    "nan-exp": lambda claims, _: math.isnan(claims["exp"]),
    "no-exp": lambda claims, _: list(claims) == ["token_type", "iat", "jti", "user_id"],
    "no-jti": lambda claims, _: list(claims) == ["token_type", "exp", "iat", "user_id"],
    "wrong-type": lambda claims, slot: {claims["token_type"], slot} == {"access", "refresh"},
}
STATUSES = ["400", "401", "403", "404", "429", "500", "502", "503", "504"]
OTHERS = ["documented", "not-json", "parameter-missing", "redirect", "truncated"]
WITHOUT_ANSWER = ["drip-body", "drip-header", "hang", "reset"]


def test_every_fault_is_tested_and_says_what_it_does() -> None:
    tested = [*STATUSES, *SPOILT_ANSWERS, *SPOILT_CLAIMS, *OTHERS, *WITHOUT_ANSWER]
    assert sorted(tested) == sorted(FAULTS)
    assert all(fault.does for fault in FAULTS.values())


@pytest.mark.parametrize("name", STATUSES)
def test_a_status_fault_answers_it_with_tokens_that_nobody_should_quote(name: str) -> None:
    with Simulator(fault=name) as endpoint:
        answer = post(endpoint)
    assert answer.status == int(name)
    assert answer.headers["Date"]
    assert answer.headers["Retry-After"] == ("1" if name == "429" else None)
    assert "parameter" not in answer.json()["error"].lower()
    assert [answer.json()["refresh_token"], answer.json()["access_token"]] == endpoint.issued
    assert (endpoint.mints, endpoint.requests) == (0, 1)


def test_the_500_is_worded_as_in_the_documentation() -> None:
    with Simulator(fault="500") as endpoint:
        assert post(endpoint).json()["error"] == "Something went wrong. Please try again later."


@pytest.mark.parametrize("name", SPOILT_ANSWERS)
def test_a_spoilt_answer_comes_with_200(name: str) -> None:
    with Simulator(fault=name) as endpoint:
        answer = post(endpoint)
    assert answer.status == 200
    assert SPOILT_ANSWERS[name](answer)
    assert endpoint.issued == re.findall(r"eyJ[\w.-]+", answer.body.decode())
    assert endpoint.mints == 1


@pytest.mark.parametrize("name", SPOILT_CLAIMS)
def test_spoilt_claims_are_in_both_tokens(name: str) -> None:
    with Simulator(fault=name) as endpoint:
        pair = post(endpoint).json()
    assert SPOILT_CLAIMS[name](claims_of(pair["access_token"]), "access")
    assert SPOILT_CLAIMS[name](claims_of(pair["refresh_token"]), "refresh")
    assert endpoint.issued == [pair["refresh_token"], pair["access_token"]]


def test_the_parameter_missing_fault_is_the_documented_500_in_spite_of_both_parameters() -> None:
    with Simulator(fault="parameter-missing") as endpoint:
        answer = post(endpoint)
    assert answer.status == 500
    assert answer.json()["error"] == (
        "One or Many Required parameters from “company name” must be missing, E.g error “Company Name”"
    )
    assert len(endpoint.issued) == 2


def test_documented_tokens_come_in_json_but_do_not_decode() -> None:
    with Simulator(fault="documented") as endpoint:
        pair = post(endpoint).json()
    assert endpoint.issued == [pair["refresh_token"], pair["access_token"]]
    for token in endpoint.issued:
        with pytest.raises(ValueError, match=r"base64|codec|delimiter|padding"):
            claims_of(token)


def test_the_documented_answer_is_no_json() -> None:
    with Simulator(fault="not-json") as endpoint:
        answer = post(endpoint)
    assert (answer.status, len(endpoint.issued)) == (200, 2)
    assert "“7.8.9”" in answer.body.decode()
    with pytest.raises(ValueError, match="Expecting value"):
        answer.json()


def test_whoever_follows_the_redirect_is_found_out_by_the_counter() -> None:
    with Simulator(fault="redirect") as endpoint:
        answer = post(endpoint)
        assert (answer.status, endpoint.mints) == (302, 0)
        followed = get(endpoint, answer.headers["Location"])
        assert (followed.status, endpoint.mints) == (200, 1)
        assert followed.json()["access_token"] in endpoint.issued


def test_a_truncated_answer_ends_before_its_announced_length() -> None:
    with Simulator(fault="truncated") as endpoint, pytest.raises(http.client.IncompleteRead) as caught:
        post(endpoint)
    assert json.loads(caught.value.partial)["access_token"] in endpoint.issued


def test_a_reset_comes_without_an_answer() -> None:
    with Simulator(fault="reset") as endpoint, pytest.raises(ConnectionResetError):
        post(endpoint)
    assert (endpoint.mints, endpoint.requests, endpoint.issued) == (0, 1, [])


@pytest.mark.parametrize("name", ["hang", "drip-header", "drip-body"])
def test_an_endless_fault_hinders_neither_others_nor_the_end(name: str) -> None:
    threads = threading.active_count()
    with contextlib.ExitStack() as plugs:
        with Simulator(fault=name, fault_count=3) as endpoint:
            address = ("127.0.0.1", port_of(endpoint))
            clients = [plugs.enter_context(socket.create_connection(address, PATIENCE)) for _ in range(3)]
            for plug in clients:
                plug.sendall(raw_request())
            until(lambda: endpoint.requests >= 3 and not endpoint.fault)
            assert post(endpoint).status == 200
            clients.pop().close()  # it has had enough
            time.sleep(0.5)
            started = time.monotonic()
        assert time.monotonic() - started < PATIENCE / 2
        until(lambda: threading.active_count() <= threads)
        heard = b"".join(iter(lambda: clients[0].recv(4096), b""))
    if name == "hang":
        assert heard == b""
    elif name == "drip-header":
        assert re.fullmatch(rb"HTTP/1.1 200 OK\r\n(.+\r\n)+X-Drip: \.+", heard)
    else:
        assert re.fullmatch(rb"HTTP/1.1 200 OK\r\n(.+\r\n)+\r\n +", heard)


@pytest.mark.parametrize("name", ["no-jti", "html", "truncated"])
def test_a_spoilt_200_needs_its_parameters_all_the_same(name: str) -> None:
    with Simulator(fault=name) as endpoint:
        assert post(endpoint, "user_id=26").status == 500


def test_a_counted_fault_passes_and_the_next_one_is_not_counted() -> None:
    with Simulator(fault="503", fault_count=2) as endpoint:
        assert [post(endpoint).status for _ in range(4)] == [503, 503, 200, 200]
        assert (endpoint.fault, endpoint.fault_count, endpoint.mints) == ("", None, 2)
        endpoint.fault = "401"
        assert [post(endpoint).status for _ in range(3)] == [401, 401, 401]
        endpoint.fault = ""
        assert post(endpoint).status == 200


def test_a_fault_that_hits_no_request_is_none() -> None:
    with Simulator(fault="503", fault_count=0) as endpoint:
        assert post(endpoint).status == 200


def test_a_counted_fault_hits_as_many_as_it_says_when_many_ask_at_once() -> None:
    with Simulator(fault="503", fault_count=7) as endpoint, ThreadPoolExecutor(20) as pool:
        statuses = list(pool.map(lambda _: post(endpoint).status, range(40)))
    assert (statuses.count(503), statuses.count(200)) == (7, 33)


def test_an_unknown_fault_is_turned_down_at_once(endpoint: Simulator) -> None:
    with pytest.raises(ValueError, match=r"no fault 'rest', only 400, .*, reset,"):
        endpoint.fault = "rest"
    with pytest.raises(ValueError, match="no fault 'rest'"):
        Simulator(fault="rest")


# --- The end -------------------------------------------------------------------------------------------------------


def test_an_idle_connection_is_closed_at_the_end() -> None:
    threads = threading.active_count()
    with Simulator() as endpoint:
        idle = connect(endpoint)
        assert ask(idle).status == 200
        plug = idle.sock
        started = time.monotonic()
    assert time.monotonic() - started < PATIENCE / 2
    assert plug.recv(1) == b""
    idle.close()
    until(lambda: threading.active_count() <= threads)


def test_latency_does_not_delay_the_end() -> None:
    threads = threading.active_count()
    with Simulator(latency=PATIENCE) as endpoint:
        plug = socket.create_connection(("127.0.0.1", port_of(endpoint)), timeout=PATIENCE)
        plug.sendall(raw_request())
        until(lambda: endpoint.requests)
        started = time.monotonic()
    plug.close()
    assert time.monotonic() - started < PATIENCE / 2
    until(lambda: threading.active_count() <= threads)


def test_nothing_is_printed_when_clients_come_and_go(capfd: pytest.CaptureFixture[str]) -> None:
    with Simulator(fault="oversized") as endpoint:
        post(endpoint)
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", port_of(endpoint)), timeout=PATIENCE) as plug:
                plug.sendall(raw_request())
                plug.recv(1)
        assert send(endpoint, b"BREW / HTTP/1.1\r\n\r\n").status == 501
    assert capfd.readouterr() == ("", "")


def test_a_mistake_of_ours_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    with Simulator() as endpoint:
        endpoint.access_ttl = float("nan")
        with pytest.raises(http.client.RemoteDisconnected):
            post(endpoint)
    assert "cannot convert float NaN to integer" in capfd.readouterr().err


def test_a_command_serves_until_it_is_interrupted() -> None:
    command = (
        "from vault_plugin.demo.simulator import Simulator\n"
        "endpoint = Simulator()\n"
        "print(endpoint.url, flush=True)\n"
        "try: endpoint.serve_forever()\n"
        "except KeyboardInterrupt: print(endpoint.mints)\n"
    )
    with subprocess.Popen([sys.executable, "-c", command], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        address = http.client.HTTPConnection(url.removeprefix("http://"), timeout=PATIENCE)
        with contextlib.closing(address) as connection:
            assert ask(connection).status == 200
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=PATIENCE)[0] == "1\n"
    assert process.returncode == 0
