"""A manifest's text as rows: taken to the letter, read as a stream, told by line, and never quoted."""

import csv
import io
import json
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from support.memory import peak_of
from support.texts import TEXTS

from vault_plugin.manifest import yaml_rows
from vault_plugin.manifest.bounded import BoundedStream
from vault_plugin.manifest.csv_rows import read_csv
from vault_plugin.manifest.formats import FORMATS
from vault_plugin.manifest.jsonl_rows import read_jsonl
from vault_plugin.manifest.row import MAX_LINE, NEVER_EMPTY, Problem, Row, shown
from vault_plugin.manifest.yaml_rows import MAX_SCALAR, read_yaml

CANARY = "hvs.CAN-ARY"
TWICE = "appears more than once"
NO_TEXT = "is not a plain string or number without a tag or an alias"
EMPTY = "is null or empty: set a value, or remove the key"
NO_JSON = f"is not JSON in UTF-8 (of at most {MAX_LINE} bytes)"
NO_NUMBER = "is neither a string nor a whole number"
NAMES = "user_id, company_name, file, name"
TOO_LONG = "has more than 64 KiB"
FOLLOWED = "is followed by a string or comment of more than 64 KiB"
TOO_DEEP = "is nested more than 100 levels deep"
ROUNDED = "was rounded by a spreadsheet: format the column as text and enter the value again"
BROKEN_YAML, BROKEN_CSV = "is not valid YAML from here on", "is not valid CSV from here on"


def read(form: str, text: str | bytes) -> list[Row | Problem]:
    raw = text.encode() if isinstance(text, str) else text
    return list(FORMATS[form](io.BytesIO(raw)))


def row(line: int, **fields: str) -> Row:
    return Row("identities", line, fields)


def items(text: str) -> list[Row | Problem]:
    """Of a manifest that has nothing but these."""
    return read("yaml", f"identities:\n{text}")


# YAML


def test_yaml_is_sections_of_mappings_each_with_its_line() -> None:
    assert read(
        "yaml",
        "defaults:\n  company_name: Acme\n  file: /x\ntargets:\n- address: a\n- mount: b\nidentities:\n- user_id: 1\n\n-\n  user_id: 2\n",
    ) == [
        Row("defaults", 2, {"company_name": "Acme", "file": "/x"}),
        Row("targets", 5, {"address": "a"}),
        Row("targets", 6, {"mount": "b"}),
        row(8, user_id="1"),
        row(11, user_id="2"),
    ]


def test_yaml_guesses_no_types() -> None:
    for text in ("026", "0x1a", "1_000", "1e3", "yes", "No", "on", "true", ".nan", "2026-09-21", "12:30", "nUll", "<<", "=", "-0"):  # fmt: skip
        assert items(f"- user_id: {text}\n") == [row(2, user_id=text)], text


def test_yamls_null_is_a_field_left_out() -> None:
    for null in ("", "~", "null", "Null", "NULL"):
        assert items(f"- file: {null}\n  user_id: 1\n") == [row(2, user_id="1")], null


def test_a_null_that_is_quoted_is_a_text() -> None:
    for quoted in ("'null'", '"null"', "!!str null", "! null", "|-\n    null", ">-\n    null"):
        said = items(f"- user_id: {quoted}\n")
        assert said == (
            [Problem(2, "user_id", NO_TEXT)] if quoted == "! null" else [row(2, user_id="null")]
        ), quoted


def test_an_empty_text_in_quotes_is_a_field_left_out() -> None:
    assert items("- user_id: 1\n  file: ''\n  mount: \"\"\n") == [row(2, user_id="1")]


def test_what_decides_whose_token_or_which_vault_is_not_null_or_empty() -> None:
    for name in NEVER_EMPTY:
        for value in ("", "~", "null", "''", '""', "!!str"):
            assert items(f"- file: x\n  {name}: {value}\n- file: y\n") == [
                Problem(3, name, EMPTY),
                row(4, file="y"),
            ], (name, value)
        for empty in ("null", '""'):
            assert read("jsonl", f'{{"file": "x", "{name}": {empty}}}') == [Problem(1, name, EMPTY)], name


