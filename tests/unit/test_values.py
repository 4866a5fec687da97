"""How the text of a setting is read."""

from collections.abc import Callable
from contextlib import suppress

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from support.texts import ANY_TEXT

from vault_plugin.settings.proxies import Proxy
from vault_plugin.settings.values import (
    ENDPOINT_PATH,
    actions_url,
    certificates,
    client_timeout,
    duration,
    endpoint_url,
    host_name,
    is_plain_and_remote,
    issuer,
    positive_duration,
    rate_limit,
    vault_addresses,
    vault_path,
    whole_number,
)

TOO_LONG = "names a unix socket with a path of more than 107 bytes"


def test_durations_are_seconds_unless_they_say_otherwise() -> None:
    for text, seconds in (
        ("0", 0), ("0s", 0), ("90", 90), ("90s", 90), ("1.5", 1.5), ("0.25s", 0.25), ("15m", 900), ("2h", 7200),
        ("1h30m", 5400), ("1h30m15s", 5415), ("1h15s", 3615), (" 90s ", 90), ("90\n", 90),
    ):  # fmt: skip
        assert duration(text) == seconds, text


@pytest.mark.parametrize("read", [duration, positive_duration])
def test_what_is_no_duration_is_refused(read: Callable[[str], float]) -> None:
    for text in ("", " ", "s", "h", "-1", "+1", "1d", "1 h", "1m1h", "1s1m", "1.5h", "1.", ".5", "nan", "inf", "1e3", "1,5", "soon", "90ss"):  # fmt: skip
        assert complaint(read, text) == "is not a duration such as 90, 90s, 15m or 1h30m", text


@given(st.integers(0, 999), st.integers(0, 999), st.integers(0, 999))
def test_hours_minutes_and_seconds_add_up(hours: int, minutes: int, seconds: int) -> None:
    assert duration(f"{hours}h{minutes}m{seconds}s") == hours * 3600 + minutes * 60 + seconds


@pytest.mark.parametrize("text", ["0", "0s", "0h0m0s", "0.0"])
def test_no_time_at_all_is_no_positive_duration(text: str) -> None:
    with pytest.raises(ValueError, match=r"^must be more than 0 seconds$"):
        positive_duration(text)


def test_a_positive_duration_is_a_duration() -> None:
    assert positive_duration("1.5") == 1.5


def test_a_path_of_vault_is_taken_without_its_outer_slashes() -> None:
    for text, path in (("secret", "secret"), ("team/kv", "team/kv"), ("/secret/", "secret"), ("a.b-c_d@e~f", "a.b-c_d@e~f"), ("...", "...")):  # fmt: skip
        assert vault_path(text) == path, text


def test_a_path_that_could_lead_elsewhere_is_refused() -> None:
    for text in (
        "", "/", "//", "a//b", ".", "..", "a/..", "../a", "a/./b", "a b", "a%2Fb", "a?b", "a#b", "a+b", "a*", "{{x}}",
        "a\\b", "a\n", "a\x00b", "\u00e9", "a:b",
    ):  # fmt: skip
        assert str(complaint(vault_path, text)).startswith("may contain only letters, digits and "), ascii(
            text
        )


def test_a_base_url_is_taken_with_or_without_the_endpoints_path() -> None:
    for text, url in (
        ("https://api.example", "https://api.example"),
        ("https://api.example/", "https://api.example"),
        ("https://api.example//", "https://api.example"),
        ("https://api.example:8443/base/", "https://api.example:8443/base"),
        ("http://localhost:8080", "http://localhost:8080"),
        ("http://[::1]:8080", "http://[::1]:8080"),
        ("HTTPS://API.example", "HTTPS://API.example"),
        ("https://xn--bcher-kva.a_b.example.", "https://xn--bcher-kva.a_b.example."),
        (f"https://{'a' * 63}:8443", f"https://{'a' * 63}:8443"),
        ("https://[fe80::1%eth0]:8443", "https://[fe80::1%eth0]:8443"),
        ("https://[::ffff:10.0.0.1]", "https://[::ffff:10.0.0.1]"),
        (f"https://api.example{ENDPOINT_PATH}", "https://api.example"),
        (f"https://api.example{ENDPOINT_PATH}/", "https://api.example"),
        (f"https://api.example/base{ENDPOINT_PATH}", "https://api.example/base"),
    ):
        assert endpoint_url(text) == url, text


