"""The example plays run as they stand, against the simulated API."""

from support.ansible import Ansible
from support.cli import World


def test_the_examples_call_the_api_with_one_token_for_all_hosts_and_show_none(
    ansible: Ansible, kv2: World
) -> None:
    ansible.assert_examples_run(kv2)
