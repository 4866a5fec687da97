"""Manifests, queries and lists of hosts as hypothesis makes them up, and what the commands make of them.

Each `read_...` returns where the input is refused as it should be; any other exception would be exit code 70.
"""

import csv
import io
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

import pytest
from hypothesis import strategies as st

from support.texts import ANY_TEXT
from vault_plugin.commands.helper import helper
from vault_plugin.errors import KlearstackVaultError, StoreError
from vault_plugin.manifest.model import Manifest
from vault_plugin.manifest.row import IDENTITY_KEYS, Row
from vault_plugin.manifest.shards import Shard
from vault_plugin.manifest.targets import KEYS, settings_of
from vault_plugin.protocols import bazel, bearer, git, kubernetes, terraform
from vault_plugin.settings import Settings

URL = "https://api.example"
ENVIRON = {"KLEARSTACK_URL": URL, "VAULT_ADDR": "https://v.example", "VAULT_TOKEN": "hvs.x"}
SETTINGS = Settings(user_id="26", company_name="Acme", url=URL, vault_addr=("https://v.example",))

# What is odd to one of the readers, between what is not.
WORDS = st.sampled_from(
    [
        *(
            "26",
            "007",
            "-0",
            "1E+05",
            "1.23457E+05",
            "null",
            "~",
            "true",
            "",
            " ",
            "-",
            "a b",
            "\u00e9",
            "e\u0301",
        ),
        *(
            "\u200b",
            "\u202e",
            "\ufeff",
            "\x00",
            "\x7f",
            "\ud800",
            "\udcff",
            "x" * 300,
            "9" * 5000,
            "{",
            "{user_id}",
        ),
        *(
            "/x/{user_id}",
            "/x/../y",
            "/x/{}",
            "relative",
            "https://v.example",
            "https://v.example:0",
            "http://",
            "//",
        ),
        *(
            "https://[::1",
            "https://v.example,,",
            "unix:///x",
            "token",
            "approle",
            "jwt",
            "kubernetes",
            "..",
            "%",
            "+",
        ),
        *(
            "s.",
            "1h30m",
            "1e999",
            "nan",
            "-1",
            "0",
            "'",
            '"',
            "*x",
            "&x",
            "!x",
            "# x",
            "a: b",
            "- a",
            "=1+1",
            "@",
        ),
    ]
)
TEXTS = WORDS | ANY_TEXT
NAMES = st.sampled_from([*IDENTITY_KEYS, *KEYS, "notes"]) | TEXTS
VALUES: st.SearchStrategy[object] = (
    TEXTS | st.none() | st.integers() | st.floats() | st.booleans() | st.just([1]) | st.just({"a": {}})
)
FIELDS = st.dictionaries(NAMES, VALUES, max_size=4)
SCRAPS = st.lists(
    st.sampled_from(
        [
            b"identities:\n", b"targets", b"defaults: ", b"- ", b"a: b\n", b"{", b"}", b"[", b"]", b'"', b"'", b",", b":", b"\n",
            b"  ", b"!!str ", b"&x ", b"*x", b"? ", b"---\n", b"...\n", b"%YAML 1.1\n", b"# ", b"|\n", b"\t", b"\xff", b"\xef\xbb\xbf", b"\x00",
            b"\r", b"\\ud800", b"1.5", b"null", b"user_id,file\n", b"\xc3\xa9", b"user_id", b"name", b"company_name: Acme", b";", b"\xff\xfe",
            b"\r\n", b"1E+05", b",,", b"\\UFFFFFFFF", b"!<x>", b"%TAG ! x\n",
        ]
    ),
    max_size=30,
).map(b"".join)  # fmt: skip


def _spoilt(raw: bytes, at: float, cut: int, junk: bytes) -> bytes:
    place = int(at * len(raw))
    return raw[:place] + junk + raw[place + cut :]


