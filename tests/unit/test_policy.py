"""`policy`: what it prints, from which settings."""

import click
import pytest
from support.fakes import Run
from support.pages import policy, read

from vault_plugin.commands.policy import policy as command
from vault_plugin.vault.policy import ROLES, hcl

SYNCER = """\
path "secret/data/klearstack/*"     { capabilities = ["update", "read"] }
path "secret/metadata/klearstack/*" { capabilities = ["create", "update"] }
"""


def test_the_policy_is_that_of_the_documentation(run: Run) -> None:
    done = run("policy", "syncer")
    assert (done.code, done.out, done.err) == (0, SYNCER, "")
    assert policy(read("docs/storage.md")) == SYNCER


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (("reader",), 'path "secret/data/klearstack/*" { capabilities = ["read"] }\n'),
        (
            ("operator",),
            (
                'path "secret/data/klearstack/*"     { capabilities = ["read"] }\n'
                'path "secret/metadata/klearstack/*" { capabilities = ["list", "read", "delete"] }\n'
            ),
        ),
        (
            ("reader", "--kv-version", "1", "--mount", "/team/kv/", "--path-prefix", "a/b"),
            'path "team/kv/a/b/*" { capabilities = ["read"] }\n',
        ),
        (
            ("syncer", "--kv-version", "1"),
            'path "env/klearstack/*" { capabilities = ["create", "update", "read"] }\n',
        ),
        (
            ("reader", "--vault-namespace", "team/ci", "--auth-namespace", "root"),
            'path "team/ci/secret/data/klearstack/*" { capabilities = ["read"] }\n',
        ),
        (
            ("reader", "--vault-namespace", "team/ci", "--auth-namespace", "team"),
            'path "ci/secret/data/klearstack/*" { capabilities = ["read"] }\n',
        ),
        (
            ("reader", "--vault-namespace", "team", "--auth-namespace", "tea"),
            'path "secret/data/klearstack/*" { capabilities = ["read"] }\n',
        ),
        (
            ("reader", "--vault-namespace", "team"),
            'path "secret/data/klearstack/*" { capabilities = ["read"] }\n',
        ),
        (
            ("operator", "--kv-version", "1"),
            'path "env/klearstack/*" { capabilities = ["list", "read", "delete"] }\n',
        ),
    ],
)
def test_it_is_for_the_configured_mount_and_prefix(
    run: Run, monkeypatch: pytest.MonkeyPatch, argv: tuple[str, ...], expected: str
) -> None:
    if "env/" in expected:
        monkeypatch.setenv("KLEARSTACK_VAULT_MOUNT", "env")
    assert run("policy", *argv) == (0, expected, "")


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        ((), 64, "ROLE is missing."),
        (("admin",), 64, "role must be one of reader, syncer, operator."),
        (("reader", "--kv-version", "3"), 64, "--kv-version must be one of 1, 2."),
        (("reader", "--mount", "a*"), 78, "--mount (KLEARSTACK_VAULT_MOUNT) may contain only letters"),
        (("reader", "--path-prefix", "../x"), 78, "--path-prefix (KLEARSTACK_VAULT_PATH_PREFIX) may contain"),
    ],
)
def test_bad_input_is_one_line(run: Run, argv: tuple[str, ...], code: int, said: str) -> None:
    done = run("policy", *argv)
    assert (done.code, done.out, done.err.count("\n")) == (code, "", 1)
    assert said in done.err


def test_each_role_has_a_policy_for_each_version_and_the_command_takes_each_role() -> None:
    (role,) = [param.type for param in command.params if param.name == "role"]
    assert isinstance(role, click.Choice)
    assert tuple(role.choices) == ROLES
    for version in (1, 2):
        assert len({hcl(name, version, "m", "p") for name in ROLES}) == len(ROLES)
