# Copyright: (c) 2026, The klearstack-vault authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lookup, as far as it gets without a Vault."""

from __future__ import annotations

import importlib
import sys

import pytest
from ansible.errors import AnsibleLookupError
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import lookup_loader
from ansible.template import Templar
from ansible_collections.klearstack.vault.plugins.plugin_utils import _engine

ENOUGH = {
    "user_id": "26",
    "company_name": "Acme",
    "url": "https://api.example.com",
    "vault_addr": "https://vault.example.com:8200",
    "vault_token": "s.token",
}


def told(*terms, **options):
    """The line that a failing lookup ends with."""
    lookup = lookup_loader.get("klearstack.vault.token", templar=Templar(DataLoader()))
    with pytest.raises(AnsibleLookupError) as failure:
        lookup.run(list(terms), {}, **options)
    line = str(failure.value)
    assert "\n" not in line
    return line


def test_all_that_is_missing_is_named_at_once():
    line = told()
    for name in ("user_id (", "company_name (", "url (", "vault_addr ("):
        assert name in line


def test_an_error_speaks_of_options_and_quotes_no_value():
    line = told(**{**ENOUGH, "min_ttl": "SECRET", "vault_token": "s.\nSECRET"})
    assert "min_ttl (KLEARSTACK_MIN_TTL)" in line
    assert "ansible-doc" in line
    assert "--" not in line
    assert "SECRET" not in line


@pytest.mark.parametrize("term", ["26", {}, {"user": "26"}, {"user_id": True}, {"user_id": ["26"]}])
def test_a_term_that_is_no_identity_is_refused(term):
    assert "user_id and" in told(term, **ENOUGH)


@pytest.mark.parametrize("value", [None, "", "26 ", "26\u200b"])
@pytest.mark.parametrize("name", ["user_id", "company_name"])
def test_null_and_what_nobody_sees_is_no_name(name, value, monkeypatch):
    monkeypatch.setenv("KLEARSTACK_USER_ID", "26")
    monkeypatch.setenv("KLEARSTACK_COMPANY_NAME", "Acme")
    assert f"{name} (" in told(**{**ENOUGH, name: value})
    assert f"{name} (" in told({name: value}, **ENOUGH)


@pytest.mark.parametrize(
    "options", [{"user_id": "__omit_place_holder__0"}, {"mount": "__omit_place_holder__0"}]
)
def test_only_a_task_can_omit(options):
    assert "omitted" in told(**{**ENOUGH, **options})


def test_an_option_that_does_not_exist_is_named():
    assert "There is no option usr_id." in told(usr_id="26", **ENOUGH)


def test_without_the_package_it_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "vault_plugin.app", None)
    importlib.reload(_engine)
    assert f"{sys.executable} -m pip install {_engine.PACKAGE}" in told(**ENOUGH)
    monkeypatch.undo()
    importlib.reload(_engine)
