"""What is stored, as people and programs see it; docs/commands.md shows the table as a terminal of 80 columns does."""

import json
from typing import Any

from support.fakes import NOW, FakeLock
from support.pages import blocks

from vault_plugin.broker.inventory import Inventory
from vault_plugin.output.columns import width
from vault_plugin.output.stock import in_order, render_json, render_table, state_of, summary
from vault_plugin.timing.clock import format_rfc3339
from vault_plugin.tokens.identity import Identity
from vault_plugin.tokens.jwt import Kind
from vault_plugin.tokens.place import Holding, Place
from vault_plugin.tokens.stored import VaultRef

WARN = 300.0


def holding(
    user: str = "26",
    company: str = "Acme",
    *,
    left: float | None = 800.0,
    life: float | None = 900.0,
    age: float | None = None,
    kind: Kind = Kind.ACCESS,
    version: int | None = 7,
    **more: Any,
) -> Holding:
    """What is stored NOW for that identity, minted as long ago as `left` and `life` say."""
    identity = Identity(user, company)
    place = Place.of(identity)
    minted = None if age is None and None in (left, life) else NOW - (age or (life or 0) - (left or 0))
    return Holding(
        place,
        kind,
        VaultRef("secret", place.path("klearstack", kind), version),
        NOW,
        identity=identity,
        expires_at=None if left is None else NOW + left,
        life=life,
        minted_at=minted,
    )._replace(**more)


def vault(address: str = "https://vault.example:8200") -> Inventory:
    def nothing() -> Any:
        raise NotImplementedError

    return Inventory(nothing, FakeLock(), deadline=1, address=address, mount="secret", prefix="klearstack")


SAMPLE = in_order(
    [
        holding("33", left=None, life=None, version=None, content="nothing"),
        holding("31", left=-40.0, age=940.0, life=None, version=4, manifest="production"),
        holding("26", left=212.0, version=31, manifest="production"),
        holding("amélie.durand@filiale-grenoble.example", "Société Générale de Numérisation", left=640.0),
        holding("山田太郎", "株式会社クリアスタック", left=872.0, version=112, manifest="tokyo"),
        holding("26", kind=Kind.REFRESH, left=172000.0, life=172800.0, version=31, manifest="production"),
    ]
)


def table(*holdings: Holding, columns: int | None = None, colours: bool = False) -> list[str]:
    return render_table(holdings, WARN, columns=columns, colours=colours).splitlines()


def test_the_sample_in_the_documentation_is_what_80_columns_show() -> None:
    shown = render_table(SAMPLE, WARN, columns=80, colours=False)
    text = f"{shown}\n{summary(SAMPLE, WARN, 'secret/klearstack')}"
    (sample,) = [one.text for one in blocks("docs/commands.md") if one.text.startswith("COMPANY ")]
    assert sample == text
    assert max(map(width, text.splitlines())) == 80


def test_nothing_is_cut_where_the_width_is_not_limited() -> None:
    lines = table(*SAMPLE)
    assert "amélie.durand@filiale-grenoble.example" in lines[4]
    assert len({width(line.partition("access")[0]) for line in lines if " access " in line}) == 1


def test_a_terminal_that_is_too_narrow_gets_columns_that_can_be_read() -> None:
    lines = table(*SAMPLE, columns=20)
    assert "Société…" in lines[4]


def test_its_state_is_by_the_whole_seconds_left() -> None:
    for one, state in (
        (holding(left=301.0), "valid"),
        (holding(left=300.9), "expiring"),
        (holding(left=1.0), "expiring"),
        (holding(left=0.9), "expired"),
        (holding(left=-5.0), "expired"),
        (holding(left=None), "missing"),
        (holding(left=None, content="nothing"), "missing"),
        (holding(left=None, content="unmanaged"), "unmanaged"),
    ):
        assert state_of(one, WARN) == state, one


def test_what_is_missing_comes_first_then_what_expires_first() -> None:
    found = in_order(
        [holding("a", left=50.2), holding("b", left=None), holding("c", left=9.0), holding("A", left=50.9)]
    )
    assert [one.place.user for one in found] == ["b", "c", "A", "a"]


