"""No token, Vault token or identity where it does not belong, whatever goes wrong: looked for by its text."""

import logging
import re
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.cli import World
from support.fakes import Done
from support.fault_proxy import FaultProxy
from support.leaks import leaked, watched_processes

from vault_plugin.app import connect
from vault_plugin.cli import main
from vault_plugin.demo.faults import FAULTS
from vault_plugin.demo.simulator import Simulator
from vault_plugin.errors import KlearstackVaultError
from vault_plugin.settings import Settings

Get = Callable[..., Done]
CODES = {  # by which `get` exits for each fault
    0: ["float-exp", "no-jti"],
    65: ["another-user", "bad-exp", "documented", "expired", "nan-exp", "no-exp", "wrong-type"],
    69: ["500", "502", "503", "504", "drip-body", "drip-header", "hang", "reset", "truncated"],
    75: ["429"],
    76: ["array", "html", "not-json", "oversized"]
    + [f"{what}-{kind}-token" for what in ("no", "empty") for kind in ("access", "refresh")],
    77: ["400", "401", "403", "404", "redirect"],
    78: ["parameter-missing"],
}
USER, COMPANY = "canaryuser7351", "canarycompany7351"
VAULT_STATUSES = [400, 401, 403, 404, 405, 412, 413, 415, 429, 500, 501, 502, 503, 504, 301, 307, 200, 204]


PROCESSES = [
    "401",
    "not-json",
    "no-jti",
]  # all of them are tried in this process, and these in processes as well


@pytest.fixture
def get(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Get]:
    """`klearstack-vault get -vv` in this process."""
    ours = logging.getLogger("vault_plugin")
    before = ours.level, list(ours.handlers)

    def call(environ: dict[str, str], *arguments: str) -> Done:
        for name, text in environ.items():
            monkeypatch.setenv(name, text)
        with pytest.raises(SystemExit) as caught:
            main(["get", "-vv", "--timeout", "1", *arguments])
        return Done(int(caught.value.code or 0), *capfd.readouterr())

    yield call
    ours.setLevel(before[0])
    ours.handlers[:] = before[1]


@pytest.mark.parametrize("fault", FAULTS)
def test_no_fault_of_the_endpoint_makes_the_command_tell_a_secret(kv2: World, get: Get, fault: str) -> None:
    kv2.endpoint.fault = fault
    own = {"KLEARSTACK_USER_ID": fault, "KLEARSTACK_COMPANY_NAME": COMPANY}
    done = get(kv2.environ | own, "--deadline", "5")
    assert leaked(kv2, kv2.endpoint, done.err) == []
    assert fault in CODES[done.code]
    if done.code:
        assert leaked(kv2, kv2.endpoint, done.out) == []


def test_no_process_list_shows_a_secret(kv2: World) -> None:
    with watched_processes() as lines:
        for fault in PROCESSES:
            kv2.endpoint.fault = fault
            own = {"KLEARSTACK_USER_ID": fault, "KLEARSTACK_COMPANY_NAME": COMPANY}
            done = kv2.run("get", "-vv", "--deadline", "30", **own)
            assert fault in CODES[done.returncode]
            assert leaked(kv2, kv2.endpoint, done.stderr) == []
            assert not done.returncode or leaked(kv2, kv2.endpoint, done.stdout) == []
    assert any(b"vault_plugin" in line for line in lines)
    assert leaked(kv2, kv2.endpoint, b"\n".join(lines).decode(errors="replace")) == []


@pytest.mark.parametrize("status", VAULT_STATUSES)
def test_no_answer_of_vault_makes_the_command_tell_a_secret(kv2: World, get: Get, status: int) -> None:
    token = kv2.store()
    body = f'{{"errors": ["{token}", "{kv2.vault.root_token}"], "data": {{"data": "{token}"}}}}'.encode()
    with FaultProxy(kv2.vault.address) as proxy:
        proxy.answer(lambda line: True, status, body=body, when="before", times=999)
        own = {"VAULT_ADDR": proxy.address}
        done = get(kv2.environ | own, "--format", "json", "--deadline", "2")
    assert leaked(kv2, kv2.endpoint, done.err + done.out) == []
    assert "Traceback" not in done.err
    assert done.code in {69, 75, 77, 78}


def test_tracebacks_of_the_library_tell_no_secret(kv2: World) -> None:
    for fault in FAULTS.keys() - {*CODES[0], "hang", "drip-body", "drip-header"}:
        with Simulator(fault=fault) as endpoint:
            environ = kv2.environ | {"KLEARSTACK_URL": endpoint.url, "KLEARSTACK_DEADLINE": "2"}
            settings = Settings.from_env(
                environ | {"KLEARSTACK_USER_ID": USER, "KLEARSTACK_COMPANY_NAME": COMPANY}
            )
            with connect(settings) as broker, pytest.raises(KlearstackVaultError) as caught:
                broker.get(settings.identity())
            text = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + repr(settings)
            assert (leaked(kv2, endpoint, text), fault) == ([], fault)


def test_the_identity_is_in_no_message_unless_asked_for(kv2: World) -> None:
    kv2.endpoint.fault = "401"
    identity = {"KLEARSTACK_USER_ID": USER, "KLEARSTACK_COMPANY_NAME": COMPANY}
    quiet = kv2.run("get", **identity).stderr
    assert quiet
    assert not re.search(f"{USER}|{COMPANY}", quiet)
    assert f"klearstack/{COMPANY}/{USER}/access" in kv2.run("get", "-v", **identity).stderr


def test_a_bug_shows_no_value(kv2: World, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import vault_plugin.broker\n"
        "def broken(self, *_, **__):\n"
        "    raise ValueError('hvs.SECRET')\n"
        "vault_plugin.broker.Broker.get = broken\n"
    )
    done = kv2.run("get", PYTHONPATH=str(tmp_path))
    assert done.returncode == 70
    assert "ValueError" in done.stderr
    assert "SECRET" not in done.stderr
