"""Which CAs Vault and the endpoint are verified with, and that nothing is contacted twice where that fails."""

import http.server
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import certifi
import pytest
from support.cli import World
from support.drip import serving
from support.fakes import ACME
from support.tls import Doors, doors_of_openbao, pki, serving_https
from support.waiting import until

from vault_plugin.endpoint.client import EndpointSource
from vault_plugin.errors import SourceError, SourceSettingsError, StoreError, StoreSettingsError
from vault_plugin.network import trust
from vault_plugin.network.sockets import within
from vault_plugin.network.tls import Tls
from vault_plugin.timing.clock import ServerClock
from vault_plugin.timing.deadline import Deadline
from vault_plugin.vault import transport
from vault_plugin.vault.transport import Transport, TransportError
from vault_plugin.wording import worded


class Paths(NamedTuple):
    """What ssl says about the system's CAs."""

    openssl_cafile: str
    openssl_capath: str


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return pki(tmp_path_factory.mktemp("pki"), "127.0.0.1", "vault.example")


@pytest.fixture(scope="module")
def doors(files: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    with doors_of_openbao(files, tmp_path_factory.mktemp("socket")) as made:
        yield made


def status(url: str, **tls: str | int | None) -> int:
    """What Vault answers."""
    how: dict[str, Any] = tls
    with closing(Transport([url], ServerClock(), timeout=5, **how)) as one:
        return one.request("GET", "/v1/sys/seal-status", {}, None, Deadline(5)).status


def trusts(ca: str, own: str | None = None) -> bool:
    """Whether a context trusts that CA."""
    (given,) = ssl.create_default_context(cafile=ca).get_ca_certs(binary_form=True)
    return given in trust.client_context(trust.OwnCa(own)).get_ca_certs(binary_form=True)


def test_ssl_cert_file_is_trusted_for_both_sides_and_an_own_ca_replaces_it(
    doors: Doors, files: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving_https(files, http.server.BaseHTTPRequestHandler) as url:

        def minted(ca_file: str | None = None) -> None:
            with closing(EndpointSource(url, ServerClock(), timeout=5, ca_file=ca_file)) as source:
                source.obtain(ACME, Deadline(5))

        with pytest.raises(SourceSettingsError, match="does not verify"):
            minted()
        with pytest.raises(StoreSettingsError, match="does not verify"):
            status(doors["tls"])
        monkeypatch.setenv("SSL_CERT_FILE", files["ca"])
        assert status(doors["tls"]) == 200
        with pytest.raises(SourceSettingsError, match="does not verify"):
            minted(files["other"])
        with pytest.raises(StoreSettingsError, match="does not verify"):
            status(doors["tls"], ca_file=files["other"])
        # The server speaks TLS that verifies, and knows no POST.
        with pytest.raises(SourceError, match="status 501"):
            minted()


def test_a_folder_of_cas_and_the_text_of_one(doors: Doors, files: dict[str, str], tmp_path: Path) -> None:
    text = Path(files["ca"]).read_text(encoding="ascii")
    # As Kubernetes mounts a Secret, with a text that is no certificate, and a comment that is not ASCII.
    (tmp_path / "..1").mkdir()
    (tmp_path / "..1" / "ca.pem").write_text(f"# Köln\n{text}", encoding="utf-8")
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "any name").symlink_to("..data/ca.pem")
    (tmp_path / "README").write_bytes(b"\xff no certificate")
    url, other = doors["tls"], Path(files["other"]).read_text(encoding="ascii")
    assert status(url, ca_folder=str(tmp_path)) == 200
    assert status(url, ca_text=f"# Köln\n{text}") == 200
    # The first of file, text and folder, as `bao` has it.
    assert status(url, ca_file=files["ca"], ca_text=other, ca_folder="/nonexistent") == 200
    assert status(url, ca_text=text, ca_folder="/nonexistent") == 200
    with pytest.raises(StoreSettingsError, match="does not verify"):
        status(url, ca_text=other, ca_folder=str(tmp_path))
    for wrong in ({"ca_folder": str(tmp_path / "none")}, {"ca_text": text.replace("A", "-")}):
        with pytest.raises(StoreSettingsError, match="is not a PEM file that can be loaded"):
            status(url, **wrong)
    (tmp_path / "empty").mkdir()
    with pytest.raises(StoreSettingsError, match="is not a PEM file that can be loaded"):
        status(url, ca_folder=str(tmp_path / "empty"))


def test_a_server_that_rejects_the_handshake_is_not_taken_for_plain_http(
    doors: Doors, files: dict[str, str]
) -> None:
    """Whoever follows "use http://" sends the Vault token in clear text."""
    for url, name in (
        (doors["mutual 1.2"], None),
        (doors["1.1"], None),
        (doors["tls"], ".".join(["x" * 60] * 5)),
    ):
        with pytest.raises(StoreError, match="TLS failed"):
            # Not until the deadline, which may cut the last try short: then the cause is that there was no time.
            status(url, ca_file=files["ca"], server_name=name, max_retries=2)


def test_certificates_are_loaded_once_for_all_threads(files: dict[str, str], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "ca")
    one, start = Tls(str(tmp_path / "ca")), threading.Barrier(8)

    def context() -> ssl.SSLContext:
        start.wait()
        with within(Deadline(10)):
            return one.context()

    with ThreadPoolExecutor(8) as pool:
        found = [pool.submit(context) for _ in range(8)]
        (tmp_path / "ca").write_bytes(Path(files["ca"]).read_bytes())
        assert len({id(one.result()) for one in found}) == 1


def test_who_waits_for_another_threads_loading_ends_by_the_own_deadline(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "ca")
    one = Tls(str(tmp_path / "ca"))

    def context(seconds: float) -> None:
        with within(Deadline(seconds)), pytest.raises(TimeoutError):
            one.context()

    first = threading.Thread(target=context, args=[3.0])
    first.start()
    until(one._loading.locked)
    context(0.1)
    assert first.is_alive()
    first.join()
    (tmp_path / "ca").open("w").close()  # and what reads it ends


def test_the_name_in_the_certificate_may_be_another_than_that_of_the_address(
    doors: Doors, files: dict[str, str]
) -> None:
    assert status(doors["tls"], ca_file=files["ca"], server_name="vault.example") == 200
    for name in ("other.example", "127.0.0.2"):
        with pytest.raises(StoreSettingsError, match=f"does not verify .*{name}") as caught:
            status(doors["tls"], ca_file=files["ca"], server_name=name)
        assert "VAULT_TLS_SERVER_NAME" in worded(caught.value.hint)


def test_the_systems_cas_are_trusted_beside_ssl_cert_file_and_certifis_where_there_are_none(
    files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):  # no certificates of this machine's
        monkeypatch.setenv(name, str(tmp_path))
    system, none = str(tmp_path / "system.pem"), "/nonexistent"
    Path(system).write_bytes(Path(files["other"]).read_bytes())

    def found(file: str, folder: str, *bundles: str) -> tuple[str | None, str | None]:
        monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: Paths(file, folder))
        monkeypatch.setattr(trust, "BUNDLES", bundles)
        return trust._of_system()

    assert found(none, none) == (certifi.where(), None)
    assert found(none, str(tmp_path)) == (certifi.where(), None)  # a folder without CAs by OpenSSL's names
    assert found(none, none, none, system, files["ca"]) == (system, None)
    assert found(system, none, files["ca"]) == (system, None)
    assert (trusts(files["other"]), trusts(files["ca"])) == (True, False)
    monkeypatch.setenv("SSL_CERT_FILE", files["ca"])
    assert (trusts(files["other"]), trusts(files["ca"])) == (True, True)
    assert (trusts(files["other"], files["ca"]), trusts(files["ca"], files["ca"])) == (False, True)
    hashed = tmp_path / "hashed"
    hashed.mkdir()
    (hashed / "0a1b2c3d.0").symlink_to(system)
    assert found(system, str(hashed)) == (None, str(hashed))


