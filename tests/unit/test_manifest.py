"""A manifest as a whole: all that is wrong is told at once and nothing is quoted; what is right streams through."""

import errno
import io
import json
import os
import re
import select
import subprocess
import sys
import tempfile
import threading
import unicodedata
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from support.devices import device
from support.fakes import jwt
from support.manifests import made_file, memory_of_checking
from support.memory import peak_of
from support.texts import NAMES

from vault_plugin.errors import OutputError, SettingsError, UsageError, WriteError
from vault_plugin.manifest.entries import MAX_NAME, Entry
from vault_plugin.manifest.formats import format_of, rewindable
from vault_plugin.manifest.model import MAX_SHOWN, Manifest
from vault_plugin.manifest.row import Row
from vault_plugin.manifest.shards import Shard
from vault_plugin.settings import Settings
from vault_plugin.timing.deadline import Deadline
from vault_plugin.tokens.identity import Identity
from vault_plugin.tokens.place import Place

ALL = Shard(1, 1)
KEYS = ("address", "mount", "namespace", "path_prefix")


def settings_of(row: Row | None, env: Mapping[str, str] | None = None) -> Settings:
    """As a target's would be gathered: `mount: bad` will not do."""
    fields = {} if row is None else row.fields
    if fields.get("mount") == "bad":
        raise SettingsError("--mount will not do.")
    return Settings(
        user_id="-",
        company_name="-",
        url="https://api.example",
        vault_addr=tuple(fields.get("address", "https://vault.example").split(",")),
        vault_namespace=fields.get("namespace"),
        mount=fields.get("mount", "secret"),
        path_prefix=fields.get("path_prefix", "klearstack"),
    )


def manifest(
    text: str | bytes,
    form: str = "yaml",
    *,
    shard: Shard = ALL,
    company: str | None = None,
    settings: Callable[[Row | None], Settings] = settings_of,
) -> Manifest:
    raw = text.encode() if isinstance(text, str) else text
    return Manifest(io.BytesIO(raw), form, shard, company, KEYS, settings)


def entries(text: str | bytes, form: str = "yaml", *, company: str | None = None) -> list[Entry]:
    return list(manifest(text, form, company=company).entries())


def problems(
    text: str | bytes,
    form: str = "yaml",
    *,
    company: str | None = None,
    settings: Callable[[Row | None], Settings] = settings_of,
) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        manifest(text, form, company=company, settings=settings)
    first, *rest = str(caught.value).split("\n  ")
    assert first == "The manifest is invalid; no request was sent:"
    return rest


def test_a_manifest_is_identities_with_their_lines_in_their_order() -> None:
    text = """
defaults:
  company_name: Acme
identities:
- user_id: 026
- {user_id: 26, company_name: Initech, file: /run/x}
"""
    assert entries(text) == [
        Entry(5, Identity("026", "Acme"), None),
        Entry(6, Identity("26", "Initech"), "/run/x"),
    ]


def test_the_other_formats_say_the_same() -> None:
    for form, text in (
        ("jsonl", '{"user_id": 26, "company_name": "Acme", "file": "/x"}\n'),
        ("csv", "file,company_name,user_id\n/x,Acme,26\n"),
    ):
        ((_, identity, file, _),) = entries(text, form)
        assert (identity, file) == (Identity("26", "Acme"), "/x")


def test_the_company_is_the_identitys_else_the_default_else_that_of_the_settings() -> None:
    rows = "identities:\n- user_id: 1\n- user_id: 2\n  company_name: Own\n"
    default = "defaults: {company_name: Default}\n"
    assert [one.identity.company_name for one in entries(rows, company="Set")] == ["Set", "Own"]
    assert [one.identity.company_name for one in entries(default + rows, company="Set")] == ["Default", "Own"]


def test_an_empty_field_is_one_left_out() -> None:
    text = "defaults: {company_name: Acme, file: '/x/{user_id}'}\nidentities:\n- {user_id: 1, file: ~}\n"
    assert entries(text) == [Entry(3, Identity("1", "Acme"), "/x/1")]
    assert entries("user_id,company_name\n1,\n", "csv", company="Acme") == [
        Entry(2, Identity("1", "Acme"), None)
    ]


