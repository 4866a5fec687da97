"""What is said about a Vault token that was denied a request, by what Vault says about the token."""

from typing import Any, cast

import pytest
from hvac.exceptions import Forbidden, InvalidRequest

from vault_plugin.errors import StoreError, StoreRefusedError
from vault_plugin.timing.deadline import Deadline
from vault_plugin.tokens.secret import Secret
from vault_plugin.vault import wrapping
from vault_plugin.vault.auth import Login
from vault_plugin.vault.denials import Denials
from vault_plugin.vault.hvac_errors import DeniedError, UnknownTokenError
from vault_plugin.wording import worded

NO_WRAPPING = InvalidRequest(errors=["wrapping token is not valid or does not exist"])
BY_POLICY = Forbidden(errors=["1 error occurred:\n\t* permission denied\n\n"])
UNKNOWN = Forbidden(errors=["permission denied"])
DENIED = DeniedError("Vault denied the read (status 403).", hint="policy")
GONE = UnknownTokenError("Vault denied the read (status 403).", hint="unknown")


class Vault:
    """A login and hvac's adapter in one: `post` and `get` answer, or raise, what was given."""

    def __init__(self, lookup: object = NO_WRAPPING, lookup_self: object = None) -> None:
        self.answers = {"post": lookup, "get": lookup_self}
        self.asked: list[str] = []

    def adapter(self, token: str, limits: object) -> "Vault":
        return self

    def post(self, url: str, json: Any = None) -> object:
        return self._answer("post", url)

    def get(self, url: str) -> object:
        return self._answer("get", url)

    def _answer(self, method: str, url: str) -> object:
        self.asked.append(url)
        answer = self.answers[method]
        if isinstance(answer, Exception):
            raise answer
        return answer


def hint(vault: Vault, denial: StoreRefusedError, auth: str = "token", *, recognized: bool = False) -> str:
    denials = Denials(cast(Login, vault), auth)
    first = denials.explained(denial, "s.t", recognized, Deadline(5))
    asked = list(vault.asked)
    assert denials.explained(denial, "s.t", recognized, Deadline(5)).hint == first.hint
    assert vault.asked == asked  # once for each token
    return worded(first.hint)


@pytest.mark.parametrize("denial", [DENIED, GONE])
def test_a_wrapping_token_that_is_not_used_up_is_one_for_sure(denial: StoreRefusedError) -> None:
    assert "is a wrapping token, which contains" in hint(Vault(lookup={}), denial)


def test_a_token_that_vault_knew_a_request_ago_was_valid_for_one() -> None:
    assert "valid for a single request" in hint(Vault(lookup_self=UNKNOWN), DENIED)
    assert "valid for a single request" in hint(Vault(), GONE, recognized=True)


@pytest.mark.parametrize("lookup_self", [{}, BY_POLICY, NO_WRAPPING, StoreError("Vault is away.")])
def test_any_other_token_keeps_the_hint_about_its_policy(lookup_self: object) -> None:
    assert hint(Vault(lookup_self=lookup_self), DENIED) == "policy"


def test_a_token_that_vault_never_knew_is_unknown() -> None:
    assert hint(Vault(), GONE) == "unknown"


def test_no_other_error_and_no_other_login_leads_to_a_question() -> None:
    vault = Vault()
    assert hint(vault, StoreRefusedError("Vault rejected the write (status 400).", hint="400")) == "400"
    assert hint(vault, GONE, "approle") == "unknown"
    assert hint(vault, DENIED, "none") == "policy"
    assert "had no Vault token, as --auth" in hint(vault, GONE, "none")
    assert vault.asked == []


def test_a_secret_id_is_unwrapped_once_and_kept() -> None:
    vault = Vault(lookup={"data": {"secret_id": "s"}})
    for _ in range(2):
        assert wrapping.unwrapped_secret_id(cast(Any, vault), Secret("once"), Deadline(5)) == Secret("s")
    assert vault.asked == ["/v1/sys/wrapping/unwrap"]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (NO_WRAPPING, "has been used, or is not one"),
        ({"data": {}}, "contains no secret id"),
        ({"data": {"secret_id": "a b"}}, "contains no secret id"),
        (None, "contains no secret id"),
    ],
)
def test_what_contains_no_secret_id_is_refused_and_not_requested_again(answer: object, reason: str) -> None:
    vault, token = Vault(lookup=answer), Secret(f"none: {answer}")
    caught = [refusal(vault, token, reason) for _ in range(2)]
    assert vault.asked == ["/v1/sys/wrapping/unwrap"]
    assert caught[0].hint == caught[1].hint
    assert caught[0] is not caught[1]


def refusal(vault: Vault, token: Secret, reason: str) -> StoreRefusedError:
    with pytest.raises(StoreRefusedError, match=reason) as caught:
        wrapping.unwrapped_secret_id(cast(Any, vault), token, Deadline(5))
    assert caught.value.hint
    assert caught.value.__cause__ is None
    return caught.value


@pytest.mark.parametrize("maybe_used", [True, False])
def test_after_a_lost_response_nobody_else_is_suspected(maybe_used: bool) -> None:
    error = StoreError("The request to Vault failed: connection reset.")
    error.unrepeatable = maybe_used
    vault, token = Vault(lookup=error), Secret(f"lost: {maybe_used}")
    with pytest.raises(StoreError, match="connection reset"):
        wrapping.unwrapped_secret_id(cast(Any, vault), token, Deadline(5))
    vault.answers["post"] = NO_WRAPPING
    for _ in range(2):
        refused = refusal(vault, token, "whose response was lost" if maybe_used else "has been used")
        assert ("somebody else" in refused.hint) is not maybe_used
    assert vault.asked == ["/v1/sys/wrapping/unwrap"] * 2


def test_a_request_that_vault_did_not_get_leaves_the_secret_id_to_the_next_one() -> None:
    error = StoreError("The request to Vault failed: connection refused.")
    error.unrepeatable = True
    vault, token = Vault(lookup=error), Secret("down")
    with pytest.raises(StoreError, match="connection refused"):
        wrapping.unwrapped_secret_id(cast(Any, vault), token, Deadline(5))
    vault.answers["post"] = {"data": {"secret_id": "s"}}
    assert wrapping.unwrapped_secret_id(cast(Any, vault), token, Deadline(5)) == Secret("s")


def test_nobody_waits_for_another_unwrapping_beyond_the_deadline() -> None:
    with wrapping._unwrapping, pytest.raises(StoreError, match="not unwrapped before the deadline"):
        wrapping.unwrapped_secret_id(cast(Any, Vault()), Secret("late"), Deadline(0))
