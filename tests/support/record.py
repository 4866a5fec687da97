"""Records what version 0.1.0 writes to Vault, for tests/integration/test_side_by_side.py.

`PYTHONPATH=tests python -m support.record` writes tests/integration/recorded_0_1_0.json anew. It takes a clone of the
repository in which the commit of that version is.
"""

import http.client
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from support.cli import World
from support.side_by_side import DATE, RELEASE, Version, lock_file, released
from support.vault import Vault
from vault_plugin.demo.embedded import openbao
from vault_plugin.demo.simulator import Simulator
from vault_plugin.tokens.jwt import Kind, Token

RECORD = Path(__file__).parents[1] / "integration/recorded_0_1_0.json"
NAMES = ["26", "a b", "../x", "a/b", "é@x.com", "+", "*", "~", ".", "{{x}}", "x" * 300, "\U0001f98a"]
Request = dict[str, Any]


@contextmanager
def proxy(address: str, seen: list[Request]) -> Iterator[str]:
    """A server that passes all on to Vault, and appends the requests that write; its address."""
    place = urlsplit(address).netloc

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.command != "GET":
                seen.append({"method": self.command, "path": self.path, "body": json.loads(body or b"null")})
            upstream = http.client.HTTPConnection(place)
            upstream.request(self.command, self.path, body, dict(self.headers))
            response = upstream.getresponse()
            content = response.read()
            self.send_response(response.status)
            for name, text in response.getheaders():
                if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                    self.send_header(name, text)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            upstream.close()

        do_POST = do_PUT = do_DELETE = do_PATCH = do_LIST = do_GET  # noqa: N815  as http.server calls them

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def anonymous(value: Any, names: dict[str, str], dates: dict[str, str]) -> Any:
    """The value with names in braces, as str.format has them, for what differs from run to run."""
    if isinstance(value, dict):
        own = next((dates[text] for text in value.values() if isinstance(text, str) and text in dates), None)
        found = {name: anonymous(one, names, dates) for name, one in value.items()}
        if "rejected_at" in value:
            found["rejected_at"] = f"{{now:{DATE}}}"
        if own is not None:
            for name in ("expires_at", "issued_at"):
                datetime.strptime(value[name], DATE).astimezone(UTC)  # or the form is another one
                found[name] = f"{{{own}_{name}:{DATE}}}"
        return found
    if isinstance(value, list):
        return [anonymous(one, names, dates) for one in value]
    if isinstance(value, str):
        assert "{" not in value
        for text, name in names.items():
            value = value.replace(text, f"{{{name}}}")
    return value


def scenes(world: World, old: Version, seen: list[Request]) -> dict[str, list[Request]]:
    """What each call of version 0.1.0 writes, in this order."""

    def minted() -> None:
        old.get()

    def renewed() -> None:
        old.get("--renew")

    def rejected() -> None:
        old.reject(world.endpoint.issued[-1])

    written = {}
    for scene in (minted, renewed, rejected):
        scene()
        written[scene.__name__] = seen.copy()
        seen.clear()
    names: dict[str, str] = {world.mount: "mount", world.endpoint.url: "issuer"}
    dates: dict[str, str] = {}
    for number, raw in enumerate(world.endpoint.issued):
        kind = Kind.REFRESH if number % 2 == 0 else Kind.ACCESS
        token, name = Token.from_jwt(raw, kind), f"{kind}_{number // 2 + 1}"
        names |= {raw: name, token.jti: f"{name}_jti"}
        dates |= {raw: name, token.jti: name}
    made: dict[str, list[Request]] = anonymous(written, names, dates)
    return made


def paths(old: Version) -> list[list[str]]:
    """Company, user and path of the access token, as version 0.1.0 has it."""
    script = """if True:
        import json, sys
        from vault_plugin.identity import Identity
        from vault_plugin.tokens import Kind
        names = json.loads(sys.argv[1])
        pairs = list(zip(names[::-1], names))
        print(json.dumps([[one, other, Identity(other, one).path("p", Kind.ACCESS)] for one, other in pairs]))
    """
    command = [sys.executable, "-c", script, json.dumps(NAMES)]
    done = subprocess.run(command, env=old.environ, cwd="/", capture_output=True, text=True, check=True)
    found: list[list[str]] = json.loads(done.stdout)
    return found


def main() -> None:
    """Write the record."""
    record: dict[str, Any] = {"commit": RELEASE}
    with tempfile.TemporaryDirectory() as name, openbao() as server:
        vault = Vault(server.address, server.root_token)
        folder = released(Path(name))
        assert folder, "the commit is not in this clone"
        for kind in ("v2", "v1"):
            seen: list[Request] = []
            with Simulator() as endpoint, proxy(server.address, seen) as address:
                home = Path(name, kind)
                home.mkdir()
                world = World(endpoint, Vault(address, vault.root_token), vault.mount(kind), home)
                old = Version(world, folder)
                record[kind] = scenes(world, old, seen)
                assert lock_file(world).exists()
        record["paths"] = paths(old)
        vault.close()
    RECORD.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
