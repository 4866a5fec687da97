"""Doors with TLS: one OpenBao behind several (also with client certificates, and a unix socket), and servers of ours."""

import http.server
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import trustme

from support.ports import own_port
from vault_plugin.demo.embedded import openbao
from vault_plugin.demo.simulator import Simulator


def pki(folder: Path, *hosts: str, dates: tuple[datetime, datetime] | None = None) -> dict[str, str]:
    """PEM files of a CA, a server and a client; the server's certificate is for these hosts, and valid between two dates."""
    not_before, not_after = dates or (None, None)
    authority = trustme.CA()
    paths = {
        name: folder / f"{name}.pem"
        for name in ("ca", "server", "server-key", "client", "client-key", "other")
    }
    authority.cert_pem.write_to_path(paths["ca"])
    trustme.CA().cert_pem.write_to_path(paths["other"])
    for name, identities in (("server", hosts or ("127.0.0.1",)), ("client", ("client@example.org",))):
        # Vault names the login by the common name.
        common_name = identities[0] if name == "client" else None
        made = authority.issue_cert(
            *identities, common_name=common_name, not_before=not_before, not_after=not_after
        )
        made.private_key_pem.write_to_path(paths[f"{name}-key"])
        for number, pem in enumerate(made.cert_chain_pems):
            pem.write_to_path(paths[name], append=bool(number))
    return {name: str(path) for name, path in paths.items()}


@contextmanager
def serving_https(files: dict[str, str], handler: type[http.server.BaseHTTPRequestHandler]) -> Iterator[str]:
    """Serve with the certificate that `pki` made; the URL."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files["server"], files["server-key"])
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield f"https://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


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


@dataclass
class Doors:
    """Addresses, and the root token behind them."""

    addresses: dict[str, str]
    root_token: str

    def __getitem__(self, name: str) -> str:
        return self.addresses[name]


@contextmanager
def doors_of_openbao(files: dict[str, str], folder: Path) -> Iterator[Doors]:
    """Run it with the certificates that `pki` made; the socket lies in that folder."""
    ports = {name: own_port() for name in ("tls", "mutual", "mutual 1.2", "1.1")}
    path = folder / "bao.sock"
    tls = f'tls_cert_file = "{files["server"]}"\ntls_key_file = "{files["server-key"]}"'
    config = f"""
        listener "tcp" {{
          address = "127.0.0.1:{ports["tls"]}"
          {tls}
        }}
        listener "tcp" {{
          address = "127.0.0.1:{ports["mutual"]}"
          {tls}
          tls_require_and_verify_client_cert = true
          tls_client_ca_file = "{files["ca"]}"
        }}
        listener "tcp" {{
          address = "127.0.0.1:{ports["mutual 1.2"]}"
          {tls}
          tls_max_version = "tls12"
          tls_require_and_verify_client_cert = true
          tls_client_ca_file = "{files["ca"]}"
        }}
        listener "tcp" {{
          address = "127.0.0.1:{ports["1.1"]}"
          {tls}
          tls_min_version = "tls10"
          tls_max_version = "tls11"
        }}
        listener "unix" {{
          address = "{path}"
        }}
    """
    with openbao(config) as server:
        addresses = {name: f"https://127.0.0.1:{port}" for name, port in ports.items()}
        yield Doors(addresses | {"unix": f"unix://{path}"}, server.root_token)