def test_a_company_or_address_that_is_null_or_empty_becomes_no_other_one() -> None:
    text = "defaults: {company_name: ''}\ntargets: [{address: ~, mount: kv}]\nidentities:\n- {user_id: 1, company_name: ~}\n"
    empty = "is null or empty: set a value, or remove the key"
    assert problems(text, company="Acme") == [
        f"line 1: `company_name` {empty}",
        f"line 2: `address` {empty}",
        f"line 4: `company_name` {empty}",
    ]


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("csv", "user_id,company_name\n1,Acme \n"),
        ("jsonl", '\n{"user_id": "1", "company_name": "Acme "}\n'),
        ("yaml", "identities:\n- {user_id: 1, company_name: 'Acme '}\n"),
    ],
)
def test_a_name_with_what_nobody_sees_is_told_by_its_line(form: str, text: str) -> None:
    assert problems(text, form) == ["line 2: `company_name` begins or ends with white space"]
    said = problems(text.replace("Acme ", "Ac\u2060me").replace("1", "1\u200e"), form)
    place = "has the control or invisible character"
    assert said == [
        f"line 2: `user_id` {place} U+200E at position 2",
        f"line 2: `company_name` {place} U+2060 at position 3",
    ]


def test_a_default_company_with_what_nobody_sees_is_told_once() -> None:
    rows = "identities:\n- user_id: 1\n- user_id: 2\n- {user_id: 3, company_name: 'B '}\n"
    assert problems(f"defaults: {{company_name: 'A '}}\n{rows}") == [
        f"line {line}: `company_name` begins or ends with white space" for line in (1, 5)
    ]


def test_names_that_are_not_nfc_are_taken_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    names = [unicodedata.normalize("NFD", name) for name in ("\u00e9", "\u00e8")]
    rows = f"user_id,company_name\n\u00e9,A\n{names[0]},A\n1,{names[1]}\n"
    assert [one.line for one in entries(rows, "csv")] == [2, 3, 4]
    (warning,) = caplog.messages
    assert warning.startswith("line 3 of the manifest")


def test_entries_may_be_asked_for_again() -> None:
    one = manifest("identities: [{user_id: 1, company_name: Acme}]")
    assert list(one.entries()) == list(one.entries()) != []


def test_only_the_entries_of_the_shard_are_counted_and_handed_out() -> None:
    text = "user_id\n" + "".join(f"{number}\n" for number in range(100))
    whole = manifest(text, "csv", company="Acme")
    parts = [manifest(text, "csv", company="Acme", shard=Shard(number, 3)) for number in (1, 2, 3)]
    assert whole.count == 100 == sum(part.count for part in parts)
    assert all(part.count == len(list(part.entries())) > 0 for part in parts)
    assert sorted(one for part in parts for one in part.entries()) == sorted(whole.entries())


def test_what_is_wrong_in_another_shard_is_wrong_too() -> None:
    text = "user_id\n1\n1\n"
    for number in (1, 2):
        with pytest.raises(SettingsError, match="line 3"):
            manifest(text, "csv", company="Acme", shard=Shard(number, 2))


def test_all_that_is_wrong_is_told_at_once_with_line_and_key() -> None:
    text = """
defaults: {file: /x, user_id: 9}
targets:
- {mount: bad}
- {adress: x}
identities:
- user_id: 1
- company_name: Acme
- {}
- {user_id: [1], company_name: Acme}
- {user_id: 2, company_name: Acme, file: relative}
- 3
"""
    assert problems(text) == [
        "line 2: `user_id` is not a key of defaults",
        "line 4: `targets` --mount will not do.",
        "line 5: `adress` is not a key of targets",
        "line 7: `company_name` is missing",
        "line 9: `company_name` is missing",
        "line 10: `user_id` is not a plain string or number without a tag or an alias",
        "line 11: `file` must be an absolute path; it may contain {user_id} and {company_name}",
        "line 12: `identities` has an item that is not a mapping",
    ]


def test_an_identity_without_user_is_told_even_if_defaults_try_to_name_one() -> None:
    said = problems("identities:\n- {company_name: Acme}\n- {file: /x}\n")
    assert said == [
        "line 2: `user_id` is missing",
        "line 3: `user_id` is missing",
        "line 3: `company_name` is missing",
    ]


def test_a_name_that_is_no_utf_8_is_told_and_not_quoted() -> None:
    said = problems('{"user_id": "CANARY\\ud800", "company_name": "Acme"}', "jsonl")
    assert said == ["line 1: `user_id` is not valid UTF-8"]


