# Copyright: (c) 2026, The klearstack-vault authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lookup: one more way to ask the package for a token, at each evaluation of the template."""

from __future__ import annotations

DOCUMENTATION = r"""
name: token
author: The klearstack-vault authors (@klearstack-vault)
version_added: 0.1.0
short_description: A KlearStack API token, read from Vault or minted once
description:
  - Hands over an API token of KlearStack that lives, from Vault's KV engine while the one stored there is good.
  - Else mints one, stores it until its JWT expires, and hands that over; whoever else asks meanwhile gets the same.
extends_documentation_fragment:
  - klearstack.vault.token
  - klearstack.vault.token.plugins
options:
  _terms:
    description: Identities.
    type: list
    elements: dict
  field:
    description: One field.
    type: str
"""

EXAMPLES = r"""
"""

RETURN = r"""
"""

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from ansible_collections.klearstack.vault.plugins.plugin_utils import _engine


class LookupModule(LookupBase):
    """`lookup('klearstack.vault.token', ...)`."""

    def run(self, terms, variables=None, **kwargs):
        if _engine.connect is None:
            raise AnsibleLookupError(_engine.MISSING)
        variables = variables or {}
        field = kwargs.pop("field", None)
        # Core tells lookups of --check, and nothing of a task's own `check_mode`.
        mint = not variables.get("ansible_check_mode")
        try:
            answers = _engine.tokens(self, self._templar, variables, kwargs, terms, mint=mint)
        except _engine.EngineError as exc:
            raise AnsibleLookupError(str(exc)) from None
        if None in answers:
            raise AnsibleLookupError(
                "Vault holds no token that is good for long enough, and with --check a lookup mints none. "
                "The task klearstack.vault.token does with `check_mode: false`."
            )
        return answers if field is None else [_field(answer, str(field)) for answer in answers]


def _field(answer, name):
    if name not in answer:
        raise AnsibleLookupError(
            f"There is no field of that name in the answer, which has {', '.join(answer)}."
        )
    return answer[name]
