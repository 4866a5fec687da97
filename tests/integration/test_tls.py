"""`get` over TLS on both sides, with every flag and variable that names a certificate, a mount or a folder."""

import http.server
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.cli import kept, run
from support.tls import doors_of_openbao, pki, serving_https
from support.vault import Vault

from vault_plugin.demo.simulator import Simulator


@contextmanager
def behind_tls(files: dict[str, str]) -> Iterator[str]:
    """The URL of an endpoint that speaks TLS; it mints like the simulator."""
    minter = Simulator()

    class Endpoint(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            body = json.dumps(minter.mint("26")).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with minter, serving_https(files, Endpoint) as url:
        yield url


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
        vault.close()
