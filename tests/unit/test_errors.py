"""The error tree is as it is drawn, and its exit codes are a promise."""

import re

from vault_plugin import errors
from vault_plugin.errors import KlearstackVaultError

# Scripts and README rely on these: a change here is a breaking one.
PROMISED = {
    "KlearstackVaultError": (70, "internal"),
    "UsageError": (64, "usage"),
    "QueryError": (76, "query_invalid"),
    "SettingsError": (78, "settings"),
    "TokenError": (65, "token_invalid"),
    "UserMismatchError": (65, "user_mismatch"),
    "OutputError": (73, "output_not_created"),
    "WriteError": (74, "output_not_written"),
    "BusyError": (75, "busy"),
    "SourceError": (69, "endpoint_unavailable"),
    "SourceBusyError": (75, "endpoint_busy"),
    "SourceSettingsError": (78, "endpoint_settings"),
    "SourceProtocolError": (76, "endpoint_protocol"),
    "SourceRefusedError": (77, "endpoint_refused"),
    "ParameterMissingError": (78, "endpoint_parameter_missing"),
    "StoreError": (69, "vault_unavailable"),
    "StoreBusyError": (75, "vault_busy"),
    "StoreSettingsError": (78, "vault_settings"),
    "StoreRefusedError": (77, "vault_refused"),
    "MountMissingError": (78, "vault_mount_missing"),
    "ForeignSecretError": (78, "vault_path_taken"),
    "OtherEndpointError": (78, "vault_other_endpoint"),
}


def tree(root: type[KlearstackVaultError] = KlearstackVaultError) -> list[type[KlearstackVaultError]]:
    ours = [branch for branch in root.__subclasses__() if branch.__module__ == errors.__name__]
    return [root, *(error for branch in ours for error in tree(branch))]


def drawing() -> dict[str, tuple[str, int]]:
    """From the module's docstring, each class's parent and exit code."""
    drawn: dict[str, tuple[str, int]] = {}
    above: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        if found := re.match(r"([ │├└─]*)(\w+Error) +(?:\.\.\. )?(\d+)\b", line):
            above = [*above[: len(found[1]) // 4 - 1], found[2]]
            drawn[found[2]] = (above[-2] if len(above) > 1 else "Exception", int(found[3]))
    return drawn


def test_the_drawing_shows_every_class_under_its_parent_with_its_exit_code() -> None:
    assert drawing() == {error.__name__: (error.__bases__[0].__name__, error.exit_code) for error in tree()}


def test_exit_codes_and_codes_are_the_promised_ones() -> None:
    assert {error.__name__: (error.exit_code, error.code) for error in tree()} == PROMISED


def test_each_class_has_a_code_and_a_meaning_of_its_own() -> None:
    for error in tree():
        assert {"exit_code", "code", "meaning"} <= vars(error).keys()
    assert len({error.code for error in tree()}) == len(tree())


def test_no_error_exits_by_a_code_that_means_something_else_to_shells_or_vault() -> None:
    for error in tree():
        assert (
            64 <= error.exit_code <= 78
        )  # sysexits.h; not 0, 1, 2 (click's usage, vault's "remote"), 126 and above


def test_an_error_carries_its_message_and_its_hint() -> None:
    for error in tree():
        plain, rich = error("What failed."), error("What failed.", hint="What to do.")
        assert (str(plain), plain.hint) == ("What failed.", ""), error
        assert (str(rich), rich.hint) == ("What failed.", "What to do."), error
