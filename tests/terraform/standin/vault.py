"""A stand-in for hashicorp/vault: `vault_kv_secret_v2`, ephemeral and managed, on a real Vault or OpenBao."""

import hashlib
import hmac
import json
import os
import secrets
import ssl
import sys
import threading
import urllib.request
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote

from . import protocol
from .provider import Provider, ProviderError, Resource, Source, Values, go_json

_SALT = secrets.token_bytes(16)
_METADATA = ("max_versions", "cas_required", "custom_metadata")
_OWN_TOKEN = {"display_name": "terraform", "ttl": "1200s", "explicit_max_ttl": "1200s", "renewable": False}


class _Vault:
    """Vault's API, by a token of its own that it makes from the one it is given, as the real provider does."""

    def __init__(self) -> None:
        self._config: Values = {}
        self._token = ""
        self._login = threading.Lock()

    def configure(self, config: Values) -> None:
        self._config = config

    def call(self, method: str, block: Values, kind: str, body: object = None, query: str = "") -> Any:
        """The data or the metadata of the secret that a block names; None if there is no such secret."""
        with self._login:
            self._token = self._token or self._own_token()
        url = quote(_path(block, kind)) + query
        return self._request(method, url, self._token, block["namespace"], body).get("data")

    def _own_token(self) -> str:
        token = self._setting("token")
        failed = "failed to lookup token, err="
        try:
            self._request("GET", "auth/token/lookup-self", token, None, None)  # skip_child_token or not
            if self._config["skip_child_token"]:
                return token
            failed = "failed to create limited child token: "
            made = self._request("PUT", "auth/token/create", token, None, _OWN_TOKEN)
        except ProviderError as error:
            raise ProviderError("Error Configuring Resource Client", failed + error.detail) from None
        return str(made["auth"]["client_token"])

    def _request(self, method: str, path: str, token: str, namespace: str | None, body: object) -> Any:
        url = f"{self._setting('addr').rstrip('/')}/v1/{path}"
        headers = {item["name"]: item["value"] for item in self._config["headers"]}
        headers |= {"X-Vault-Token": token, "X-Vault-Request": "true"}
        if within := "/".join(filter(None, (self._setting("namespace"), namespace))):
            headers["X-Vault-Namespace"] = within
        _log(method, path, headers)
        data = None if body is None else json.dumps(body).encode()
        trust = ssl.create_default_context(cafile=os.environ.get("VAULT_CACERT"))
        try:
            request = urllib.request.Request(url, data, headers, method=method)
            with urllib.request.urlopen(request, timeout=60, context=trust) as response:
                return json.loads(response.read() or b"{}")
        except HTTPError as error:
            answer = json.loads(error.read() or b"{}")
            if error.code == 404:
                return answer  # that of a deleted version has data
            why = f"Code: {error.code}. Errors:\n\n" + "".join(
                f"* {line}\n" for line in answer.get("errors", ())
            )
        except (URLError, ValueError) as error:
            why = str(error)
        what = "Read Resource from Vault" if method == "GET" else "Write Resource to Vault"
        raise ProviderError(f"Unable to {what}", f"Error making API request.\n\nURL: {method} {url}\n{why}")

    def _setting(self, name: str) -> str:
        return self._config["address" if name == "addr" else name] or os.environ.get(
            f"VAULT_{name.upper()}", ""
        )


