# Copyright: (c) 2026, The klearstack-vault authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""No test of this folder reaches a network, or sees the settings of whoever runs it."""

from __future__ import annotations

import os
import socket

import pytest


@pytest.fixture(autouse=True)
def _alone(monkeypatch, tmp_path):
    def refuse(*_args):
        pytest.fail("a unit test asked for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in os.environ:
        if name.startswith(("KLEARSTACK_", "ANSIBLE_HASHI_VAULT_", "BAO_", "VAULT_")):
            monkeypatch.delenv(name)
