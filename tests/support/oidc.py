"""Whoever issues JWTs to log in with, on loopback: a CI server and a Kubernetes, as Vault sees them."""

import base64
import http.server
import json
import os
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from support.tls import pki, serving_https


def encoded(content: bytes | dict[str, Any]) -> str:
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


class Platform:
    """A CI server with its keys at /jwks and OpenID's discovery, a Kubernetes with its token reviews.

    `issued` are the JWTs that are still good, `reviews` is what the reviews were asked, and with which authorization.
    """

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.issued: dict[str, dict[str, Any]] = {}
        self.reviews: list[tuple[str | None, dict[str, Any]]] = []

    @property
    def public_key(self) -> str:
        """The key that verifies its JWTs, as PEM."""
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return self._key.public_key().public_bytes(serialization.Encoding.PEM, form).decode()

    def issue(self, **claims: object) -> str:
        """A JWT for a pipeline, unless the claims say otherwise."""
        now = int(time.time())
        claims = {"sub": "project:7", "aud": ["vault"], "iat": now, "exp": now + 300} | claims
        signed = f"{encoded({'alg': 'ES256', 'kid': '1'})}.{encoded(claims)}"
        numbers = decode_dss_signature(self._key.sign(signed.encode(), ec.ECDSA(SHA256())))
        jwt = f"{signed}.{encoded(b''.join(number.to_bytes(32) for number in numbers))}"
        self.issued[jwt] = claims
        return jwt

    def issue_to_pod(self, namespace: str = "build", account: str = "runner", **claims: object) -> str:
        """A pod's service account token."""
        about = {"namespace": namespace, "serviceaccount": {"name": account, "uid": "u-1"}}
        subject = f"system:serviceaccount:{namespace}:{account}"
        return self.issue(sub=subject, **{"kubernetes.io": about}, **claims)

    def keys(self) -> dict[str, Any]:
        numbers = self._key.public_key().public_numbers()
        place = {"x": encoded(numbers.x.to_bytes(32)), "y": encoded(numbers.y.to_bytes(32))}
        return {"keys": [{"kty": "EC", "crv": "P-256", "kid": "1", "alg": "ES256", "use": "sig", **place}]}

    def document(self, path: str, authorization: str | None) -> dict[str, Any] | None:
        """What lies there, for who may see it."""
        discovery = {"issuer": self.url, "jwks_uri": f"{self.url}/jwks"}
        return {"/jwks": self.keys(), "/.well-known/openid-configuration": discovery}.get(path)

    def fault(self, path: str) -> str:
        """How an answer fails: `reset`, `empty` (the connection ends without one), `blank` (no body); "": not at all."""
        return ""

    def review(self, authorization: str | None, spec: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Kubernetes' answer to a TokenReview."""
        self.reviews.append((authorization, spec))
        if (authorization or "").removeprefix("Bearer ") not in self.issued:
            return 401, {"kind": "Status", "status": "Failure", "reason": "Unauthorized", "code": 401}
        status: dict[str, Any] = {"user": {}, "error": "invalid bearer token"}
        if claims := self.issued.get(spec["token"]):
            user = {"username": claims["sub"], "uid": "u-1", "groups": ["system:serviceaccounts"]}
            status = {"authenticated": True, "user": user, "audiences": claims["aud"]}
        return 201, {"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "status": status}

    @contextmanager
    def serving(self, folder: Path) -> Iterator[None]:
        platform, files = self, pki(folder)

        class Door(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if fault := platform.fault(self.path):
                    self._fail(fault)
                    return
                found = platform.document(self.path, self.headers["Authorization"])
                self._answer(404 if found is None else 200, found or {})

            def do_POST(self) -> None:
                assert self.path == "/apis/authentication.k8s.io/v1/tokenreviews"
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self._answer(*platform.review(self.headers["Authorization"], asked["spec"]))

            def _fail(self, fault: str) -> None:
                self.close_connection = True
                if fault == "reset":
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    os.close(self.connection.detach())
                elif fault == "blank":
                    self.send_response(200)
                    self.send_header("Content-Length", "0")
                    self.end_headers()

            def _answer(self, status: int, content: dict[str, Any]) -> None:
                body = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        with serving_https(files, Door) as url:
            self.url, self.ca_file = url, Path(files["ca"])
            self.ca = self.ca_file.read_text()
            yield