def test_a_key_that_nobody_knows_is_told_once_where_it_stands_first() -> None:
    one = '{"user_id": %s, "company": "a", "company_name": "Acme"%s}\n'
    text = one % (1, "") + one % (2, ', "notes": "x"') + one % (3, ', "notes": "y"')
    assert problems(text, "jsonl") == [
        "line 1: `company` is not a key of identities",
        "line 2: `notes` is not a key of identities",
    ]


def test_a_headerless_csv_is_told_once_and_none_of_its_cells_is_quoted() -> None:
    text = "alice,acme\n" + "".join(f"user{number},acme\n" for number in range(60))
    assert problems(text, "csv") == [
        "line 1: names no column: the header line (user_id, company_name, file, name) is missing"
    ]
    assert problems(text.replace(",", ";"), "csv") == problems(text, "csv")


def test_at_most_so_many_problems_are_shown_and_the_rest_are_counted() -> None:
    def said(count: int) -> list[str]:
        return problems('{"company_name": "Acme"}\n' * count, "jsonl")

    assert len(said(MAX_SHOWN)) == MAX_SHOWN
    assert said(MAX_SHOWN)[-1] == f"line {MAX_SHOWN}: `user_id` is missing"
    assert said(MAX_SHOWN + 1)[MAX_SHOWN:] == ["and 1 more"]
    assert said(MAX_SHOWN + 950)[MAX_SHOWN:] == ["and 950 more"]


@pytest.mark.parametrize(
    ("form", "text", "lines"),
    [
        (
            "yaml",
            "identities:\n- {user_id: 1}\n- {user_id: 2}\n- user_id: '1'\n  company_name: Acme\n",
            (4, 2),
        ),
        ("jsonl", '{"user_id": 1}\n{"user_id": 2}\n\n{"user_id": "1"}\n', (4, 1)),
        ("csv", "user_id,company_name\n1,\n2,\n1,Acme\n", (4, 2)),
    ],
)
def test_an_identity_that_stands_there_twice_is_told_with_both_lines(
    form: str, text: str, lines: tuple[int, int]
) -> None:
    assert problems(text, form, company="Acme") == [
        f"line {lines[0]}: `user_id` and company are the same as in line {lines[1]}"
    ]


def test_an_identity_that_stands_twice_on_one_line_is_told_too() -> None:
    text = "identities: [{user_id: 1, file: /a}, {user_id: 1, file: /a}]"
    assert problems(text, company="Acme") == [
        "line 1: `user_id` and company are the same as in line 1",
        "line 1: `file` is the same as in line 1",
    ]


def test_identities_that_look_alike_are_none_that_stand_there_twice() -> None:
    text = '{"user_id": "1"}\n{"user_id": "01"}\n{"user_id": "1", "company_name": "acme"}\n{"user_id": "1  1"}\n{"user_id": "l"}\n'
    assert len(entries(text, "jsonl", company="Acme")) == 5


def test_each_further_one_is_told_with_the_line_of_the_first() -> None:
    said = problems("user_id\n1\n1\n1\n", "csv", company="Acme")
    assert said == [f"line {line}: `user_id` and company are the same as in line 2" for line in (3, 4)]


def test_two_identities_in_one_file_are_told() -> None:
    text = "defaults: {company_name: Acme, file: /x}\nidentities:\n- {user_id: 1}\n- {user_id: 2}\n- {user_id: 3, file: /y}\n"
    assert problems(text) == ["line 4: `file` is the same as in line 3"]


def test_a_file_in_a_folder_that_a_link_leads_to_is_one(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    text = f"user_id,file\n1,{tmp_path}/folder/x/y\n2,{tmp_path}/link/x/y\n3,{tmp_path}/link/y\n"
    assert problems(text, "csv", company="Acme") == ["line 3: `file` is the same as in line 2"]


def test_a_file_that_is_written_in_two_ways_is_one() -> None:
    text = "user_id,file\n1,/x/y\n2,/x//./y\n"
    assert problems(text, "csv", company="Acme") == ["line 3: `file` is the same as in line 2"]


def test_identities_without_a_file_share_none() -> None:
    assert len(entries("user_id\n1\n2\n", "csv", company="Acme")) == 2


# Names for metrics


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("yaml", "identities:\n- {user_id: 1, name: billing job}\n- user_id: 2\n"),
        ("jsonl", '\n{"user_id": 1, "name": "billing job"}\n{"user_id": 2, "name": null}\n'),
        ("csv", "user_id,name\n1,billing job\n2,\n"),
    ],
)
def test_an_identity_may_have_a_name_for_metrics(form: str, text: str) -> None:
    assert entries(text, form, company="Acme") == [
        Entry(2, Identity("1", "Acme"), None, "billing job"),
        Entry(3, Identity("2", "Acme"), None),
    ]