def test_an_empty_cell_of_csv_is_a_field_left_out() -> None:
    assert read("csv", "user_id,company_name\n1,\n") == [row(2, user_id="1")]


def test_a_value_with_a_tag_or_an_alias_or_more_inside_is_a_problem() -> None:
    for value in ("!!int 26", "!!binary aGk=", "!secret x", "*x", "[a]", "[]", "{a: b}", "[{a: [b, {c: d}]}]"):  # fmt: skip
        assert items(f"- user_id: {value}\n  file: a\n- user_id: 2\n") == [
            Problem(2, "user_id", NO_TEXT),
            row(4, user_id="2"),
        ], value


def test_an_anchor_is_no_more_than_a_mark() -> None:
    assert items("- &one {user_id: &two 1}\n") == [row(2, user_id="1")]


def test_an_alias_stands_for_nothing() -> None:
    assert items("- &one {user_id: 1}\n- *one\n- <<: *one\n") == [
        row(2, user_id="1"),
        Problem(3, "identities", "has an item that is not a mapping"),
        Problem(4, "(not a plain word)", NO_TEXT),
    ]


def test_a_key_that_is_no_text_is_none_that_anybody_knows() -> None:
    for key in ("*x ", "[user_id]", "{a: b}", "!!int 1", "''", "~"):
        assert items(f"- ? {key}\n  : x\n  user_id: 1\n") == [
            Row("identities", 2, {"": "x", "user_id": "1"})
        ], key


def test_a_key_that_stands_there_twice_is_told_where_the_second_stands() -> None:
    assert items("- user_id: 1\n  file: a\n  user_id: 1\n- user_id: 2\n") == [
        Problem(4, "user_id", TWICE),
        row(5, user_id="2"),
    ]


def test_a_section_that_stands_there_twice_is_told() -> None:
    said = read("yaml", "identities:\n- user_id: 1\nidentities:\n- user_id: 2\n")
    assert said == [row(2, user_id="1"), Problem(3, "identities", TWICE), row(4, user_id="2")]


@pytest.mark.parametrize(
    ("section", "value"), [("name", "production"), ("defaults", "{file: /x}"), ("targets", "[]")]
)
def test_a_section_after_the_stream_of_identities_is_told(section: str, value: str) -> None:
    problem = Problem(2, section, "must come before `identities`, which is read as a stream")
    assert read("yaml", f"identities: []\n{section}: {value}\n")[0] == problem
    assert not any(isinstance(one, Problem) for one in read("yaml", f"{section}: {value}\nidentities: []\n"))


def test_a_section_of_the_wrong_kind_is_told_and_what_follows_is_read() -> None:
    for section, value, what in (
        ("defaults", "[]", "must be a mapping"),
        ("defaults", "x", "must be a mapping"),
        ("defaults", "", "must be a mapping"),
        ("targets", "{a: {b: c}}", "must be a list"),
        ("targets", "x", "must be a list"),
        ("name", "[a]", "must be a string"),
        ("name", "{a: b}", "must be a string"),
        ("name", "", EMPTY),
        ("name", "~", EMPTY),
        ("name", "!!int 5", "is not a plain string without a tag"),
        ("identity", "[{a: b}, [c]]", "is not a section of a manifest"),
    ):
        said = read("yaml", f"# a comment\n{section}: {value}\nidentities:\n- user_id: 1\n")
        assert said == [Problem(2, section, what), row(4, user_id="1")], (section, value)


@pytest.mark.parametrize("value", ["", "x", "{a: {b: c}}", "*x"])
def test_identities_must_be_a_list(value: str) -> None:
    assert read("yaml", f"identities: {value}\n") == [Problem(1, "identities", "must be a list")]


def test_an_item_that_is_no_mapping_is_told_and_what_follows_is_read() -> None:
    problem = "has an item that is not a mapping"
    assert items("- 26\n- [a, [b, {c: d}]]\n- user_id: 1\n") == [
        Problem(2, "identities", problem),
        Problem(3, "identities", problem),
        row(4, user_id="1"),
    ]


def test_a_section_whose_name_is_no_plain_word_is_not_quoted() -> None:
    for key in ("*x ", "[a, [b]]", "{a: b}", "<<", CANARY):
        said = read("yaml", f"? {key}\n: 1\nidentities: []\n")
        assert said == [Problem(1, "(not a plain word)", "is not a section of a manifest")], key


