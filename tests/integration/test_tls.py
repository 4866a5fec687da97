"""`get` over TLS on both sides, with every flag and variable that names a certificate, a mount or a folder."""

import http.server
import json
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from support.cli import kept, run
from support.fakes import ACME
from support.tls import behind_tls, doors_of_openbao, pki, serving_https
from support.vault import Vault

from vault_plugin.endpoint.client import EndpointSource
from vault_plugin.errors import SourceSettingsError, StoreSettingsError
from vault_plugin.failures import CLOCK
from vault_plugin.timing.clock import ServerClock
from vault_plugin.timing.deadline import Deadline
from vault_plugin.vault.transport import Transport

PAST = datetime(2001, 1, 1, tzinfo=UTC), datetime(2002, 1, 1, tzinfo=UTC)
FUTURE = datetime(2101, 1, 1, tzinfo=UTC), datetime(2102, 1, 1, tzinfo=UTC)


def test_get_over_tls_with_client_certificates_approle_and_places_of_ones_own(tmp_path: Path) -> None:
    files = pki(tmp_path)
    with doors_of_openbao(files, tmp_path) as doors, behind_tls(files) as url:
        identity = (files["client"], files["client-key"])
        vault = Vault(doors["mutual"], doors.root_token, verify=files["ca"], cert=identity)
        mount = vault.mount("v2")
        role_id, secret_id, _ = vault.approle(
            f"""
            path "{mount}/data/team/a/*"     {{ capabilities = ["update", "read"] }}
            path "{mount}/metadata/team/a/*" {{ capabilities = ["create", "update"] }}
            """,
            mount="machines",
        )
        environ = kept() | {
            "HOME": str(tmp_path),
            "KLEARSTACK_LOCK_DIR": str(tmp_path / "locks"),
            "VAULT_ROLE_ID": role_id,
            "VAULT_SECRET_ID": secret_id,
        }
        flags = {
            "--url": url,
            "--ca-cert": files["ca"],
            "--vault-addr": doors["mutual"],
            "--vault-cacert": files["ca"],
            "--vault-client-cert": files["client"],
            "--vault-client-key": files["client-key"],
            "--auth": "approle",
            "--auth-mount": "machines",
            "--mount": mount,
            "--path-prefix": "team/a",
            "--user-id": "26",
            "--company-name": "Acme",
            "--format": "json",
        }
        arguments = [part for flag in flags.items() for part in flag]
        for source in ("endpoint", "vault"):
            done = run("get", *arguments, environ=environ)
            assert (done.returncode, done.stderr) == (0, "")
            answer = json.loads(done.stdout)
            assert (answer["source"], answer["vault"]["path"]) == (source, "team/a/Acme/26/access")
        for left_out in (("--vault-cacert",), ("--vault-client-cert", "--vault-client-key")):
            fewer = [part for flag in flags.items() if flag[0] not in left_out for part in flag]
            done = run("get", *fewer, environ=environ)
            assert (done.returncode, json.loads(done.stdout)["error"]["code"]) == (78, "vault_settings")
        done = run("get", *arguments, "--vault-client-key", encrypted(files, tmp_path), environ=environ)
        assert (done.returncode, "or its key is encrypted" in done.stdout) == (78, True)
        assert "pass phrase" not in done.stderr  # nobody is asked for it
        vault.close()


def encrypted(files: dict[str, str], folder: Path) -> str:
    """The client's key, encrypted by a password."""
    key = load_pem_private_key(Path(files["client-key"]).read_bytes(), None)
    how = BestAvailableEncryption(b"password")
    (folder / "encrypted").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, how))
    return str(folder / "encrypted")


@pytest.mark.parametrize(
    ("host", "dates", "reason", "of_clock"),
    [
        ("127.0.0.1", PAST, "has expired", True),
        ("127.0.0.1", FUTURE, "is not yet valid", True),
        ("127.0.0.2", None, "", False),
    ],
    ids=["expired", "not yet valid", "of another host"],
)
def test_a_certificate_out_of_its_dates_may_be_this_hosts_clock_for_vault_and_endpoint_alike(
    tmp_path: Path, host: str, dates: tuple[datetime, datetime] | None, reason: str, of_clock: bool
) -> None:
    files = pki(tmp_path, host, dates=dates)
    slept: list[float] = []  # what does not verify now will not after a pause
    with serving_https(files, http.server.BaseHTTPRequestHandler) as url:
        how: dict[str, Any] = {"timeout": 5.0, "ca_file": files["ca"], "sleep": slept.append}
        with (
            closing(Transport([url], ServerClock(), **how)) as transport,
            pytest.raises(StoreSettingsError, match=rf"does not verify \(.*{reason}") as of_vault,
        ):
            transport.request("GET", "/v1/sys/seal-status", {}, None, Deadline(20))
        with pytest.raises(SourceSettingsError, match=rf"does not verify \(it .*{reason}") as of_endpoint:
            EndpointSource(url, ServerClock(), **how).obtain(ACME, Deadline(20))
    assert [caught.value.hint == CLOCK for caught in (of_vault, of_endpoint)] == [of_clock] * 2
    assert ["clock" in caught.value.hint for caught in (of_vault, of_endpoint)] == [of_clock] * 2
    assert slept == []
