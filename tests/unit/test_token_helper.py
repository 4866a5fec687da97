"""The token helper of Vault's command: how it is found and called, and what it may print."""

import errno
import os
import select
import signal
import subprocess
import time
from pathlib import Path
from typing import NoReturn

import pytest
from support.interrupts import interrupt_starts
from support.waiting import until

from vault_plugin.errors import SettingsError
from vault_plugin.settings import Settings
from vault_plugin.settings.token_helper import MAX_OUTPUT, token_helper
from vault_plugin.timing.deadline import Deadline
from vault_plugin.tokens.secret import Secret

PRINTS = "#!/bin/sh\nprintf 'hvs.helped\\n'\n"
# By OpenBao 2.7: each of these names it.
CONFIGS = [
    'token_helper = "{helper}"',
    "token_helper='x'\n# no text in HCL\ntoken_helper=\"{helper}\" # such as this\n",
    '{{"token_helper": "{helper}"}}',
    '// token_helper = "/none"\n/* token_helper = "/none"\n*/\n"token_helper" = "{helper}"',
    'token_helper = "/none"\ntoken_helper = "{helper}"',
]


def environment(
    folder: Path, config: str = 'token_helper = "{helper}"', script: str = PRINTS
) -> dict[str, str]:
    """An environment without a Vault token, with a helper that `~/.vault` names."""
    helper = folder / "a helper"
    helper.write_text(script)
    helper.chmod(0o755)
    (folder / ".vault").write_text(config.format(helper=helper))
    return {
        "HOME": str(folder),
        "PATH": os.environ["PATH"],
        "KLEARSTACK_USER_ID": "26",
        "KLEARSTACK_COMPANY_NAME": "Acme",
        "KLEARSTACK_URL": "https://api.example",
        "VAULT_ADDR": "https://vault.example:8200",
    }


def token(environ: dict[str, str]) -> Secret | None:
    return Settings.from_env(environ).vault_token


def complaint(environ: dict[str, str]) -> str:
    with pytest.raises(SettingsError) as caught:
        Settings.from_env(environ)
    return str(caught.value)


@pytest.mark.parametrize("config", CONFIGS)
def test_its_token_is_taken(config: str, tmp_path: Path) -> None:
    environ = environment(tmp_path, config)
    (tmp_path / ".vault-token").write_text("hvs.home")
    assert token(environ) == Secret("hvs.helped")


def test_a_token_that_is_given_comes_first(tmp_path: Path) -> None:
    environ = environment(tmp_path, script="#!/bin/sh\nexit 1\n")
    assert token(environ | {"VAULT_TOKEN": "hvs.given"}) == Secret("hvs.given")
    empty = environ | {"VAULT_TOKEN_FILE": os.devnull}
    assert complaint(empty).endswith("VAULT_TOKEN_FILE names, is empty.")


def test_another_login_needs_no_helper(tmp_path: Path) -> None:
    environ = environment(tmp_path, script="#!/bin/sh\nexit 1\n")
    assert Settings.from_env(environ, auth="none").vault_token is None


def test_the_configuration_may_be_elsewhere_and_that_of_bao_comes_first(tmp_path: Path) -> None:
    environ = environment(tmp_path)
    other = tmp_path / "other"
    (tmp_path / ".vault").rename(other)
    (tmp_path / ".vault-token").write_text("hvs.home")
    assert token(environ) == Secret("hvs.home")
    assert token(environ | {"VAULT_CONFIG_PATH": str(other)}) == Secret("hvs.helped")
    none = environ | {"VAULT_CONFIG_PATH": str(other), "BAO_CONFIG_PATH": str(tmp_path / "none")}
    assert token(none) == Secret("hvs.home")
    (tmp_path / ".vault").write_text('token_helper = "/none"')
    other.rename(tmp_path / ".bao")
    assert token(environ) == Secret("hvs.helped")


@pytest.mark.parametrize("config", ["", 'token_helper = ""', "# nothing\n", "{{}}"])
def test_without_a_helper_it_is_the_token_of_the_home_folder(config: str, tmp_path: Path) -> None:
    environ = environment(tmp_path, config)
    assert complaint(environ) == "VAULT_TOKEN or BAO_TOKEN is missing, and ~/.vault-token contains none."
    (tmp_path / ".vault-token").write_text("hvs.home")
    assert token(environ) == Secret("hvs.home")


def test_a_home_folder_that_nobody_may_enter_has_no_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(path: object, **_: object) -> os.stat_result:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    environ = environment(tmp_path)
    monkeypatch.setattr(os, "stat", denied)  # which mode 000 does not keep root from
    assert token_helper(None, environ, Deadline(5)) is None


def test_it_is_called_as_vaults_command_does_it_and_gets_neither_identity_nor_credential(
    tmp_path: Path,
) -> None:
    script = '#!/bin/sh\nenv >"$HOME/env"\necho "$# $1" >>"$HOME/env"\necho hvs.helped\n'
    environ = environment(tmp_path, script=script)
    assert token(environ | {"VAULT_SECRET_ID": "secret", "VAULT_JWT_FILE": os.devnull, "OWN": "x"})
    said = (tmp_path / "env").read_text().splitlines()
    assert said[-1] == "1 get"
    assert {"VAULT_ADDR=https://vault.example:8200", "BAO_ADDR=https://vault.example:8200", "OWN=x"} <= set(
        said
    )
    assert [
        line for line in said if line.startswith(("VAULT_S", "VAULT_J", "KLEARSTACK_USER", "KLEARSTACK_C"))
    ] == []


