"""No token, Vault token or answer in what Ansible prints and logs, whatever goes wrong: looked for by its text."""

import json
import re
from contextlib import ExitStack
from typing import Any

from support.ansible import Ansible, lookup, shown, token
from support.cli import World
from support.drip import closing
from support.fault_proxy import FaultProxy

from vault_plugin.demo.simulator import Simulator

FAULTS = ["401", "500", "html", "not-json", "redirect", "wrong-type"]
STATUSES = [200, 403, 500]
CANARY = "hvs.CANARY7351"
MALFORMED = f"HTTP/1.1 200 OK\r\n{CANARY} is no header\r\n\r\n{{}}".encode()  # which urllib3 logs
# Only core 2.19 knows the first one.
LOUD = {"ANSIBLE_DISPLAY_TRACEBACK": "always", "ANSIBLE_LOG_PATH": "log"}


# A bug, as far as one user is concerned.
BUG = f"""
from vault_plugin.broker import Broker
get = Broker.get
def broken(self, identity, *arguments, **keywords):
    if identity.user_id == "bug":
        raise ValueError({CANARY!r})
    return get(self, identity, *arguments, **keywords)
Broker.get = broken
"""


def test_no_answer_of_either_side_and_no_bug_makes_a_playbook_tell_a_secret(
    ansible: Ansible, kv2: World
) -> None:
    stored = kv2.get()["access_token"]
    body = f'{{"errors": ["{stored}", "{kv2.vault.root_token}"], "data": {{"data": "{stored}"}}}}'.encode()
    with ExitStack() as stack:
        endpoints = [stack.enter_context(Simulator(fault=fault)) for fault in FAULTS]
        proxies = [stack.enter_context(FaultProxy(kv2.vault.address)) for _ in STATUSES]
        for proxy, status in zip(proxies, STATUSES, strict=True):
            proxy.answer(lambda line: True, status, body=body, when="before", times=999)
        cases: list[dict[str, Any]] = [{"url": endpoint.url} for endpoint in endpoints]
        cases += [{"url": stack.enter_context(closing(MALFORMED))}]
        cases += [{"vault_addr": proxy.address} for proxy in proxies]
        cases += [{"vault_token": one} for one in (CANARY, f"{CANARY}\n", f"a\n{CANARY}", {"a": CANARY})]
        cases += [{name: f"http://u:{CANARY}@127.0.0.1:9"} for name in ("url", "vault_addr")]
        cases += [{"user_id": "bug"}]
        variables = {"token_of_a_file": kv2.vault.root_token, "cases": cases}
        (ansible.folder / "secrets.yml").write_text(json.dumps(variables))
        case = "cases[inventory_hostname[4:] | int]"
        options = {
            "url": f"{{{{ {case}.url | default('{kv2.endpoint.url}') }}}}",
            "vault_addr": f"{{{{ {case}.vault_addr | default('{kv2.vault.address}') }}}}",
            "user_id": f"{{{{ {case}.user_id | default(inventory_hostname) }}}}",
            "deadline": 0.5,
        }
        tasks = [shown(lookup("**options"), vars={"options": options}), token(**options)]
        # All of them fail.
        twice = [
            {"ignore_errors": True, "no_log": hidden, **task} for task in tasks for hidden in (False, True)
        ]
        done = ansible.play(
            kv2,
            twice,
            *("-vvv", "--forks", "20"),
            hosts=len(cases),
            env={**LOUD, **ansible.early(BUG), "VAULT_TOKEN": None},
            vars={"ansible_hashi_vault_token": f"{{{{ {case}.vault_token | default(token_of_a_file) }}}}"},
            vars_files=["secrets.yml"],
        )
        issued = [jwt for endpoint in (kv2.endpoint, *endpoints) for jwt in endpoint.issued]
    assert re.findall(r"ignored=(\d+)", done.stdout) == [str(len(twice))] * len(cases)
    text = done.stdout + done.stderr + (ansible.folder / "log").read_text()
    assert "Internal error: ValueError at " in text
    parts = {part for jwt in issued for part in (jwt, *jwt.split(".")[1:]) if len(part) > 20}
    assert [secret for secret in (*parts, kv2.vault.root_token, CANARY) if secret in text] == []