def test_an_endpoint_has_one_name_however_its_url_is_spelled() -> None:
    for text, name in (
        ("https://api.example", "https://api.example"),
        ("HTTPS://API.example:443/", "https://api.example"),
        ("https://api.example./", "https://api.example"),
        ("https://api.example:8443/Base/", "https://api.example:8443/Base"),
        ("https://api.example:80", "https://api.example:80"),
        ("http://localhost:80", "http://localhost"),
        ("http://[::A]:8080", "http://[::a]:8080"),
        (f"https://Api.Example{ENDPOINT_PATH}", "https://api.example"),
    ):
        assert issuer(endpoint_url(text)) == issuer(f"{endpoint_url(text)}/") == name, text


NO_URLS = [
    "", "api.example", "//api.example", "ftp://api.example", "file:///etc/passwd", "unix:///run/x", "javascript:alert(1)",
    "https://", "https:///path", "https://:443", "https://user@api.example", "https://user:pw@api.example",
    "https://@api.example", "https://:@api.example", "https://api.example?x=1", "https://api.example?",
    "https://api.example/#x", "https://api.example#", "https://api.example:0", "https://api.example:99999",
    "https://api.example:x", "https://[::1", "https://api.example/\n", "https://api.example\r\nX: y",
    "https://api.example/\x00", "\thttps://api.example", " https://api.example", "https://api.example /", "https://\u00e9.example",
    "https://api.example\\@evil.example", "https://api.example/\x7f", "https://\uff41pi.example", "https://api.example\ud800",
    "https://*.example.com", "https://%TENANT%.example.com", "https://%41.example", "https://${HOST}", "https://{host}:443",
    "https://.example", "https://a..example", "https://.", f"https://{'a' * 64}.example", "https://[v1.a]", "https://[::1%]",
]  # fmt: skip


def test_what_is_no_plain_base_url_is_refused() -> None:
    for text in NO_URLS:
        told = str(complaint(endpoint_url, text))
        assert told.startswith("must look like https://host[:port], without user, password,"), ascii(text)


@given(text=st.text("aZ0_-.:%*[]@~${}x", max_size=12))
def test_requests_takes_each_base_url_that_is_accepted(text: str) -> None:
    url = f"https://{text}"
    if complaint(endpoint_url, url) is None:
        assert requests.Request("POST", endpoint_url(url)).prepare().url


def test_what_is_no_plain_base_url_is_no_address_of_vault() -> None:
    for text in [text for text in NO_URLS if text.strip() == text and "unix:" not in text]:
        for addresses in (text, f"https://a.example,{text}"):
            told = str(complaint(vault_addresses, addresses))
            assert told.startswith("must look like https://host[:port], without user, password,"), ascii(
                addresses
            )


@pytest.mark.parametrize(
    "address",
    ["https://v.example/v1", "https://v.example/v1/", "https://v.example/ui/vault/secrets", "http://v:8200/x/v1", "https://a,https://b/ui"],
)  # fmt: skip
def test_a_path_of_vault_itself_is_no_part_of_its_address(address: str) -> None:
    with pytest.raises(ValueError, match="contains /v1 or /ui"):
        vault_addresses(address)
    assert vault_addresses("https://v.example/v10,https://ui/x,unix:///ui/v1")


def test_the_endpoints_path_is_the_documented_one() -> None:
    assert ENDPOINT_PATH == "/access/klearstack/getaccesstokenfromuserid"


def test_loopback_and_tls_are_not_read_on_their_way() -> None:
    for url in (
        "http://localhost", "http://LOCALHOST:80", "http://127.0.0.1:8080/x", "http://127.8.9.10", "http://[::1]:8080",
        "https://api.example", "https://10.0.0.1", "HTTPS://api.example", "",
    ):  # fmt: skip
        assert not is_plain_and_remote(url), url


def test_plain_http_to_any_other_host_is() -> None:
    for url in (
        "http://api.example", "HTTP://api.example", "http://10.0.0.1", "http://127.0.0.1.evil.example", "http://localhost.evil",
        "http://xlocalhost", "http://[::2]", "http://[::ffff:10.0.0.1]", "http://0.0.0.0", "http://1127.0.0.1",
    ):  # fmt: skip
        assert is_plain_and_remote(url), url
        told = str(complaint(actions_url, f"{url}/id?api-version=2"))
        assert told.startswith("must begin with https://"), url


@pytest.mark.parametrize("url", ["http://127.0.0.1:80/id?a=1", "https://actions.example/id?a=1&b=2"])
def test_an_id_token_is_requested_at_loopback_or_with_tls(url: str) -> None:
    assert actions_url(url) == url