def test_a_manifest_without_identities_is_told_so() -> None:
    said = read("yaml", "defaults:\n  file: /x\n")
    assert said[1:] == [Problem(3, "identities", "is missing")]


@pytest.mark.parametrize("text", ["", "\n \n", "# nothing\n"])
def test_an_empty_yaml_is_told_so(text: str) -> None:
    assert read("yaml", text) == [Problem(1, "", "is empty: a manifest needs `identities`")]


@pytest.mark.parametrize("text", ["- a: 1\n", "x\n", "*x\n", "---\n"])
def test_a_yaml_that_is_no_mapping_is_told_so(text: str) -> None:
    (problem,) = read("yaml", text)
    assert isinstance(problem, Problem)
    assert problem.text == "is not a mapping with `identities`"


def test_a_second_document_is_told() -> None:
    said = read("yaml", "---\nidentities: []\n---\nidentities:\n- user_id: 1\n")
    assert said == [Problem(3, "", "begins another document: a manifest is a single document")]
    assert read("yaml", "%YAML 1.2\n---\nidentities: []\n...\n") == []


def test_broken_yaml_is_told_once_by_its_line_after_what_came_before() -> None:
    for text, line in (
        ("- user_id: 1\n  file: [\n", 3),
        ("- user_id: 1\n- user_id: '2\n", 3),
        ("- user_id: 1\n- user_id: @2\n", 3),
        ("- user_id: 1\n\t- user_id: 2\n", 2),
        ("- user_id: 1\n- user_id: 2: 3\n", 3),
    ):
        *before, last = items(text)
        assert last == Problem(line, "", BROKEN_YAML), (text, line)
        assert before in ([], [row(2, user_id="1")]), (text, line)


@pytest.mark.parametrize("line", [2, 500, 5000])
def test_bytes_that_are_no_text_are_told_by_their_line_although_yaml_is_read_by_the_block(line: int) -> None:
    good = b"- user_id: \xc3\xa9\n" * (line - 2)
    for broken in (b"\xff", b"\xc3(", b"\x00", b"\x07"):
        said = read("yaml", b"identities:\n" + good + b"- user_id: " + broken + b"\n")
        assert said[-1] == Problem(line, "", BROKEN_YAML), broken


def test_a_byte_order_mark_is_none_of_the_text() -> None:
    assert read("yaml", "\ufeffidentities:\n- user_id: 1\n") == [row(2, user_id="1")]
    assert read("jsonl", '\ufeff{"user_id": "1"}\n') == [row(1, user_id="1")]
    assert read("csv", "\ufeffuser_id\n1\n") == [row(2, user_id="1")]


# JSON Lines


def test_jsonl_is_an_object_per_line_and_blank_lines_count() -> None:
    said = read("jsonl", '{"user_id": "026", "file": "/x"}\n\n  \n{"user_id": 26}')
    assert said == [row(1, user_id="026", file="/x"), row(4, user_id="26")]


@pytest.mark.parametrize("number", ["0", "-0", "12345678901234567890123", "9" * 5000])
def test_a_whole_number_stays_as_it_is_written(number: str) -> None:
    assert read("jsonl", f'{{"user_id": {number}}}') == [row(1, user_id=number)]


def test_jsons_null_and_the_empty_text_are_fields_left_out() -> None:
    assert read("jsonl", '{"a": null, "b": "", "c": "null"}') == [row(1, c="null")]


def test_any_other_value_of_json_is_a_problem() -> None:
    for value in ("1.5", "1e3", "true", "false", "[]", '["a"]', "{}", '{"a": "b"}', "NaN", "-Infinity"):  # fmt: skip
        said = read("jsonl", f'{{"user_id": {value}, "b": "c"}}\n{{"user_id": "1"}}')
        assert said == [Problem(1, "user_id", NO_NUMBER), row(2, user_id="1")], value


def test_a_key_of_json_that_stands_there_twice_is_told() -> None:
    said = read("jsonl", '{"a": "1", "a": "1"}\n{"a": null, "a": "1"}')
    assert said == [Problem(1, "a", TWICE), Problem(2, "a", TWICE)]


