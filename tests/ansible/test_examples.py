"""The example plays run as they stand, against the simulated API."""

from support.ansible import ROOT, Ansible
from support.cli import World

EXAMPLES = ROOT / "examples/ansible"
PLAYS = sorted(str(play) for play in EXAMPLES.glob("with-*.yml"))


def test_the_examples_call_the_api_with_one_token_for_all_hosts_and_show_none(
    ansible: Ansible, kv2: World
) -> None:
    assert len(PLAYS) == 2
    turn = -1 if ansible.core == "2.18" else 1  # each is the first one somewhere
    arguments = ("-i", str(EXAMPLES / "inventory.yml"), "-v", *PLAYS[::turn])
    done = ansible.run("ansible-playbook", *arguments, env=ansible.environ(kv2), cwd=EXAMPLES)
    assert done.returncode == 0, done.stdout + done.stderr
    assert kv2.endpoint.mints == 1  # the second play took what the first had stored
    assert done.stdout.count("unreachable=0    failed=0") == 2 * 3
    assert kv2.endpoint.requests == 1 + 2 * 3  # the mint, and each host's call in both plays
    assert not [token for token in kv2.endpoint.issued if token in done.stdout + done.stderr]