def test_a_script_without_a_first_line_that_names_its_interpreter_is_run_too(tmp_path: Path) -> None:
    assert token(environment(tmp_path, script="echo ' hvs.helped '\n")) == Secret("hvs.helped")


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("exit 3", "failed (exit status 3): call it with `get` to see why"),
        (
            "echo SECRET; echo SECRET >&2; kill -9 $$",
            "failed (exit status 137): call it with `get` to see why",
        ),
        ("printf ''", "printed none"),
        ("echo SECRET; echo SECRET", "printed something other than a token"),
        ("printf 'SECRET\\377'", "printed something other than a token"),
        ("printf 'SECR\\303\\211T'", "printed something other than a token"),
        (f"head -c {2 * MAX_OUTPUT} /dev/zero", "printed something other than a token"),
        (f"yes 7 | head -c {2 * MAX_OUTPUT}", "printed something other than a token"),
    ],
)
def test_wrong_output_is_one_complaint_that_does_not_quote_it(
    script: str, reason: str, tmp_path: Path
) -> None:
    said = complaint(environment(tmp_path, script=f"#!/bin/sh\n{script}\n"))
    assert said == f"VAULT_TOKEN or BAO_TOKEN is missing, and the token helper {tmp_path}/a helper {reason}."


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ('token_helper = "/none/at/all"', "the token helper /none/at/all is not an executable file"),
        ('token_helper = "/tmp"', "the token helper /tmp is not an executable file"),
        ("helper = x", 'is not a configuration such as `token_helper = "/path"`'),
        ("\udcff", "which may name a token helper, cannot be read"),
    ],
)
def test_a_wrong_configuration_is_named(config: str, reason: str, tmp_path: Path) -> None:
    environ = environment(tmp_path)
    (tmp_path / ".vault").write_bytes(config.encode(errors="surrogateescape"))
    (tmp_path / ".vault-token").write_text("hvs.home")
    said = complaint(environ)
    assert said.startswith("VAULT_TOKEN or BAO_TOKEN is missing, and ")
    assert reason in said


def assert_ends(child: int) -> None:
    end = time.monotonic() + 20
    while Path(f"/proc/{child}").exists() and "Z" not in Path(f"/proc/{child}/stat").read_text():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_helper_that_hangs_ends_at_the_deadline_with_what_it_started(tmp_path: Path) -> None:
    environ = environment(tmp_path, script='#!/bin/sh\nsleep 60 &\necho $! >"$HOME/child"\nwait\n')
    began = time.monotonic()
    said = complaint(environ | {"KLEARSTACK_DEADLINE": "0.5"})
    assert "did not finish before the deadline" in said
    assert time.monotonic() - began < 20
    assert_ends(int((tmp_path / "child").read_text()))


def test_a_deadline_may_be_longer_than_poll_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    class Slow:
        """Nothing is there at the first time."""

        def __init__(self) -> None:
            self._poll = poll()
            self.register = self._poll.register

        def poll(self, milliseconds: float) -> list[tuple[int, int]]:
            waits.append(milliseconds)
            return self._poll.poll(milliseconds) if len(waits) > 1 else []

    poll = select.poll
    monkeypatch.setattr(select, "poll", Slow)
    environ = environment(tmp_path) | {"KLEARSTACK_DEADLINE": "999999h"}
    assert token(environ) == Secret("hvs.helped")
    assert set(waits) == {60_000}


def test_a_helper_ends_with_what_it_started_if_the_user_interrupts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted:
        """Waits until the helper has started its child, and is then interrupted."""

        def register(self, *_: object) -> None:
            pass

        def poll(self, _: float) -> None:
            until(lambda: (tmp_path / "child").exists() and "\n" in (tmp_path / "child").read_text())
            raise KeyboardInterrupt

    monkeypatch.setattr(select, "poll", Interrupted)
    environ = environment(tmp_path, script='#!/bin/sh\nsleep 60 &\necho $! >"$HOME/child"\nwait\n')
    with pytest.raises(KeyboardInterrupt):
        token(environ)
    assert_ends(int((tmp_path / "child").read_text()))


@pytest.mark.parametrize("during", [True, False])
def test_a_helper_does_not_outlive_an_interrupt_during_or_right_after_its_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, during: bool
) -> None:
    helpers = interrupt_starts(monkeypatch, during=during)
    with pytest.raises(KeyboardInterrupt):
        token(environment(tmp_path, script="#!/bin/sh\nexec sleep 60\n"))
    assert [helper.returncode for helper in helpers] == [-signal.SIGKILL]


def test_a_helper_that_cannot_be_started_is_no_process_to_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def popen(*_: object, **__: object) -> NoReturn:
        signal.raise_signal(signal.SIGINT)
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(subprocess, "Popen", popen)
    with pytest.raises(KeyboardInterrupt):
        token(environment(tmp_path))


def test_what_a_helper_leaves_behind_goes_on_and_keeps_nobody_waiting_once_the_output_is_closed(
    tmp_path: Path,
) -> None:
    script = '#!/bin/sh\nsleep 60 >/dev/null 2>&1 &\necho $! >"$HOME/child"\necho hvs.helped\n'
    environ = environment(tmp_path, script=script)
    began = time.monotonic()
    assert token(environ) == Secret("hvs.helped")
    assert time.monotonic() - began < 40
    os.kill(int((tmp_path / "child").read_text()), signal.SIGKILL)  # which raises if there is none


def test_without_a_home_folder_there_is_none() -> None:
    assert token_helper(None, {}, Deadline(1)) is None