def test_all_problems_of_a_line_are_told() -> None:
    said = read("jsonl", f'{{"a": 1.5, "a": "1", "{CANARY}": true}}')
    assert said == [
        Problem(1, "a", NO_NUMBER),
        Problem(1, "a", TWICE),
        Problem(1, "(not a plain word)", NO_NUMBER),
    ]


def test_json_that_is_no_object_is_a_problem() -> None:
    for text in ("[]", '["a"]', '"a"', "1", "1.5", "null", "true", '[["a", "b"]]'):
        assert read("jsonl", f"{text}\n{{}}") == [Problem(1, "", "is not a JSON object"), row(2)], text


def test_what_is_not_json_is_a_problem_of_its_line_alone() -> None:
    for text in (b"{", b"{} {}", b"{'a': 1}", b'{"a": 026}', b'{"a": "\xff"}', b"\xff\xfe", b"[" * 60_000):
        assert read("jsonl", text + b'\n{"a": "1"}') == [Problem(1, "", NO_JSON), row(2, a="1")], text


def test_a_line_of_json_may_be_as_long_as_told() -> None:
    fitting = MAX_LINE - len('{"a": ""}\n')
    assert read("jsonl", f'{{"a": "{"x" * fitting}"}}\n{{}}') == [row(1, a="x" * fitting), row(2)]
    assert read("jsonl", f'{{"a": "{"x" * (fitting + 1)}"}}\n{{}}')[0] == Problem(1, "", NO_JSON)


@pytest.mark.parametrize("length", [MAX_LINE, 3 * MAX_LINE, 10 * MAX_LINE - 1])
def test_a_line_of_json_that_is_too_long_is_one_problem_and_the_lines_after_it_keep_their_numbers(
    length: int,
) -> None:
    said = read("jsonl", f'{{"a": "{"x" * length}"}}\n{{"a": "1"}}\n')
    assert said == [Problem(1, "", NO_JSON), row(2, a="1")]
    assert read("jsonl", f'{" " * length}{{"a": "1"}}') == [Problem(1, "", NO_JSON)]


# CSV


def test_csv_is_a_header_and_records() -> None:
    said = read("csv", 'user_id,company_name,file\n026,"Acme, Inc. ""A""",/x\r\n1,null,\n\n2,,\n')
    assert said == [
        row(2, user_id="026", company_name='Acme, Inc. "A"', file="/x"),
        row(3, user_id="1", company_name="null"),
        row(5, user_id="2"),
    ]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_csv_may_end_its_lines_in_any_way(end: str) -> None:
    said = read("csv", end.join(["user_id,file", "1,2", "3,4"]))
    assert said == [row(2, user_id="1", file="2"), row(3, user_id="3", file="4")]


@pytest.mark.parametrize(
    ("record", "count"),
    [("1", "1 field"), ("1,2,3", "3 fields"), ("1,2,,3", "4 fields"), (",,3", "3 fields")],
)
def test_a_record_with_more_or_fewer_fields_than_columns_is_a_problem(record: str, count: str) -> None:
    for header in ("user_id,file", "user_id,file,,"):
        assert read("csv", f"{header}\n{record}\n3,4\n") == [
            Problem(2, "", f"has {count} under 2 columns"),
            row(3, user_id="3", file="4"),
        ]
    assert read("csv", "user_id\n1,2\n") == [Problem(2, "", "has 2 fields under 1 column")]


SPREADSHEET = "user_id,file,,\n1,a,,\n2,b\n3,c,,,,\n4,, ,\n,,,\n,,,\n"


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_blank_columns_and_rows_at_the_end_are_a_spreadsheets_and_left_out(end: str) -> None:
    assert read("csv", SPREADSHEET.replace("\n", end)) == [
        row(2, user_id="1", file="a"),
        row(3, user_id="2", file="b"),
        row(4, user_id="3", file="c"),
        row(5, user_id="4"),
    ]
    assert read("csv", 'user_id,file," "\n1,a,\n" ",,\n') == [row(2, user_id="1", file="a")]


