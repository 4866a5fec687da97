# Copyright: (c) 2026, The klearstack-vault authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What crosses the border from Ansible to the package."""

from __future__ import annotations

from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import lookup_loader
from ansible.template import Templar
from ansible_collections.klearstack.vault.plugins.plugin_utils import _engine


def options(variables, **direct):
    lookup = lookup_loader.get("klearstack.vault.token")
    return _engine._options(lookup, Templar(DataLoader()), variables, direct)


def test_what_nobody_says_is_left_to_the_package(monkeypatch):
    monkeypatch.setenv("KLEARSTACK_MIN_TTL", "")
    assert options({}) == {"kind": "access", "renew": False}


def test_what_is_said_crosses_as_plain_text_by_its_rank(monkeypatch):
    monkeypatch.setenv("KLEARSTACK_VAULT_MOUNT", "environment")
    monkeypatch.setenv("KLEARSTACK_VAULT_PATH_PREFIX", "environment")
    variables = {"ansible_klearstack_mount": "variable", "ansible_klearstack_user_id": 26, "other": "none"}
    said = options(variables, user_id=27, renew="yes", timeout=5)
    assert said == {
        "kind": "access",
        "mount": "variable",
        "path_prefix": "environment",
        "renew": True,
        "timeout": "5",
        "user_id": "27",
    }
    assert {type(value) for value in said.values()} == {str, bool}


def test_null_stands_for_no_other_identity_or_address(monkeypatch):
    monkeypatch.setenv("KLEARSTACK_USER_ID", "26")
    monkeypatch.setenv("ANSIBLE_HASHI_VAULT_ADDR", "https://other.example.com")
    for name in ("user_id", "company_name", "url", "vault_addr"):
        assert options({}, **{name: None})[name] == ""
        assert options({f"ansible_klearstack_{name}": None})[name] == ""
        assert options({f"ansible_klearstack_{name}": None}, **{name: "given"})[name] == "given"
    assert (
        options({"ansible_hashi_vault_addr": "weaker", "ansible_klearstack_vault_addr": None})["vault_addr"]
        == ""
    )
    assert (
        options({"ansible_hashi_vault_addr": None, "ansible_klearstack_vault_addr": "stronger"})["vault_addr"]
        == "stronger"
    )
    assert options({"ansible_klearstack_mount": "variable"}, mount=None)["mount"] == "variable"
