"""The lookup, in templates."""

from commands import World
from playbooks.tool import Ansible


def test_a_token_is_minted_once_and_then_read(ansible: Ansible, kv2: World) -> None:
    shown = {"ansible.builtin.debug": {"msg": "{{ lookup('klearstack.vault.token').source }}"}}
    done = ansible.play(kv2, [shown, shown])
    assert done.stdout.index('"msg": "endpoint"') < done.stdout.index('"msg": "vault"')
    assert kv2.endpoint.mints == 1
