"""What a grant looks like outside."""

import json
import re
import subprocess
from collections.abc import Collection

import pytest
from support.fakes import NOW, jwt, token

from vault_plugin.broker import Grant, GrantedToken
from vault_plugin.errors import SettingsError, UsageError
from vault_plugin.output.formats import FORMATS, render, render_error
from vault_plugin.tokens.jwt import Kind
from vault_plugin.tokens.stored import VaultRef

ACCESS, REFRESH, BOTH = (Kind.ACCESS,), (Kind.REFRESH,), (Kind.ACCESS, Kind.REFRESH)
DELETION = "2026-09-21T14:28:19.5Z"


def grant(kinds: Collection[Kind] = ACCESS, *, stored: bool = True, stale: bool = False) -> Grant:
    """As after 100 s of a life of 900 s."""
    held = {
        kind: GrantedToken(
            token(kind, life=900 if kind is Kind.ACCESS else 86400),
            VaultRef("secret", f"klearstack/Acme/26/{kind}", 7, DELETION) if stored else None,
        )
        for kind in kinds
    }
    return Grant(held, "vault" if stored else "endpoint", stale, NOW + 100.5)


ACCESS_JWT = grant().access.token.value.reveal()
REFRESH_JWT = grant(REFRESH).refresh.token.value.reveal()


def place(kind: str) -> dict[str, object]:
    path = f"klearstack/Acme/26/{kind}"
    return {"mount": "secret", "path": path, "version": 7, "deletion_time": DELETION}


def test_raw_is_the_token_and_nothing_else() -> None:
    assert render(grant(), "raw") == f"{ACCESS_JWT}\n"
    assert render(grant(REFRESH), "raw") == f"{REFRESH_JWT}\n"
    assert render(grant(BOTH), "raw") == f"{ACCESS_JWT}\n{REFRESH_JWT}\n"


def test_json_tells_all_about_the_access_token() -> None:
    assert json.loads(render(grant(), "json")) == {
        "access_token": ACCESS_JWT,
        "token_type": "Bearer",
        "expires_at": "2026-09-21T14:28:20Z",
        "expires_in": 799,
        "source": "vault",
        "stale": False,
        "vault": place("access"),
    }


def test_json_tells_all_about_the_refresh_token_under_names_of_its_own() -> None:
    assert json.loads(render(grant(REFRESH), "json")) == {
        "refresh_token": REFRESH_JWT,
        "token_type": "Bearer",
        "refresh_expires_at": "2026-09-22T14:13:20Z",
        "refresh_expires_in": 86299,
        "source": "vault",
        "stale": False,
        "refresh_vault": place("refresh"),
    }


def test_json_of_both_is_the_two_together() -> None:
    one, other = (json.loads(render(grant(kinds), "json")) for kinds in (ACCESS, REFRESH))
    assert json.loads(render(grant(BOTH), "json")) == one | other


def test_json_of_a_bypassed_vault_has_no_place() -> None:
    answer = json.loads(render(grant(BOTH, stored=False), "json"))
    assert (answer["vault"], answer["refresh_vault"], answer["source"]) == (None, None, "endpoint")


def test_json_marks_what_is_stale() -> None:
    assert json.loads(render(grant(stale=True), "json"))["stale"] is True


def test_json_is_one_line() -> None:
    assert render(grant(BOTH), "json").count("\n") == 1


def test_header_is_the_line_that_a_request_wants() -> None:
    assert render(grant(), "header") == f"Authorization: Bearer {ACCESS_JWT}\n"


def test_curl_is_a_line_of_its_config_file() -> None:
    assert render(grant(), "curl") == f'header = "Authorization: Bearer {ACCESS_JWT}"\n'


@pytest.mark.parametrize("form", ["header", "curl"])
@pytest.mark.parametrize("kinds", [REFRESH, BOTH])
def test_a_refresh_token_never_goes_into_a_header(form: str, kinds: Collection[Kind]) -> None:
    with pytest.raises(UsageError):
        render(grant(kinds), form)


def test_env_is_what_a_shell_can_eval() -> None:
    script = (
        'eval "$1"; printf "%s\\n" "$KLEARSTACK_ACCESS_TOKEN" "$KLEARSTACK_TOKEN_EXPIRATION"'
        ' "$KLEARSTACK_REFRESH_TOKEN" "$KLEARSTACK_REFRESH_TOKEN_EXPIRATION"; env'
    )
    done = subprocess.run(
        ["sh", "-euc", script, "sh", render(grant(BOTH), "env")],
        env={},
        capture_output=True,
        text=True,
        check=True,
    )
    said = done.stdout.splitlines()
    assert said[:4] == [ACCESS_JWT, "2026-09-21T14:28:20Z", REFRESH_JWT, "2026-09-22T14:13:20Z"]
    assert f"KLEARSTACK_ACCESS_TOKEN={ACCESS_JWT}" in said[4:]  # exported, too
    assert done.stderr == ""


def test_env_names_only_what_was_asked_for() -> None:
    assert render(grant(), "env") == (
        f"export KLEARSTACK_ACCESS_TOKEN={ACCESS_JWT}\nexport KLEARSTACK_TOKEN_EXPIRATION=2026-09-21T14:28:20Z\n"
    )
    assert "ACCESS" not in render(grant(REFRESH), "env")


def test_github_masks_each_token_and_the_parts_that_somebody_might_print() -> None:
    def masks(jwt: str) -> str:
        head, _, signature = jwt.rpartition(".")
        assert re.fullmatch(r"[\w.-]+", jwt, re.ASCII)  # no %, CR or LF, which GitHub would want escaped
        return f"::add-mask::{jwt}\n::add-mask::{head}\n::add-mask::{signature}\n"

    assert render(grant(), "github") == masks(ACCESS_JWT)
    assert render(grant(BOTH), "github") == masks(ACCESS_JWT) + masks(REFRESH_JWT)


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_ends_in_one_newline_and_takes_a_bypassed_vault(form: str) -> None:
    text = render(grant(stored=False), form)
    assert jwt() in text
    assert text == text.strip() + "\n"


def test_the_formats_are_the_promised_ones() -> None:
    assert list(FORMATS) == ["raw", "json", "env", "header", "curl", "github"]


def test_an_error_is_a_json_object_on_one_line() -> None:
    text = render_error(SettingsError("What failed.", hint="What to do."))
    assert json.loads(text) == {
        "error": {"code": "settings", "message": "What failed.", "hint": "What to do.", "retryable": False}
    }
    assert text.count("\n") == 1