def test_a_header_fault_is_told_once_with_its_cause_and_no_cell() -> None:
    for header, problem in (
        *((blank, f"is blank: the first line names the columns ({NAMES})") for blank in ("", "\n", ",", '""', " ,")),
        ("user_id;company_name;file", "separates the columns with `;`: use commas"),
        ("\ufeffuser_id;company_name;", "separates the columns with `;`: use commas"),
        ('"user_id";"company_name"', "separates the columns with `;`: use commas"),
        ('"26";"Acme"', f"names no column: the header line ({NAMES}) is missing"),
        ('user_id,"file', BROKEN_CSV),
        ("User ID;Company", "separates the columns with `;`: use commas"),
        ("user_id\tfile", "separates the columns with tabs: use commas"),
        ("user_id|company_name", "separates the columns with `|`: use commas"),
        ("26,Acme,/run/x", f"names no column: the header line ({NAMES}) is missing"),
        ("26;Acme;/run/x", f"names no column: the header line ({NAMES}) is missing"),
        ("alice", f"names no column: the header line ({NAMES}) is missing"),
        ("alice,acme,,", f"names no column: the header line ({NAMES}) is missing"),
        ("user_id,,file", "has no name for column 2"),
        ("user_id, ,file", "has no name for column 2"),
        ("user_id,file,user_id", "has the same name for the columns 1 and 3"),
        ("User_ID,Company_Name", f"names a column that is not spelled like one of {NAMES}: column 1"),
        ("user_id, company_name", f"names a column that is not spelled like one of {NAMES}: column 2"),
        ("user_id,company", f"names a column that is not one of {NAMES}: column 2"),
        ("company_name,file", "has no column user_id"),
    ):  # fmt: skip
        assert read("csv", f"{header}\n1,Acme\n2,Acme,x\n") == [Problem(1, "", problem)], header


def test_a_csv_in_utf_16_is_told_so() -> None:
    for text in ("user_id,file\r\n1,a\r\n", '"user_id","file"\n', "26;Acme\n", "\u00e9"):
        for encoding in ("utf-16", "utf-16-le", "utf-16-be"):
            given = (
                text if encoding == "utf-16" else "a" + text
            )  # without a byte order mark, only ASCII tells
            said = [Problem(1, "", "is UTF-16: save the file as UTF-8")]
            assert read("csv", given.encode(encoding)) == said, (text, encoding)
            assert read("csv", f"\ufeff{given}".encode(encoding)) == said, (text, encoding)


@pytest.mark.parametrize("raw", [b"user_id,\xe9\n1,2\n", b"PK\x03\x04\x14\x00\x06\x00\n", b"user_id\x00\n"])
def test_a_header_that_is_no_text_in_utf_8_is_told_so(raw: bytes) -> None:
    assert read("csv", raw) == [Problem(1, "", "is not UTF-8")]


def test_a_user_id_that_a_spreadsheet_has_rounded_is_refused() -> None:
    for number in ("1.23457E+05", "1E+05", "9.9E+15", "1,23457E+05", "-1.2E+10", "1.23E+100"):
        assert read("csv", f'file,user_id\n"{number}","{number}"\n/x,7\n') == [
            Problem(2, "user_id", ROUNDED),
            row(3, file="/x", user_id="7"),
        ], number
        assert read("jsonl", f'{{"user_id": "{number}"}}') == [row(1, user_id=number)], number


def test_a_user_id_that_no_spreadsheet_would_write_so_is_taken_as_it_is() -> None:
    for text in (
        "1E5",
        "1e+05",
        "E+05",
        "1.E+05",
        "12.3E+05",
        "1.2E-05",
        "1.2E+5",
        "x1E+05",
        "1E+05x",
        "1E+0005",
    ):
        assert read("csv", f"user_id\n{text}\n") == [row(2, user_id=text)], text


@pytest.mark.parametrize("text", ['"1', '"1"2', '"' + "x\n" * 100_000])
def test_what_is_no_csv_is_told_once(text: str) -> None:
    said = read("csv", f"user_id\n0\n{text}\n4\n")
    assert said[0] == row(2, user_id="0")
    (problem,) = said[1:]
    assert isinstance(problem, Problem)
    assert (problem.text, problem.line >= 3) == (BROKEN_CSV, True)


