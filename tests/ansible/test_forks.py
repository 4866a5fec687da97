"""Many hosts at once: one mint per run, and nothing imported that a stored token does not need."""

from support.ansible import Ansible, lookup, shown, token
from support.cli import World

LOADED = """
import sys
from ansible.plugins.lookup import LookupBase

class LookupModule(LookupBase):
    def run(self, terms, variables=None, **kwargs):
        return [[name for name in ("hvac", "requests", "urllib3", "vault_plugin.app") if name in sys.modules]]
"""


def test_50_hosts_with_nothing_stored_mint_once_per_identity(newest: Ansible, kv2: World) -> None:
    newest.assert_minted_once(kv2, forks=25)


def test_a_stored_token_is_read_without_hvac_and_requests(ansible: Ansible, kv2: World) -> None:
    folder = ansible.folder / "lookup_plugins"
    folder.mkdir()
    (folder / "loaded.py").write_text(LOADED)
    kv2.get()
    loaded = "lookup('loaded')"
    source = lookup("field='source'")
    before, by_lookup, by_task, after, by_minting = ansible.results(
        kv2,
        [
            shown(loaded),
            shown(f"[{source}, {loaded}]"),
            token(),
            shown(loaded),  # what a fork has from its parent
            shown(f"[{lookup('renew=true')}.source, {loaded}]"),
        ],
    )
    assert by_task["source"] == "vault"
    assert after["msg"] == ["vault_plugin.app"]
    assert by_lookup["msg"] == ["vault", ["vault_plugin.app"]]
    assert by_minting["msg"] == ["endpoint", ["hvac", "requests", "urllib3", "vault_plugin.app"]]
    assert before["msg"] == []