def test_a_name_that_is_no_label_is_refused() -> None:
    for name, problem in (
        ("x" * (MAX_NAME + 1), "has more than 64 characters"),
        ("a\\u0007b", "has the control or invisible character U+0007 at position 2"),
        ("a\\nb", "has the control or invisible character U+000A at position 2"),
        ("a\\u202eb", "has the control or invisible character U+202E at position 2"),
        ("\\u200b", "has the control or invisible character U+200B at position 1"),
        ("a ", "begins or ends with white space"),
        ("\\ud800", "is not valid UTF-8"),
    ):
        text = f'{{"user_id": 1, "name": "{name}"}}\n{{"user_id": 2, "name": "{"x" * MAX_NAME}"}}\n'
        assert problems(text, "jsonl", company="Acme") == [f"line 1: `name` {problem}"], name


def test_two_identities_of_one_name_are_told_since_one_of_them_would_be_lost() -> None:
    text = "user_id,name\n1,a\n2,b\n3,a\n4,\n5,\n"
    assert problems(text, "csv", company="Acme") == ["line 4: `name` is the same as in line 2"]


def test_there_is_no_default_name() -> None:
    text = "defaults: {name: a, company_name: Acme}\nidentities: [{user_id: 1}]\n"
    assert problems(text) == ["line 1: `name` is not a key of defaults"]


# Files


def test_a_file_may_have_the_identity_in_it_as_vaults_paths_do() -> None:
    for template, path in (
        ("/x", "/x"),
        ("/x/{company_name}/{user_id}.jwt", "/x/Acme~20~26~20Co~2E/~2E~2E~2Fa.jwt"),
        ("/{user_id}{user_id}", "/~2E~2E~2Fa~2E~2E~2Fa"),
        ("/x/..y/...", "/x/..y/..."),
        ("/x y", "/x y"),
        ("/x//./y", "/x/y"),
    ):
        ((_, _, file, _),) = entries(
            f'{{"user_id": "../a", "company_name": "Acme & Co.", "file": "{template}"}}', "jsonl"
        )
        assert file == path, template


def test_a_file_that_leads_who_knows_where_is_refused() -> None:
    for template in (
        "x",
        "./x",
        "~/x",
        "{user_id}",
        "/x/../y",
        "/..",
        "/x/{user}",
        "/x/{user_id",
        "/x/user_id}",
        "/x/{}",
        "/x/{user-id}",
        "/x/{{user_id}}",
        "/x/{USER_ID}",
        "/x\\u0000y",
        "/x/\\ud800",
    ):
        text = f'{{"user_id": "..", "company_name": "Acme", "file": "{template}"}}'
        assert problems(text, "jsonl") == [
            "line 1: `file` must be an absolute path; it may contain {user_id} and {company_name}"
        ], template


@given(NAMES, NAMES)
def test_no_name_leads_out_of_its_folder(user: str, company: str) -> None:
    line = json.dumps({"user_id": user, "company_name": company, "file": "/x/{company_name}/{user_id}"})
    ((_, _, path, _),) = entries(line, "jsonl")
    assert path is not None
    assert os.path.normpath(path) == path
    assert path.count("/") == 3


# Targets


def test_without_targets_there_is_the_one_of_the_settings() -> None:
    (gather,) = manifest("identities: []").targets
    assert gather() == settings_of(None)