def test_a_line_of_csv_may_be_as_long_as_told() -> None:
    assert read("csv", f"user_id\n{'x' * (MAX_LINE - 1)}\n") == [row(2, user_id="x" * (MAX_LINE - 1))]
    for longer in ("x" * MAX_LINE, "x" * 200_000, f'"{"x" * MAX_LINE}'):
        assert read("csv", f"user_id\n0\n{longer}\n4\n") == [
            row(2, user_id="0"),
            Problem(3, "", TOO_LONG),
        ]
    assert read("csv", "x" * 200_000) == [Problem(1, "", TOO_LONG)]


@pytest.mark.parametrize("line", [1, 2, 500, 5000])
def test_a_record_that_is_no_utf_8_is_told_by_its_line_although_files_are_read_by_the_block(
    line: int,
) -> None:
    lines = ["user_id,file\n", *["1,é\n"] * 5000]
    raw = b"".join(
        text.encode("latin-1" if number == line else "utf-8") for number, text in enumerate(lines, 1)
    )
    raw = raw if line > 1 else raw.replace(b"file", b"\xff", 1)
    problems = [one for one in read("csv", raw) if isinstance(one, Problem)]
    assert problems == [Problem(line, "", "is not UTF-8")]


def test_the_stream_stays_open_after_csv() -> None:
    for text in (b"user_id\n1\n", b"user_id\n\xff", b'user_id\n"', b"a\n1\n", b"\xff\xfe"):
        stream = io.BytesIO(text)
        assert list(read_csv(stream))
        assert stream.seek(0) == 0


@pytest.mark.parametrize("form", FORMATS)
def test_a_run_that_is_stopped_ends_without_a_word_of_its_reader(form: str) -> None:
    texts = {"yaml": b"identities: [{a: 1}, {a: 2}]", "jsonl": b"{}\n{}\n", "csv": b"user_id\n1\n2\n"}
    for close_first in (True, False):
        stream = io.BytesIO(texts[form])
        reader: Any = FORMATS[form](stream)
        next(reader)
        if close_first:
            stream.close()
        reader.close()  # else Python prints what goes wrong here, when it collects the reader
        assert stream.closed == close_first


# All of them


def test_a_key_is_quoted_if_it_is_a_plain_word() -> None:
    for name, is_shown in (
        ("user_id", True),
        ("x" * 40, True),
        ("x" * 41, False),
        ("", False),
        ("user id", False),
        ("é", False),
        (CANARY, False),
        ("eyJhbGciOiJIUzI1NiJ9.e30.c2ln", False),
        ("a\n", False),
    ):
        assert shown(name) == (name if is_shown else "(not a plain word)"), name


def test_a_problem_names_line_and_key() -> None:
    assert str(Problem(3, "file", "is bad")) == "line 3: `file` is bad"
    assert str(Problem(3, "", "is bad")) == "line 3: is bad"


def written_as_jsonl(fields: dict[str, str]) -> bytes:
    return json.dumps(fields).encode()