def test_vaults_addresses_are_told_apart_by_commas() -> None:
    for text, addresses in (
        ("https://a.example:8200", ("https://a.example:8200",)),
        ("https://a.example/", ("https://a.example",)),
        ("https://a:8200, http://b:8200/ ,https://c", ("https://a:8200", "http://b:8200", "https://c")),
        ("unix:///run/vault.sock", ("unix:///run/vault.sock",)),
        ("unix:///run/a.sock,https://b", ("unix:///run/a.sock", "https://b")),
        ("http://[::1]:8200", ("http://[::1]:8200",)),
    ):
        assert vault_addresses(text) == addresses, text


def test_a_unix_socket_has_a_path_that_the_kernel_takes() -> None:
    path = "/nosuch/x" + "é" * 49  # of two bytes each
    assert vault_addresses(f"https://a,unix://{path}")
    assert complaint(vault_addresses, f"https://a,unix://{path}x") == TOO_LONG


def test_a_gap_or_a_relative_socket_among_vaults_addresses_is_refused() -> None:
    texts = [",", "https://a,", ",https://a", "https://a,,https://b", "unix://run/x", "unix:/run/x", "unix:x"]
    for text in texts:
        assert str(complaint(vault_addresses, text)).startswith("must look like https://host"), text


@pytest.mark.parametrize("read", [duration, positive_duration, vault_path, endpoint_url, vault_addresses])
@given(text=ANY_TEXT)
def test_no_text_crashes_a_reader_or_changes_what_it_says(read: Callable[[str], object], text: str) -> None:
    assert complaint(read, text) in {
        None,
        "is not a duration such as 90, 90s, 15m or 1h30m",
        "must be more than 0 seconds",
        "may contain only letters, digits and _@.~- in segments separated by single slashes",
        "must look like https://host[:port], without user, password, query or fragment",
        TOO_LONG,
    }


def complaint(read: Callable[[str], object], text: str) -> str | None:
    try:
        read(text)
    except ValueError as exc:
        return str(exc)
    return None


def test_no_slash_is_left_before_the_endpoints_path() -> None:
    assert endpoint_url(f"https://api.example//{ENDPOINT_PATH.strip('/')}/") == "https://api.example"


def test_a_timeout_of_vaults_is_read_as_its_tools_read_it() -> None:
    for text, seconds in (
        ("90", 90), ("0", None), ("0s", None), ("500ms", 0.5), ("1m30s", 90), ("1d", 86400), ("1h1.5m", 3690),
        ("1us", 1e-6), ("1\u00b5s", 1e-6), ("10ns", 1e-8),
    ):  # fmt: skip
        assert client_timeout(text) == (seconds if seconds is None else pytest.approx(seconds)), text


def test_a_rate_may_have_a_burst() -> None:
    for text, limit in (
        ("5", (5, 5)),
        ("5.5", (5.5, 5)),
        ("5:2", (5, 2)),
        ("0.5", (0.5, 1)),
        ("5:0", (5, 1)),
        ("0", None),
        ("0:7", None),
    ):
        assert rate_limit(text) == limit, text


def test_other_values_of_vaults_connection() -> None:
    assert [whole_number(text) for text in ("0", "2", "999999999")] == [0, 2, 999999999]
    for name in ("v", "v.example", "10.1.2.3", "fd00::1", "_a-b.c"):
        assert host_name(name) == name
    assert certificates("x -----BEGIN CERTIFICATE-----") == "x -----BEGIN CERTIFICATE-----"


@pytest.mark.parametrize(
    ("read", "texts"),
    [
        (client_timeout, ("", "1.5", "-1", "5 ", "1h2", "soon", "1d2h", "\u0661")),
        (whole_number, ("", "-1", "1.5", "0x2", " 2", "two", "9" * 10, "\u00b2")),
        (rate_limit, ("", "-1", "abc", "5:x", "5:-1", "5 : 2", "inf", "nan", "1e2", ":5", "5:")),
        (host_name, ("", "a..b", ".a", "a.", "a b", "a/b", "a" * 64, "\u00e9", "[::1]", "v:8200")),
        (certificates, ("", "CERTIFICATE", "/etc/ca.pem")),
    ],
)
def test_what_is_no_such_value_is_refused_and_not_quoted(
    read: Callable[[str], object], texts: tuple[str, ...]
) -> None:
    for text in texts:
        with pytest.raises(ValueError, match=r"^is not a") as caught:
            read(text)
        assert not text.strip() or len(text) < 4 or text not in str(caught.value)


@given(ANY_TEXT)
def test_any_text_is_read_or_refused(text: str) -> None:
    for read in (client_timeout, whole_number, rate_limit, host_name, certificates, Proxy.read):
        with suppress(ValueError):
            read(text)
