"""The example plays run as they stand, against the simulated API."""

import pytest
from support.ansible import ROOT, Ansible
from support.cli import World

EXAMPLES = ROOT / "examples/ansible"


@pytest.mark.parametrize("play", sorted(EXAMPLES.glob("with-*.yml")), ids=lambda play: play.stem)
def test_an_example_calls_the_api_with_one_token_for_all_hosts_and_shows_none(
    ansible: Ansible, kv2: World, play: str
) -> None:
    env = ansible.environ(kv2)
    arguments = ("-i", str(EXAMPLES / "inventory.yml"), str(play), "-v")
    for _ in range(2):
        done = ansible.run("ansible-playbook", *arguments, env=env, cwd=EXAMPLES)
        assert done.returncode == 0, done.stdout + done.stderr
    assert kv2.endpoint.mints == 1  # the second run took what the first had stored
    assert done.stdout.count("unreachable=0    failed=0") == 3
    assert kv2.endpoint.requests == 1 + 2 * 3  # the mint, and each host's call in both runs
    assert not [token for token in kv2.endpoint.issued if token in done.stdout + done.stderr]
