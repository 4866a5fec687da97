"""Tab completion: what the shells' functions are given. tests/integration has it in a real bash."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from support.fakes import Run

COMPLETE = "_KLEARSTACK_VAULT_COMPLETE"


def completed(run: Run, monkeypatch: pytest.MonkeyPatch, shell: str, *words: str) -> Sequence[str]:
    monkeypatch.setenv(COMPLETE, f"{shell}_complete")
    monkeypatch.setenv("COMP_WORDS", " ".join(("klearstack-vault", *words)))
    monkeypatch.setenv("COMP_CWORD", words[-1] if shell == "fish" else str(len(words)))
    done = run()
    assert (done.code, done.err) == (0, "")
    return done.out.strip().splitlines()


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("w",), ["plain", "watch", "Keep every token of a manifest valid."]),
        (("get", "--token", "r"), ["plain", "refresh", "_"]),
        (("get", "--auth", "j"), ["plain", "jwt", "_"]),
        (("get", "--ren"), ["plain", "--renew", "Request a new token even if the one in Vault is valid."]),
        (("helper", "ba"), ["plain", "bazel", "_"]),
        (("sync", "x"), ["file", "x", "_"]),
        (("get", "--output", "x"), ["file", "x", "_"]),
        (("get", "--ca-cert", "x"), ["file", "x", "_"]),
        (("exec", "--", "x"), ["file", "x", "_"]),
        (("supe",), []),
        (("nonsense", "x"), []),
    ],
    ids=" ".join,
)
def test_zsh_is_given_candidates_with_their_meaning(
    run: Run, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], found: Sequence[str]
) -> None:
    assert completed(run, monkeypatch, "zsh", *words) == found


def test_fish_is_given_candidates(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert completed(run, monkeypatch, "fish", "sync", "id") == ["file,id"]
    (found,) = completed(run, monkeypatch, "fish", "si")
    assert found.split("\t")[0] == "plain,simulate"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_is_given_its_function(run: Run, monkeypatch: pytest.MonkeyPatch, shell: str) -> None:
    monkeypatch.setenv(COMPLETE, f"{shell}_source")
    done = run()
    assert (done.code, done.err) == (0, "")
    assert f"{COMPLETE}={shell}_complete" in done.out
    assert f"{COMPLETE}={shell}_source" in Path(__file__).parents[2].joinpath("docs/commands.md").read_text()
