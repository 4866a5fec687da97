"""Whose token: a name that is null, empty or has invisible characters gets no token, in any face and any locale."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.cli import COMMAND, World, kept, run

INVISIBLE = ["Acme\n", "\ufeffAcme", "Acme ", "Ac\u200bme", "\u202eAcme", "Acme\u3000"]
Face = Callable[[World, str], "subprocess.CompletedProcess[str]"]
_I18N = Path("/usr/share/i18n/charmaps/ISO-8859-1.gz")


def by_flag(world: World, name: str) -> subprocess.CompletedProcess[str]:
    return world.run("get", "--company-name", name)


def by_user_id(world: World, name: str) -> subprocess.CompletedProcess[str]:
    return world.run("get", "--user-id", name)


def by_stdin(world: World, name: str) -> subprocess.CompletedProcess[str]:
    return run("get", "--company-name", "-", environ=world.environ, stdin=f"{name}\n" if name else "")


def by_file(world: World, name: str) -> subprocess.CompletedProcess[str]:
    (world.home / "company").write_bytes(f"{name}\n".encode())
    return world.run(
        "get", KLEARSTACK_COMPANY_NAME=None, KLEARSTACK_COMPANY_NAME_FILE=str(world.home / "company")
    )


def by_exec(world: World, name: str) -> subprocess.CompletedProcess[str]:
    return world.run("exec", "--company-name", name, "--", "printenv", "KLEARSTACK_ACCESS_TOKEN")


def by_exec_credential(world: World, name: str) -> subprocess.CompletedProcess[str]:
    return world.run("helper", "--any-cluster", "--company-name", name, "exec-credential")


def by_bazel(world: World, name: str) -> subprocess.CompletedProcess[str]:
    arguments = ("helper", "--company-name", name, "--host", "a.example", "bazel", "get")
    return run(*arguments, environ=world.environ, stdin='{"uri": "https://a.example/"}')


def by_git(world: World, name: str) -> subprocess.CompletedProcess[str]:
    arguments = ("helper", "--company-name", name, "--host", "a.example", "git", "get")
    return run(*arguments, environ=world.environ, stdin="protocol=https\nhost=a.example\n\n")


def by_terraform(world: World, name: str) -> subprocess.CompletedProcess[str]:
    return run(
        "terraform", environ=world.environ, stdin=json.dumps({"user_id": "26", "company_name": name or None})
    )


def by_sync(world: World, name: str) -> subprocess.CompletedProcess[str]:
    (world.home / "m.jsonl").write_text(json.dumps({"user_id": "26", "company_name": name or None}))
    return world.run("sync", str(world.home / "m.jsonl"))


def by_sync_flag(world: World, name: str) -> subprocess.CompletedProcess[str]:
    (world.home / "m.csv").write_text("user_id\n26\n")
    return world.run("sync", str(world.home / "m.csv"), "--company-name", name)


def by_watch(world: World, name: str) -> subprocess.CompletedProcess[str]:
    (world.home / "m.yaml").write_text(
        f"defaults: {{company_name: {json.dumps(name)}}}\nidentities: [{{user_id: 1}}]"
    )
    return world.run("watch", str(world.home / "m.yaml"))


FACES = [
    *(by_flag, by_user_id, by_stdin, by_file, by_exec, by_exec_credential, by_bazel, by_git, by_terraform),
    *(by_sync, by_sync_flag, by_watch),
]


# Each invisible one is tried by two faces, and all of them by `get` below.
@pytest.mark.parametrize(
    ("face", "invisible"),
    list(zip(FACES, INVISIBLE * 2, strict=True)),
    ids=[face.__name__[3:] for face in FACES],
)
def test_a_null_empty_or_invisible_name_gets_no_token(kv2: World, face: Face, invisible: str) -> None:
    assert kv2.environ["KLEARSTACK_COMPANY_NAME"] == "Acme"  # what it must not become
    assert kv2.environ["KLEARSTACK_USER_ID"] == "26"
    for name in ("", invisible):
        done = face(kv2, name)
        assert (done.returncode, done.stdout) == (76 if face is by_terraform else 78, ""), ascii(name)
        assert "company_name" in done.stderr.replace("-", "_") or face is by_user_id
        assert "cme" not in done.stderr
    assert kv2.endpoint.requests == 0


@pytest.mark.parametrize("name", INVISIBLE, ids=ascii)
def test_a_name_with_what_nobody_sees_is_told_by_its_variable(kv2: World, name: str) -> None:
    done = kv2.run("get", KLEARSTACK_COMPANY_NAME=name)
    assert (done.returncode, done.stdout, kv2.endpoint.requests) == (78, "", 0)
    assert done.stderr.startswith("klearstack-vault: --company-name (KLEARSTACK_COMPANY_NAME) ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("flag", ["--url", "--vault-addr"])
def test_an_empty_address_is_not_taken_from_the_environment(kv2: World, flag: str) -> None:
    done = kv2.run("get", flag, "")
    assert (done.returncode, done.stdout, kv2.endpoint.requests) == (78, "", 0)
    assert f"{flag} (" in done.stderr
    assert "is given but empty" in done.stderr


def test_the_address_of_vault_may_not_hold_a_line_end(kv2: World) -> None:
    done = kv2.run("get", VAULT_ADDR=f"{kv2.vault.address}\n")
    assert (done.returncode, done.stdout, kv2.endpoint.requests) == (78, "", 0)
    (kv2.home / "address").write_text(f"{kv2.vault.address}\r\n")
    assert kv2.get(VAULT_ADDR=None, VAULT_ADDR_FILE=str(kv2.home / "address"))["source"] == "endpoint"


def test_what_has_two_spellings_stays_two_identities_with_a_warning(kv2: World) -> None:
    composed, decomposed = (kv2.run("get", "--company-name", name) for name in ("\u00c4hre", "A\u0308hre"))
    assert (composed.returncode, decomposed.returncode, kv2.endpoint.mints) == (0, 0, 2)
    assert composed.stderr == ""
    assert "is not NFC-normalized" in decomposed.stderr
    assert composed.stdout != decomposed.stdout


@pytest.fixture(params=["C", *(["en_US.ISO-8859-1"] if _I18N.exists() else [])])
def locale(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """The environment of a process in which Python's text is not UTF-8: ASCII, and Latin-1 where it can be made."""
    if request.param == "C":
        return {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    name = str(request.param)
    command = ["localedef", "-f", "ISO-8859-1", "-i", "en_US", str(tmp_path / name)]
    subprocess.run(command, check=False, capture_output=True)  # warns of what we do not need
    return {"LC_ALL": name, "LOCPATH": str(tmp_path)}


NAME = "A\u00e7me \u20ac \u65e5\u672c"


def test_arguments_and_environment_are_utf_8_in_any_locale(kv2: World, locale: dict[str, str]) -> None:
    ask = [sys.executable, "-c", "import sys; print(sys.getfilesystemencoding())"]
    encoding = subprocess.run(ask, env=kept() | locale, capture_output=True, text=True, check=True).stdout
    assert encoding.strip() in {"ascii", "iso8859-1"}
    path = kv2.get("--company-name", NAME)["vault"]["path"]
    assert kv2.get("--company-name", NAME, **locale)["vault"]["path"] == path
    assert kv2.get(KLEARSTACK_COMPANY_NAME=NAME, **locale)["vault"]["path"] == path
    (kv2.home / NAME).write_text(NAME, encoding="utf-8")
    by_file = {"KLEARSTACK_COMPANY_NAME": None, "KLEARSTACK_COMPANY_NAME_FILE": str(kv2.home / NAME)}
    assert kv2.get(**by_file, **locale)["vault"]["path"] == path
    by_stdin = ("get", "--format", "json", "--company-name", "-")
    done = run(*by_stdin, environ=kv2.environ | locale | {"PYTHONIOENCODING": "latin-1"}, stdin=NAME)
    assert json.loads(done.stdout)["vault"]["path"] == path
    assert kv2.endpoint.mints == 1


def test_in_any_locale_a_command_gets_its_arguments_and_environment_byte_for_byte(
    kv2: World, locale: dict[str, str]
) -> None:
    arguments = [NAME.encode(), b"\xff\xe9"]
    show = (
        b"import os, sys; print([os.fsencode(one) for one in sys.argv[1:]], os.environb[b'OTHER'], sep='\\n')"
    )
    done = subprocess.run(
        [*COMMAND, "exec", "--", sys.executable, "-c", show, *arguments],
        env={name.encode(): text.encode() for name, text in (kv2.environ | locale).items()}
        | {b"OTHER": b"\xe7"},
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode().split("\n")[:-1] == [str(arguments), str(b"\xe7")]


def test_what_is_no_utf_8_is_no_name_in_any_locale(kv2: World, locale: dict[str, str]) -> None:
    environ = {name.encode(): text.encode() for name, text in (kv2.environ | locale).items()}
    for arguments, more in (
        ([b"--company-name", b"A\xe7me"], {}),
        ([], {b"KLEARSTACK_COMPANY_NAME": b"A\xe7me"}),
    ):
        done = subprocess.run(
            [*COMMAND, "get", *arguments], env=environ | more, capture_output=True, check=False, timeout=60
        )
        assert (done.returncode, done.stdout) == (78, b"")
        assert b"is not valid UTF-8" in done.stderr
    assert kv2.endpoint.requests == 0