@pytest.mark.parametrize("case", ["expired", "foreign", "no client certificate"])
def test_a_certificate_that_does_not_verify_is_one_line_after_one_connection(
    kv2: World, tmp_path: Path, case: str
) -> None:
    dates = datetime(2001, 1, 1, tzinfo=UTC), datetime(2002, 1, 1, tzinfo=UTC)
    own = pki(tmp_path, dates=dates if case == "expired" else None)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own["server"], own["server-key"])
    if case == "no client certificate":
        context.verify_mode = ssl.CERT_REQUIRED
    accepted: list[object] = []

    def accept(connection: socket.socket, _: threading.Event) -> None:
        accepted.append(connection)
        with connection.dup() as kept:  # open until the client has read the alert
            with suppress(OSError), context.wrap_socket(connection, server_side=True) as inner:
                inner.recv(100)
            with suppress(OSError):
                while kept.recv(4096):
                    pass

    with serving(accept, at_once=True) as plain:
        url = plain.replace("http:", "https:")
        ca = own["other" if case == "foreign" else "ca"]
        done = kv2.run("get", VAULT_ADDR=url, VAULT_CACERT=ca)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (78, "", 1)
        assert len(accepted) == 1
        assert kv2.endpoint.requests == 0
        done = kv2.run("get", KLEARSTACK_URL=url, KLEARSTACK_CACERT=ca)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (78, "", 1)
    assert len(accepted) == 2


def test_what_failed_for_good_a_moment_ago_is_not_tried_again_but_later_it_is(
    files: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files["server"], files["server-key"])
    accepted: list[object] = []

    def accept(connection: socket.socket, _: threading.Event) -> None:
        accepted.append(connection)
        with suppress(OSError), context.wrap_socket(connection, server_side=True):
            pass

    with serving(accept, at_once=True) as plain:
        url = plain.replace("http:", "https:")
        with closing(Transport([url], ServerClock(), timeout=5, ca_file=files["other"])) as one:

            def fail(*, once: bool) -> int:
                """How many connections there are after a request that fails."""
                call = one.once if once else one.request
                limit: Any = 5 if once else Deadline(5)
                with pytest.raises((TransportError, StoreSettingsError), match="does not verify"):
                    call("GET", "/v1/sys/seal-status", {}, None, limit)
                return len(accepted)

            assert [fail(once=True), fail(once=False), fail(once=False)] == [1, 1, 2]
            monkeypatch.setattr(transport, "RECENT", 0.0)
            assert [fail(once=True), fail(once=False)] == [3, 4]


@pytest.mark.parametrize("name", ["VAULT_CAPATH", "VAULT_CACERT_BYTES", "VAULT_TLS_SERVER_NAME"])
def test_bad_input_of_tls_is_one_line(kv2: World, name: str) -> None:
    wrong = {"VAULT_CAPATH": "/nonexistent", "VAULT_CACERT_BYTES": "CANARY", "VAULT_TLS_SERVER_NAME": "a..b"}
    done = kv2.run("get", **{name: wrong[name]})
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (78, "", 1)
    assert name in done.stderr
    assert "CANARY" not in done.stderr
    assert kv2.endpoint.requests == 0