class _Kv:
    """A secret of KV version 2, to read and to write."""

    def __init__(self, vault: _Vault) -> None:
        self._call = vault.call

    def open(self, config: Values) -> Values:
        """What the ephemeral resource computes; `data` is null if the version was deleted or has expired."""
        query = "" if config["version"] is None else f"?version={config['version']}"
        answer = self._call("GET", config, "data", query=query)
        if answer is None:
            raise ProviderError("Unable to Read Resource from Vault", "Vault response was nil")
        metadata = answer["metadata"]
        return {
            "data": _only_strings(answer["data"]),
            "data_json": "{}",  # always: hashicorp/terraform-provider-vault#2520
            "custom_metadata": _only_strings(metadata["custom_metadata"]),
            **{name: metadata[name] for name in ("created_time", "deletion_time", "destroyed")},
        }

    def check(self, config: Values) -> None:
        """What the schema of the managed resource cannot say."""
        if (config["data_json"] is None) == (config["data_json_wo"] is None):
            raise ProviderError("Invalid combination of arguments", "Give one of data_json, data_json_wo.")
        if (config["data_json_wo"] is None) != (config["data_json_wo_version"] is None):
            why = "data_json_wo and data_json_wo_version go together."
            raise ProviderError("Missing required argument", why)

    def read(self, state: Values) -> Values | None:
        """The state as Vault has it; None if the secret is gone. What was write-only is not read back."""
        if state["disable_read"]:
            return state
        answer = self._call("GET", state, "data")
        if answer is None:
            return None
        self._call(
            "GET", state, "metadata"
        )  # for the argument custom_metadata, which is not in the schema here
        about = answer["metadata"].items()
        metadata = {name: value if isinstance(value, str) else go_json(value) for name, value in about}
        data = None if state["data_json"] is None else go_json(answer["data"])
        return state | {"metadata": metadata, "data_json": data}

    def write(self, prior: Values | None, planned: Values, config: Values) -> Values:
        """Write a version; the new state. An update writes the metadata, too, as they were read."""
        data = json.loads(config["data_json_wo"] or config["data_json"])
        self._call("PUT", config, "data", {"data": data})
        if prior is not None:
            about = self._call("GET", config, "metadata")
            kept = {name: about[name] for name in _METADATA if about[name]}
            self._call("PUT", config, "metadata", kept)
        state = planned | {"id": _path(config), "path": _path(config), "data": {}, "metadata": {}}
        return self.read(state) or state

    def delete(self, state: Values) -> None:
        self._call("DELETE", state, "metadata" if state["delete_all_versions"] else "data")


def _log(method: str, path: str, headers: dict[str, str]) -> None:
    """What the real provider writes into Terraform's log of each request: all headers, the Vault token's as an HMAC."""
    token = hmac.new(_SALT, headers["X-Vault-Token"].encode(), hashlib.sha256).hexdigest()
    lines = (headers | {"X-Vault-Token": f"hmac-sha256:{token}"}).items()
    request = "\n".join([f"{method} /v1/{path}", *(f"{name}: {value}" for name, value in lines)])
    entry = {"@level": "debug", "@message": f"Vault API Request Details:\n{request}"}
    sys.stderr.write(json.dumps(entry) + "\n")
    sys.stderr.flush()


def _path(block: Values, kind: str = "data") -> str:
    return f"{block['mount']}/{kind}/{block['name']}"


def _only_strings(values: Values | None) -> Values | None:
    for value in (values or {}).values():
        if not isinstance(value, str):
            why = f"can't unmarshal a {type(value).__name__} into *string, expected string"
            raise ProviderError("Value Conversion Error", why)
    return values


def add_to(server: Any) -> None:
    vault = _Vault()
    kv = _Kv(vault)
    settings = {
        "address": "string optional",
        "token": "string optional",
        "namespace": "string optional",
        "skip_child_token": "bool optional",
        "headers": {"name": "string required", "value": "string required"},
    }
    secret = {"mount": "string required", "name": "string required", "namespace": "string optional"}
    ephemeral = secret | {
        "mount_id": "string optional",
        "version": "number optional",
        "data": "map(string) computed",
        "data_json": "string computed",
        "created_time": "string computed",
        "deletion_time": "string computed",
        "destroyed": "bool computed",
        "custom_metadata": "map(string) computed",
    }
    managed = secret | {
        "data_json": "string optional sensitive",
        "data_json_wo": "string optional sensitive write_only",
        "data_json_wo_version": "number optional",
        "disable_read": "bool optional",
        "delete_all_versions": "bool optional",
        "id": "string computed",
        "path": "string computed",
        "data": "map(string) computed sensitive",
        "metadata": "map(string) computed",
    }
    resource = Resource(
        managed, kv.check, kv.read, kv.write, kv.delete, ("mount", "name", "namespace"), ("metadata",)
    )
    provider = Provider(
        schema=settings,
        configure=vault.configure,
        ephemeral={"vault_kv_secret_v2": Source(ephemeral, kv.open)},
        resources={"vault_kv_secret_v2": resource},
    )
    protocol.add(provider, server)