def _spoiling(written: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """What is written there, or with something cut out and something put in."""
    return written | st.builds(
        _spoilt, written, st.floats(0, 1), st.integers(0, 5), SCRAPS | st.binary(max_size=5)
    )


def _as_csv(header: Collection[str], records: Collection[Collection[str]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows([header, *records])
    return text.getvalue().encode(errors="surrogatepass")


def _as_jsonl(rows: Collection[Mapping[str, object]]) -> bytes:
    return b"".join(json.dumps(one).encode() + b"\n" for one in rows)


def _as_yaml(sections: Mapping[str, object]) -> bytes:
    return json.dumps(sections).encode()  # JSON is YAML


_ROWS = st.lists(FIELDS, max_size=4)
_MANIFESTS = {
    "csv": st.builds(_as_csv, st.lists(NAMES, max_size=5), st.lists(st.lists(TEXTS, max_size=5), max_size=4))
    | st.builds(
        _as_csv, st.just(IDENTITY_KEYS), st.lists(st.lists(TEXTS, min_size=4, max_size=4), max_size=4)
    ),
    "jsonl": st.builds(_as_jsonl, _ROWS),
    "yaml": st.fixed_dictionaries(
        {}, optional={"defaults": FIELDS, "targets": _ROWS, "identities": _ROWS, "x": VALUES}
    ).map(_as_yaml),
}
_CASES = {form: st.tuples(st.just(form), _spoiling(one) | SCRAPS) for form, one in _MANIFESTS.items()}
MANIFESTS = st.one_of(*_CASES.values())
YAML_MANIFESTS = _CASES["yaml"]


def read_manifest(case: tuple[str, bytes]) -> None:
    """As `sync` and `watch` do, short of a request."""
    form, raw = case

    def gathered(row: Row | None) -> Settings:
        return settings_of(row, {}, ENVIRON)

    with suppress(KlearstackVaultError):
        manifest = Manifest(io.BytesIO(raw), form, Shard(1, 1), "Acme", KEYS, gathered)
        assert len(list(manifest.entries())) == manifest.count


class _NoVault:
    """A broker beyond reach."""

    def _fail(self, *_: object, **__: object) -> NoReturn:
        raise StoreError("There is none.")

    get = reject = _fail


@contextmanager
def no_vault(_: Settings) -> Iterator[Any]:
    """In place of `connect` in QUERY_MODULES."""
    yield _NoVault()


QUERY_MODULES = (bearer, git, terraform)

_JWT = "eyJhbGciOiJIUzI1NiJ9.eyJ0b2tlbl90eXBlIjogImFjY2VzcyIsICJleHAiOiAxfQ.c2ln"
_URIS = st.sampled_from([URL, f"{URL}:443/x", "https://[::1]", "https://x:0", "https://x:99999"]) | TEXTS
_GIT = st.lists(
    st.sampled_from(
        [
            *("protocol=https", "host=api.example", "capability[]=authtype", "wwwauth[]=Basic realm=x", "wwwauth[]="),
            *("username=u", "password=p", f"password={_JWT}", f"credential={_JWT}", "=", "[]=", "host=a=b", "\r", ""),
        ]
    )
    | st.builds("{}={}".format, st.sampled_from(["host", "protocol", "wwwauth[]", "password", "x"]), TEXTS),
    max_size=8,
).flatmap(lambda lines: st.sampled_from(["\n", "\r\n"]).map(lambda end: (end.join(lines) + end * 2).encode(errors="replace")))  # fmt: skip
_CLUSTERS = st.fixed_dictionaries({}, optional={"server": _URIS | VALUES, "x": VALUES}) | VALUES
_EXEC_INFO = st.fixed_dictionaries(
    {}, optional={"apiVersion": st.sampled_from(kubernetes.VERSIONS) | VALUES, "spec": st.fixed_dictionaries({}, optional={"cluster": _CLUSTERS}) | VALUES}
)  # fmt: skip
_BAZEL = st.fixed_dictionaries({}, optional={"uri": _URIS | VALUES, "x": VALUES})
_TERRAFORM_KEYS = (*terraform.REQUIRED, *terraform.OPTIONAL)
_TERRAFORM = st.dictionaries(st.sampled_from(_TERRAFORM_KEYS) | TEXTS, TEXTS | VALUES, max_size=5) | st.fixed_dictionaries(
    dict.fromkeys(terraform.REQUIRED, WORDS), optional=dict.fromkeys(terraform.OPTIONAL, TEXTS)
)  # fmt: skip
HOSTS = st.lists(
    st.sampled_from(["api.example", "x.example:8443", "[::1]:8080", "[::]", "[1::2::3]", "10.0.0.1", "x:0", ".x", "a..b", "*.x"])
    | TEXTS,
    max_size=4,
)  # fmt: skip

_READERS: dict[str, Callable[[bytes, Collection[str]], object]] = {
    "git": lambda raw, hosts: git.get(raw, SETTINGS, hosts),
    "erase": lambda raw, hosts: git.erase(raw, lambda: SETTINGS, hosts),
    "bazel": lambda raw, hosts: bazel.get_headers(raw, SETTINGS, hosts),
    "kubernetes": lambda raw, hosts: kubernetes.exec_credential(
        raw.decode(errors="surrogateescape"), SETTINGS, hosts, any_cluster=True
    ),
    "terraform": lambda raw, _: terraform.respond(raw, ENVIRON),
}
_DOCUMENTS = {"bazel": _BAZEL, "kubernetes": _EXEC_INFO, "terraform": _TERRAFORM}
_WRITTEN = {name: one.map(lambda query: json.dumps(query).encode()) for name, one in _DOCUMENTS.items()}
QUERIES = st.sampled_from(sorted(_READERS)).flatmap(
    lambda name: st.tuples(st.just(name), _spoiling(_WRITTEN.get(name, _GIT)) | SCRAPS | st.binary())
)


def read_query(case: tuple[str, bytes], hosts: Collection[str] = ()) -> None:
    """As the command of that protocol does, with `no_vault` behind it."""
    name, raw = case
    with suppress(KlearstackVaultError):
        _READERS[name](raw, hosts)


_SOUND = {
    "git": b"protocol=https\nhost=api.example\n\n",
    "erase": f"protocol=https\nhost=api.example\npassword={_JWT}\n\n".encode(),
    "bazel": json.dumps({"uri": URL}).encode(),
    "kubernetes": json.dumps({"apiVersion": kubernetes.VERSIONS[0]}).encode(),
}


def read_hosts(hosts: Collection[str]) -> None:
    """As options of each protocol, and as a variable of the environment."""
    for case in _SOUND.items():
        read_query(case, hosts)
    text = " ".join(hosts).replace("\0", "").encode(errors="replace").decode()
    with pytest.MonkeyPatch.context() as patch, suppress(KlearstackVaultError):
        patch.setenv("KLEARSTACK_HELPER_HOSTS", text)
        helper.main(["git", "store"], standalone_mode=False)
