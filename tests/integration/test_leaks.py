"""No token, Vault token or identity where it does not belong, whatever goes wrong: looked for by its text."""

import re
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.cli import World
from support.fault_proxy import FaultProxy
from support.leaks import leaked, watched_processes

from vault_plugin.app import connect
from vault_plugin.errors import KlearstackVaultError
from vault_plugin.faults import FAULTS
from vault_plugin.settings import Settings
from vault_plugin.simulator import Simulator

USER, COMPANY = "canaryuser7351", "canarycompany7351"
VAULT_STATUSES = [400, 401, 403, 404, 405, 412, 413, 415, 429, 500, 501, 502, 503, 504, 301, 307, 200, 204]


def test_no_fault_of_the_endpoint_makes_the_command_tell_a_secret(kv2: World) -> None:
    issued: list[str] = []

    def one(fault: str) -> tuple[str, int, list[str], list[str]]:
        with Simulator(fault=fault) as endpoint:
            done = kv2.run(
                *("get", "-vv", "--deadline", "5", "--timeout", "1"),
                KLEARSTACK_URL=endpoint.url,
                KLEARSTACK_USER_ID=fault,
                KLEARSTACK_COMPANY_NAME=COMPANY,
            )
            issued.extend(endpoint.issued)
            out = [] if done.returncode == 0 else leaked(kv2, endpoint, done.stdout)
            return fault, done.returncode, leaked(kv2, endpoint, done.stderr), out

    with watched_processes() as lines, ThreadPoolExecutor(4) as pool:
        results = list(pool.map(one, FAULTS))
    assert any(b"vault_plugin" in line for line in lines)
    listed = b"\n".join(lines).decode(errors="replace")
    assert [secret for secret in (*issued, kv2.vault.root_token) if secret in listed] == []
    assert [result for result in results if result[2] or result[3]] == []
    good = {"float-exp", "no-jti"}
    assert {fault for fault, code, _, _ in results if code == 0} == good
    assert {code for _, code, _, _ in results} == {0, 65, 69, 75, 76, 77, 78}


def test_no_answer_of_vault_makes_the_command_tell_a_secret(kv2: World) -> None:
    token = kv2.get()["access_token"]
    body = f'{{"errors": ["{token}", "{kv2.vault.root_token}"], "data": {{"data": "{token}"}}}}'.encode()

    def one(status: int) -> tuple[int, int, str, str]:
        with FaultProxy(kv2.vault.address) as proxy:
            proxy.answer(lambda line: True, status, body=body, when="before", times=999)
            done = kv2.run("get", "-vv", "--format", "json", "--deadline", "2", VAULT_ADDR=proxy.address)
            return status, done.returncode, done.stderr, done.stdout

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(one, VAULT_STATUSES))
    for status, code, stderr, stdout in results:
        assert (leaked(kv2, kv2.endpoint, stderr + stdout), status) == ([], status)
        assert "Traceback" not in stderr
        assert (code in {69, 75, 77, 78}, status, stderr) == (True, status, stderr)


def test_tracebacks_of_the_library_tell_no_secret(kv2: World) -> None:
    for fault in FAULTS.keys() - {"float-exp", "no-jti", "hang", "drip-body", "drip-header"}:
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