def test_each_target_is_gathered_once_until_it_is_asked_for_again() -> None:
    asked: list[tuple[object, str]] = []

    def watched(row: Row | None, deadline: str = "") -> Settings:
        asked.append((row and row.fields, deadline))
        return settings_of(row)

    a, kv = {"address": "https://a.example"}, {"mount": "kv"}
    for text, rows in (
        ("targets:\n- {address: 'https://a.example'}\n- {mount: kv}\nidentities: []\n", [a, kv]),
        ("identities: []\n", [None]),
    ):
        asked.clear()
        targets: Any = manifest(text, settings=watched).targets
        for row, gather in zip(rows, targets, strict=True):
            gather(deadline="5")
            found = gather()
            assert (found.vault_addr[0], found.mount) == (
                (row or {}).get("address", "https://vault.example"),
                (row or {}).get("mount", "secret"),
            )
        assert asked == [(row, "") for row in rows] + [(row, "5") for row in rows]
        targets[0]()
        assert asked[-1] == (rows[0], "")


def test_settings_that_will_not_do_are_told_with_the_rest() -> None:
    def unset(row: Row | None) -> Settings:
        raise SettingsError("--url (KLEARSTACK_URL) is missing.")

    said = problems("identities:\n- {user_id: 1}\n", settings=unset)
    assert said == ["line 2: `company_name` is missing", "--url (KLEARSTACK_URL) is missing."]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("{}", "{}"),
        ("{address: 'https://a'}", "{address: 'https://a'}"),
        ("{address: 'https://a,https://b'}", "{address: 'https://b,https://a'}"),
        ("{mount: secret}", "{path_prefix: klearstack}"),
    ],
)
def test_one_place_in_vault_named_by_two_targets_is_told(one: str, other: str) -> None:
    text = f"targets:\n- {one}\n- {other}\nidentities: []\n"
    assert problems(text) == ["line 3: `targets` names the same place in Vault as line 2"]


@pytest.mark.parametrize(
    "other", ["{address: 'https://a'}", "{mount: kv}", "{namespace: n}", "{path_prefix: p}"]
)
def test_targets_that_differ_in_anything_are_two_places(other: str) -> None:
    assert len(manifest(f"targets:\n- {{}}\n- {other}\nidentities: []\n").targets) == 2


# Secrets, and changes


def test_no_value_and_no_pasted_token_is_quoted() -> None:
    for text in (
        f"{jwt()}: 1\nidentities: []\n",
        f"identities:\n- {{user_id: 1, company_name: Acme, {jwt()}: x}}\n",
        f"identities:\n- {{user_id: 1, company_name: Acme, {jwt()}: [x], {jwt()}: y}}\n",
        f"identities:\n- {{user_id: 1, company_name: Acme, file: {jwt()}}}\n",
        f"identities:\n- {{user_id: [{jwt()}]}}\n- {jwt()}\n- {{user_id: 1, company_name: {jwt()}}}\n- {{user_id: 1, company_name: {jwt()}}}\n",
        f"targets: [{{mount: bad, namespace: {jwt()}}}]\nidentities: []\n",
        f"targets: {jwt()}\nidentities: {jwt()}\n",
        f"identities: [{jwt()}: {jwt()}: x]",
    ):  # fmt: skip
        said = "\n".join(problems(text))
        assert not any(part in said for part in jwt().split(".")), text


class Changing(io.BytesIO):
    """Another file, each time it is begun."""

    def __init__(self, *contents: bytes) -> None:
        super().__init__(contents[0])
        self._contents = list(contents)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if (offset, whence) == (0, os.SEEK_SET) and self._contents:
            self.truncate(super().seek(0))
            self.write(self._contents.pop(0))
        return super().seek(offset, whence)


def test_a_manifest_that_was_changed_meanwhile_into_one_that_will_not_do_ends_the_run() -> None:
    stream = Changing(b"user_id\n1\n2\n", b"user_id\n1\n\xff\n2\n")
    one = Manifest(stream, "csv", ALL, "Acme", KEYS, settings_of, "manifest m.csv")
    worked_through = one.entries()
    assert next(worked_through).identity.user_id == "1"
    with pytest.raises(SettingsError, match=r"^The manifest m\.csv was changed while"):
        next(worked_through)


class Broken(io.BytesIO):
    """A file on a file system that fails once it has been read to its end."""

    def read(self, size: int | None = -1, /) -> bytes:
        return self._intact(super().read(size))

    def read1(self, size: int | None = -1, /) -> bytes:
        return self._intact(super().read1(-1 if size is None else size))

    def readline(self, size: int | None = -1, /) -> bytes:
        return self._intact(super().readline(size))

    _failing = False

    def _intact(self, part: bytes) -> bytes:
        if self._failing:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self._failing = not part
        return part


