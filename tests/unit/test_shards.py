"""Which part of a manifest is whose: everybody's is somebody's, and stays so."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.texts import ASCII, CHARACTERS, NAMES

from vault_plugin.errors import UsageError
from vault_plugin.manifest.shards import Shard, shard
from vault_plugin.tokens.identity import Identity

IDENTITIES = st.builds(Identity, NAMES, NAMES)


@given(IDENTITIES, st.integers(1, 50))
def test_each_identity_belongs_to_one_shard_and_no_other(identity: Identity, total: int) -> None:
    holders = [number for number in range(1, total + 1) if Shard(number, total).holds(identity)]
    assert len(holders) == 1


def test_the_only_shard_holds_all() -> None:
    assert all(Shard(1, 1).holds(Identity(str(number), "Acme")) for number in range(100))


def test_shards_are_of_about_the_same_size() -> None:
    shards = [Shard(number, 4) for number in range(1, 5)]
    sizes = Counter(
        one.number
        for user in range(2000)
        for identity in [Identity(str(user), f"Company {user % 7}")]
        for one in shards
        if one.holds(identity)
    )
    assert len(sizes) == 4
    assert 400 < min(sizes.values()) <= max(sizes.values()) < 600


def test_an_identitys_shard_never_changes() -> None:
    for identity, of_7, of_64 in (
        (Identity("26", "Acme"), 6, 23),
        (Identity("27", "Acme"), 7, 18),
        (Identity("026", "Acme"), 4, 42),
        (Identity("1", "Müller & Söhne"), 2, 2),
        (Identity("../x", "~/."), 7, 17),
        (Identity("u" * 500, "日本"), 5, 54),
    ):
        # Workers of two versions may run side by side: what moved would be done twice, or by nobody.
        assert Shard(of_7, 7).holds(identity), (identity, of_7, of_64)
        assert Shard(of_64, 64).holds(identity), (identity, of_7, of_64)


def test_which_shard_this_is_may_be_said_or_known() -> None:
    for text, environ, is_shard in (
        (None, {}, (1, 1)),
        (None, {"CI_NODE_INDEX": "3", "CI_NODE_TOTAL": "5"}, (3, 5)),
        (None, {"CI_NODE_INDEX": "", "CI_NODE_TOTAL": "5"}, (1, 1)),
        (None, {"CI_NODE_TOTAL": "1"}, (1, 1)),
        (None, {"CI_NODE_INDEX": "3", "CI_NODE_TOTAL": "5", "JOB_COMPLETION_INDEX": "0"}, (3, 5)),
        (None, {"JOB_COMPLETION_INDEX": ""}, (1, 1)),
        ("2/3", {}, (2, 3)),
        ("1/1", {"JOB_COMPLETION_INDEX": "7"}, (1, 1)),
        ("2/3", {"CI_NODE_INDEX": "1", "CI_NODE_TOTAL": "5", "JOB_COMPLETION_INDEX": "0"}, (2, 3)),
        ("999999/999999", {}, (999999, 999999)),
        ("5", {"CI_NODE_INDEX": "3", "CI_NODE_TOTAL": "9"}, (3, 5)),
        ("5", {"CI_NODE_INDEX": "3", "JOB_COMPLETION_INDEX": "0"}, (3, 5)),
        ("5", {"JOB_COMPLETION_INDEX": "0"}, (1, 5)),
        ("5", {"JOB_COMPLETION_INDEX": "4"}, (5, 5)),
        ("5", {"CI_NODE_INDEX": "", "JOB_COMPLETION_INDEX": "4"}, (5, 5)),
    ):
        assert shard(text, environ) == is_shard, (text, environ)


def refusal(text: str | None, environ: dict[str, str]) -> str:
    with pytest.raises(UsageError) as caught:
        shard(text, environ)
    return str(caught.value)


def test_what_makes_no_shard_is_refused() -> None:
    for text, environ in (
        ("0/3", {}),
        ("4/3", {}),
        ("1/0", {}),
        ("/3", {}),
        ("1/", {}),
        ("/", {}),
        ("", {}),
        ("-1/3", {}),
        ("1.5/3", {}),
        ("1/2/3", {}),
        (" 1/3", {}),
        ("1/3\n", {}),
        ("\u0661/3", {}),
        ("1/1000000", {}),
        ("3", {}),
        ("3", {"CI_NODE_INDEX": "4"}),
        ("3", {"CI_NODE_INDEX": "0"}),
        ("3", {"CI_NODE_INDEX": "x"}),
        ("3", {"JOB_COMPLETION_INDEX": "3"}),
        ("3", {"JOB_COMPLETION_INDEX": "-1"}),
        ("3", {"JOB_COMPLETION_INDEX": "\u0660"}),
        ("x", {"CI_NODE_INDEX": "1"}),
        (None, {"CI_NODE_INDEX": "2", "CI_NODE_TOTAL": "1"}),
    ):
        assert "--shard takes I/N" in refusal(text, environ), (text, environ)


def test_of_an_indexed_job_that_says_no_total_not_everything_is_done_by_everybody() -> None:
    with pytest.raises(UsageError, match="not of how many") as caught:
        shard(None, {"JOB_COMPLETION_INDEX": "0"})
    assert "--shard N" in caught.value.hint


@given(
    st.text(CHARACTERS, max_size=12)
    | st.from_regex(r"[0-9]{0,7}/?[0-9]{0,7}", fullmatch=True, alphabet=ASCII)
)
def test_no_text_crashes_it(text: str) -> None:
    try:
        number, total = shard(text, {"CI_NODE_INDEX": "1"})
    except UsageError:
        return
    assert 1 <= number <= total


def test_the_environment_is_the_processs_unless_another_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in (("CI_NODE_INDEX", "2"), ("CI_NODE_TOTAL", "4")):
        monkeypatch.setenv(name, text)
    assert shard(None) == (2, 4)