def written_as_csv(fields: dict[str, str]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows([fields.keys(), fields.values()])
    return text.getvalue().encode("utf-8-sig")


def written_as_yaml(fields: dict[str, str]) -> bytes:
    text: str = yaml.safe_dump({"identities": [fields]}, default_style='"', allow_unicode=True)
    return text.replace('!!null "null"', "").encode()


FIELDS = st.dictionaries(TEXTS.filter(bool), TEXTS, min_size=1, max_size=5)


@given(FIELDS, TEXTS.filter(lambda text: bool(text.strip())), TEXTS)
def test_what_is_written_comes_back_to_the_letter(fields: dict[str, str], user_id: str, file: str) -> None:
    for form, write in (("jsonl", written_as_jsonl), ("csv", written_as_csv), ("yaml", written_as_yaml)):
        if form == "csv":  # whose columns are known, and which has no blank record
            fields = {"user_id": user_id, "file": file}
        full = {name: text for name, text in fields.items() if text}
        (said,) = read(form, write(fields))
        assert isinstance(said, Row), form
        assert said.fields == full, form


SCRAPS = st.lists(
    st.sampled_from(
        [
            b"identities:\n", b"targets", b"defaults: ", b"- ", b"a: b\n", b"{", b"}", b"[", b"]", b'"', b"'", b",", b":", b"\n",
            b"  ", b"!!str ", b"&x ", b"*x", b"? ", b"---\n", b"...\n", b"%YAML 1.1\n", b"# ", b"|\n", b"\t", b"\xff", b"\xef\xbb\xbf", b"\x00",
            b"\r", b"\\ud800", b"1.5", b"null", b"user_id,file\n", b"\xc3\xa9",
        ]
    ),
    max_size=30,
).map(b"".join)  # fmt: skip


@given(st.binary() | SCRAPS, st.sampled_from(sorted(FORMATS)))
def test_no_bytes_crash_a_reader(raw: bytes, form: str) -> None:
    for one in read(form, raw):
        assert one.line >= 1
        if isinstance(one, Row):
            assert all(one.fields.values())


@given(SCRAPS, SCRAPS, st.sampled_from(sorted(FORMATS)))
def test_no_problem_quotes_what_is_no_plain_word(before: bytes, after: bytes, form: str) -> None:
    said = read(form, before + CANARY.encode() + after)
    assert CANARY not in "".join(str(one) for one in said if isinstance(one, Problem))


def test_no_value_is_quoted_by_any_problem() -> None:
    for form, raw in (
        ("yaml", f"identities:\n- user_id: [{CANARY}]\n- {CANARY}\n- user_id: !x {CANARY}\n- {CANARY}: x\n  {CANARY}: y\n{CANARY}: 1\n"),
        ("yaml", f"identities:\n- user_id: {CANARY}: x\n"),
        ("yaml", f"identities:\n- user_id: '{CANARY}\n"),
        ("yaml", f"identities:\n- &{CANARY} *{CANARY}\n"),
        ("jsonl", f'{{"{CANARY}": true}}\n["{CANARY}"]\n{CANARY}\n{{"user_id": {{"{CANARY}": "{CANARY}"}}}}\n'),
        ("csv", f'{CANARY},{CANARY}\n{CANARY}\n"{CANARY}"x\n'),
        ("csv", f'user_id\n"{CANARY}'),
        ("csv", "user,canary\n1,2\n"),
        ("csv", f"user_id,{CANARY}\n1,2\n"),
        ("csv", f"{CANARY};user_id\n"),
    ):  # fmt: skip
        problems = [str(one) for one in read(form, raw) if isinstance(one, Problem)]
        assert problems, (form, raw)
        assert CANARY not in "".join(problems), (form, raw)
        assert "canary" not in "".join(problems), (form, raw)


class Endless(io.RawIOBase):
    """Row after row, made when they are read."""

    def __init__(self, head: bytes, one: bytes, count: int) -> None:
        self._parts: Iterator[bytes] = iter([head, *[one] * count])
        self._rest = b""
        self.given = 0  # bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            self._rest = b"".join(islice(self._parts, 100))
        part, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        buffer[: len(part)] = part
        self.given += len(part)
        return len(part)


@pytest.mark.parametrize(
    ("form", "head", "one"),
    [
        ("yaml", b"identities:\n", b"- {user_id: 26, company_name: Acme}\n"),
        ("jsonl", b"", b'{"user_id": "26", "company_name": "Acme"}\n'),
        ("csv", b"user_id,company_name\n", b"26,Acme\n"),
    ],
)
def test_rows_are_read_one_at_a_time(form: str, head: bytes, one: bytes) -> None:
    stream = io.BufferedReader(Endless(head, one, 3_000))

    def read() -> None:
        assert sum(isinstance(said, Row) for said in FORMATS[form](stream)) == 3_000

    assert peak_of(read) < 150_000


def test_the_formats_are_the_promised_ones() -> None:
    assert {"yaml": read_yaml, "jsonl": read_jsonl, "csv": read_csv} == FORMATS


# How large a text may be


KINDS = ["{}", "'{}'", '"{}"', "|-\n    {}", ">-\n    {}", "&x {}", "!!str {}"]


@pytest.fixture(params=["libyaml", "python"])
def _parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "python":
        monkeypatch.setattr(yaml_rows, "_LOADER", yaml.SafeLoader)


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_of_yaml_may_have_64_kib(kind: str) -> None:
    for char in ("x", "\u00e9"):
        text = char * (MAX_SCALAR // len(char.encode()))
        assert items(f"- user_id: {kind.format(text)}\n- user_id: 2\n")[0] == row(2, user_id=text)
        longer = f"- user_id: {kind.format(text + 'x')}\n- user_id: 2\n"
        assert items(longer)[0] == Problem(2, "user_id", TOO_LONG)
        assert isinstance(items(longer)[1], Row)  # what follows is read


HUGE = 8_000_000  # bytes; a parser that collects them takes several times that


@pytest.mark.parametrize("kind", [*KINDS, "[{}]", "# {}\n    1", "!{} 1", "&{} 1", "*{}", "{}: 1"])
def test_a_text_of_yaml_that_is_much_longer_is_not_even_read(kind: str) -> None:
    head = f"identities:\n- user_id: 0\n- user_id: {kind.partition('{')[0]}".encode()
    raw = Endless(head, b"x" * 1000, HUGE // 1000)
    stream = io.BufferedReader(raw)
    assert peak_of(lambda: list(read_yaml(stream))) < 8_000_000
    said = list(read_yaml(stream))
    assert said[0] == row(2, user_id="0")
    (problem,) = said[1:]
    assert isinstance(problem, Problem)
    assert problem.text == FOLLOWED
    assert raw.given < 400_000


def test_nor_is_it_by_pyyamls_own_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml_rows, "_LOADER", yaml.SafeLoader)
    raw = Endless(b"identities:\n- user_id: ", b"x" * 1000, HUGE // 1000)
    assert list(read_yaml(io.BufferedReader(raw))) == [Problem(2, "", FOLLOWED)]
    assert raw.given < 400_000


@pytest.mark.parametrize("text", ["- x: |\n    ", "- x: '", "- x: ", "# "])
def test_many_short_lines_are_one_text_or_comment(text: str) -> None:
    lines = "\n# y" if text == "# " else "\n    y"
    *before, last = items(f"- user_id: 0\n{text}{lines * 200_000}")
    assert isinstance(last, Problem)
    assert last.text == FOLLOWED
    assert before == ([] if text == "# " else [row(2, user_id="0")])


def test_a_comment_of_64_kib_is_none_of_a_manifests_faults() -> None:
    comment = "# " + "x" * 78 + "\n"
    assert items(comment * 810 + "- user_id: 1\n" + comment * 810)[0] == row(812, user_id="1")


@pytest.mark.parametrize("opening", ["[", "{a: ", "- "])
def test_what_is_nested_as_no_manifest_is_stops_the_reader(opening: str) -> None:
    nested = ("\n    - " if opening == "- " else "") + opening * 100_000
    said = items(f"- user_id: 0\n- user_id: {nested}")
    assert said[0] == row(2, user_id="0")
    (problem,) = said[1:]
    assert isinstance(problem, Problem)
    # libyaml looks ahead, and itself gives up on so many lists.
    assert problem.text in ((TOO_DEEP, BROKEN_YAML) if opening == "[" else (TOO_DEEP,))
    assert items(f"- user_id: {'[' * 100}{']' * 100}\n") == [Problem(2, "user_id", NO_TEXT)]


@pytest.mark.usefixtures("_parser")
@pytest.mark.parametrize("escape", [r"\UFFFFFFFF", r"\U00110000", r"\uD800", r"\xZZ"])
def test_an_escape_for_what_is_no_character_crashes_no_parser(escape: str) -> None:
    (said,) = items(f'- user_id: "{escape}"\n')
    assert said in (Problem(2, "", BROKEN_YAML), row(2, user_id="\ud800"))


def test_a_bounded_stream_tells_its_end_from_that_of_its_budget() -> None:
    for size, left in ((10, b""), (11, b"x")):
        stream = BoundedStream(io.BytesIO(b"x" * size), 5)
        assert stream.read(8) == b"xxxxx"
        assert not stream.is_exhausted  # nothing more was asked for yet
        stream.renew()
        assert (stream.read(3), stream.read(3), stream.is_exhausted) == (b"xxx", b"xx", False)
        assert (stream.read(3), stream.is_exhausted) == (b"", bool(left))
