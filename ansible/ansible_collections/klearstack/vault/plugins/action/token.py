# Copyright: (c) 2026, The klearstack-vault authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The task: the same as the lookup, once per host, with check mode, `register` and `changed`.

It runs on the controller. Core imports it before it forks, so that no host pays for the imports.
"""

from __future__ import annotations

from ansible.plugins.action import ActionBase
from ansible.plugins.loader import lookup_loader
from ansible_collections.klearstack.vault.plugins.plugin_utils import _engine

# Knows the options that both share.
_LOOKUP = lookup_loader.get("klearstack.vault.token")


class ActionModule(ActionBase):
    """`klearstack.vault.token:`."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        if _engine.connect is None:
            return {**result, "failed": True, "msg": _engine.MISSING}
        args, checking = self._task.args, self._task.check_mode
        try:
            answer = _engine.tokens(_LOOKUP, self._templar, task_vars or {}, args, mint=not checking)[0]
        except _engine.EngineError as exc:
            return {**result, "failed": True, "msg": str(exc), "error": exc.about}
        if answer is None:
            return {**result, "changed": True, "msg": "A token would be minted."}
        # As if by `no_log: true`: what is registered is whole, and what is shown is not.
        return {**result, **answer, "changed": answer["source"] == "endpoint", "_ansible_no_log": True}