def test_the_bar_is_the_remaining_part_of_the_lifetime() -> None:
    for one, shown in (
        (holding(left=900.0), "████████ 15m 0s"),
        (holding(left=451.0), "█████░░░ 7m 31s"),
        (holding(left=450.0), "████░░░░ 7m 30s"),
        (holding(left=1.0), "█░░░░░░░ 1s"),
        (holding(left=0.0), "░░░░░░░░ expired"),
        (holding(left=None), "░░░░░░░░ missing"),
        (holding(left=None, content="unmanaged"), "░░░░░░░░ unmanaged"),
        (holding(left=2000.0, life=None), "████████ 33m 20s"),
        (holding(left=2000.0, life=900.0), "████████ 33m 20s"),
        (holding(left=7200.0, life=7200.0), "████████ 2h 0m"),
        (holding(left=86400.0 * 400, life=86400.0 * 800), "████░░░░ 400d 0h"),
    ):
        assert f" {shown}  " in f"{table(one)[1]}  ", one


def test_the_age_is_that_of_the_mint() -> None:
    assert "  0s ago  " in table(holding(age=0.1))[1]
    assert "  2h ago  " in table(holding(age=7300.0))[1]
    assert table(holding(left=None, life=None))[1].split()[-2:] == ["-", "-"]


def test_a_name_that_only_the_path_has_is_shown_as_in_the_path() -> None:
    one = holding("ü" * 200)._replace(identity=None)
    assert "~C3~BC" in table(one)[1]


def test_a_manifests_name_with_invisible_characters_is_not_written_to_the_terminal() -> None:
    assert table(holding(manifest="a\u202eb"))[1].endswith("  ?")


def test_colours_say_the_state_and_change_no_width() -> None:
    plain, painted = table(*SAMPLE, columns=80), table(*SAMPLE, columns=80, colours=True)
    codes = ["31", "31", "33", "32", "32", "32"]
    assert [line.partition("\x1b[")[2].partition("m")[0] for line in painted[1:]] == codes
    for before, after, code in zip(plain[1:], painted[1:], codes, strict=True):
        assert after.replace(f"\x1b[{code}m", "").replace("\x1b[0m", "") == before
    assert painted[0] == plain[0]


def test_a_summary_counts_each_state() -> None:
    assert summary([], WARN, "s/k") == "No tokens in s/k\n"
    assert summary([holding()], WARN, "s/k") == "1 token in s/k: 1 valid\n"
    assert summary([holding(), holding(left=None, content="unmanaged")], WARN, "s/k") == (
        "2 tokens in s/k: 1 replaced by an unmanaged secret, 1 valid\n"
    )


def test_json_has_dates_in_rfc_3339_and_durations_in_seconds() -> None:
    ref = VaultRef("secret", "klearstack/Acme/26/access", 7, "2026-09-21T13:33:19.5Z", "2026-09-21T13:18:20Z")
    one = holding(left=212.7, manifest="production", issued_by="https://api.example", ref=ref)
    found = json.loads(render_json({vault(): [one]}, WARN))
    assert found == {
        "tokens": [
            {
                "company_name": "Acme",
                "user_id": "26",
                "kind": "access",
                "state": "expiring",
                "expires_at": format_rfc3339(NOW + 212),
                "expires_in": 212,
                "lifetime": 900,
                "minted_at": format_rfc3339(NOW - 688),
                "managed_by": "klearstack-vault",
                "manifest": "production",
                "issued_by": "https://api.example",
                "vault": {
                    "address": "https://vault.example:8200",
                    "mount": "secret",
                    "path": "klearstack/Acme/26/access",
                    "version": 7,
                    "deletion_time": "2026-09-21T13:33:19.5Z",
                },
            }
        ]
    }


def test_json_of_nothing_has_null_for_what_is_not_known() -> None:
    nothing = holding(left=None, life=None, version=None, content="nothing", identity=None)
    (row,) = json.loads(render_json({vault(): [nothing]}, WARN))["tokens"]
    nulls = {
        "company_name",
        "user_id",
        "expires_at",
        "expires_in",
        "lifetime",
        "minted_at",
        "managed_by",
        "manifest",
    }
    assert {name for name, value in row.items() if value is None} == nulls | {"issued_by"}
    assert json.loads(render_json({vault(): []}, WARN)) == {"tokens": []}