def test_a_file_that_cannot_be_read_a_second_time_is_told() -> None:
    for form, text in (
        ("csv", b"user_id\n1\n"),
        ("jsonl", b'{"user_id": "1"}\n'),
        ("yaml", b"identities: [{user_id: 1}]\n"),
    ):
        one = Manifest(Broken(text), form, ALL, "Acme", KEYS, settings_of)
        with pytest.raises(SettingsError, match=r"^The manifest cannot be read \(Input/output error\)\.$"):
            list(one.entries())


# Where it comes from


def test_the_name_tells_the_format_and_standard_input_is_yaml() -> None:
    for path, form in (
        ("-", "yaml"),
        ("a.yaml", "yaml"),
        ("a.yml", "yaml"),
        ("/x.csv/a.YML", "yaml"),
        ("a.jsonl", "jsonl"),
        ("a.ndjson", "jsonl"),
        ("a.b.csv", "csv"),
        ("A.CSV", "csv"),
    ):
        assert format_of(path, None) == form, path
        assert format_of(path, "csv") == "csv", path


@pytest.mark.parametrize("path", ["a", "a.json", "a.txt", ".csv", "/dev/stdin", "a.csv/b"])
def test_a_name_that_tells_no_format_wants_one(path: str) -> None:
    with pytest.raises(UsageError) as caught:
        format_of(path, None)
    assert str(caught.value) == f"The file extension of the manifest {path} does not name a format."
    assert caught.value.hint == "--format takes yaml, jsonl, csv."
    assert format_of(path, "jsonl") == "jsonl"


def twice(path: str) -> tuple[bytes, bytes]:
    with rewindable(path) as file:
        file.seek(0)
        first = file.read()
        file.seek(0)
        return first, file.read()


def test_a_file_can_be_read_twice_and_is_closed(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(b"all\n")
    assert twice(str(tmp_path / "m")) == (b"all\n", b"all\n")
    with rewindable(str(tmp_path / "m")) as file:
        pass
    assert file.closed


def test_a_pipe_can_be_read_twice(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(b"all\n" * 50_000,))
    writer.start()
    assert twice(str(tmp_path / "pipe")) == (b"all\n" * 50_000,) * 2
    writer.join()


@pytest.mark.parametrize("begun", [False, True])
def test_a_pipe_is_waited_for_until_the_deadline(tmp_path: Path, begun: bool) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writing = os.open(path, os.O_RDWR) if begun else None  # which does not wait for who reads
    try:
        with (
            pytest.raises(SettingsError, match=f"The manifest {path} could not be read before the deadline"),
            rewindable(str(path), Deadline(0.05)),
        ):
            pass
    finally:
        if writing is None:
            writing = os.open(path, os.O_RDWR)  # lets the thread that still waits end
        os.close(writing)


def test_a_pause_of_a_non_blocking_pipe_is_not_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    with os.fdopen(reading) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        waits, poll = threading.Event(), select.poll

        def waiting() -> Any:
            waits.set()
            return poll()

        def write() -> None:
            for part in (b"first\n", b"second\n"):
                assert waits.wait(60)
                waits.clear()
                os.write(writing, part)
            os.close(writing)

        monkeypatch.setattr("vault_plugin.output.streams.poll", waiting)
        writer = threading.Thread(target=write)
        writer.start()
        assert twice("-") == (b"first\nsecond\n",) * 2
        writer.join()


READ_STDIN = """
from vault_plugin.errors import SettingsError
from vault_plugin.manifest.formats import rewindable
try:
    with rewindable("-") as file:
        file.seek(0)
        first = file.read()
        file.seek(0)
        print(first, file.read())
except SettingsError as exc:
    print(exc)
"""


@pytest.mark.parametrize("closed", [False, True])
def test_standard_input_can_be_read_twice_unless_it_is_closed(closed: bool) -> None:
    code = ("import os; os.close(0)\nimport sys; sys.stdin = None\n" if closed else "") + READ_STDIN
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], input=b"a", capture_output=True, check=True
    )
    said = b"The manifest on standard input cannot be read (it is closed)." if closed else b"b'a' b'a'"
    assert (done.stdout.strip(), done.stderr) == (said, b"")


def test_standard_input_is_taken_from_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xffall")))
    assert twice("-") == (b"\xffall", b"\xffall")


