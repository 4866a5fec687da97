# Copyright: (c) 2026, The klearstack-vault authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The task, as far as it gets without a Vault."""

from __future__ import annotations

from ansible.parsing.dataloader import DataLoader
from ansible.playbook.play_context import PlayContext
from ansible.playbook.task import Task
from ansible.plugins.loader import action_loader, connection_loader
from ansible.template import Templar


def test_a_task_that_cannot_work_fails_with_one_line_and_a_typed_error():
    loader, context = DataLoader(), PlayContext()
    result = action_loader.get(
        "klearstack.vault.token",
        task=Task.load({"klearstack.vault.token": {"user_id": "26", "deadline": "SECRET"}}),
        connection=connection_loader.get("ansible.builtin.local", context),
        play_context=context,
        loader=loader,
        templar=Templar(loader),
        shared_loader_obj=None,
    ).run(task_vars={"ansible_klearstack_url": "https://api.example.com"})
    assert result["failed"]
    assert result["error"]["retryable"] is False
    assert result["msg"] == f"{result['error']['message']} {result['error']['hint']}"
    for name, missing in {"company_name": True, "deadline": True, "vault_addr": True, "url": False}.items():
        assert (f"{name} (" in result["msg"]) is missing
    assert "SECRET" not in str(result)