@pytest.mark.parametrize("size", [1, 100_000])
def test_a_copy_that_does_not_fit_names_the_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    full = device(tmp_path, "full")
    monkeypatch.setattr(tempfile, "tempdir", "/somewhere")
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **how: full.open("r+b", **how))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"x" * size)))
    with pytest.raises(WriteError) as caught:
        twice("-")
    assert caught.value.line == (
        "The manifest on standard input cannot be copied to the temporary folder /somewhere "
        "(No space left on device). Name another folder with TMPDIR."
    )


def test_without_a_temporary_folder_there_is_no_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = str(tmp_path / "missing")
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [missing])
    for chosen, said in (
        (missing, f"folder {missing} (No such file or directory)."),
        (None, f"folder (No usable temporary directory found in ['{missing}'])."),
    ):
        monkeypatch.setattr(tempfile, "tempdir", chosen)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"x")))
        with pytest.raises(OutputError) as caught:
            twice("-")
        assert str(caught.value).endswith(f"cannot be copied to the temporary {said}")
        assert caught.value.exit_code == 73


@pytest.mark.parametrize("name", ["missing", ".", "file/below"])
def test_a_file_that_cannot_be_read_is_told(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        SettingsError, match=rf"The manifest {re.escape(str(tmp_path / name))} cannot be read \([A-Z]"
    ):
        twice(str(tmp_path / name))


# Many


# tests/long does the same with 100,000.
@pytest.mark.parametrize(("form", "few", "many"), [("csv", 1_000, 4_000), ("yaml", 500, 1_500)])
def test_what_is_kept_of_each_identity_is_a_number_or_two(
    tmp_path: Path, form: str, few: int, many: int
) -> None:
    low, high = (memory_of_checking(tmp_path / "m", form, count) for count in (few, many))
    assert high < 400 * many
    assert (high - low) / (many - few) < 200


def test_nothing_more_is_kept_of_those_that_are_worked_through(tmp_path: Path) -> None:
    made_file(tmp_path / "m", "csv", 2_000)
    with (tmp_path / "m").open("rb") as file:
        one = Manifest(file, "csv", ALL, "Acme", KEYS, settings_of)

        def work_through() -> None:
            assert sum(1 for _ in one.entries()) == 2_000

        assert peak_of(work_through) < 80_000


# The name


def named(name: str) -> str:
    return f"name: {name}\nidentities: [{{user_id: 1, company_name: Acme}}]\n"


@pytest.mark.parametrize("name", ["production", "007", "Büro 2", "x" * MAX_NAME])
def test_a_manifest_may_have_a_name_which_is_a_text(name: str) -> None:
    one = manifest(named(name))
    assert (one.name, one.total, one.count) == (name, 1, 1)
    assert len(one.targets) == 1


def test_a_name_that_vault_or_a_terminal_cannot_show_is_reported() -> None:
    for name, problem in (
        ("x" * (MAX_NAME + 1), f"has more than {MAX_NAME} characters"),
        ('"a\\tb"', "has the control or invisible character U+0009 at position 2"),
        ('"a\\xA0b"', "has a character that cannot be printed"),  # Vault refuses it
        ('" a"', "begins or ends with white space"),
        ("", "is null or empty: set a value, or remove the key"),
    ):
        assert problems(named(name)) == [f"line 1: `name` {problem}"], (name, problem)


def test_without_a_name_it_is_empty() -> None:
    assert manifest("identities: []").name == ""
    assert manifest("user_id,company_name\n1,A\n", "csv").name == ""


def test_whether_the_manifest_has_a_place_is_the_same_for_each_shard() -> None:
    long = "ü" * 60
    users = ["1", "a/b", long, "x" * 200]
    rows = "".join(f"- {{user_id: {user}, company_name: Acme}}\n" for user in users)
    for number in (1, 2):
        one = manifest(f"identities:\n{rows}", shard=Shard(number, 2))
        assert (one.total, one.count < 4) == (4, True)
        assert all(one.has(Place.of(Identity(user, "Acme"))) for user in users)
        for identity in (Identity("1", "acme"), Identity("2", "Acme"), Identity("x" * 201, "Acme")):
            assert not one.has(Place.of(identity))
    assert not manifest("identities: []").has(Place.of(Identity("1", "Acme")))
