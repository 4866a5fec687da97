"""The lookup, in templates."""

import json
from collections.abc import Callable
from pathlib import Path

from support.ansible import TOKEN, Ansible, Scene, at, lookup, shown, token
from support.cli import World
from support.fault_proxy import FaultProxy


def test_the_lookup_in_templates(ansible: Ansible, kv2: World, another: Callable[[], World]) -> None:
    ansible.together(
        kv2,
        a_token_is_minted_once_and_then_read_wherever_templates_are(another()),
        terms_are_identities_that_the_options_complete(another()),
        kind_says_which_token_and_renew_wants_a_new_one(another()),
        each_evaluation_counts_and_one_template_evaluates_a_variable_once(another()),
        what_vault_says_is_never_a_template(another(), ansible.folder),
    )


def a_token_is_minted_once_and_then_read_wherever_templates_are(world: World) -> Scene:
    variables = {
        "of_the_play": f"{{{{ {lookup()} }}}}",
        "never_used": f"{{{{ {lookup('renew=true')} }}}}",
    }
    token_alone = lookup("field='access_token'")
    tasks = [
        shown(lookup()),
        shown("[of_the_play.source, of_the_play.access_token]", vars=variables),
        {"ansible.builtin.set_fact": {"kept": f"{{{{ {lookup()} }}}}"}},
        shown(f"[kept.access_token, query('{TOKEN}'), {token_alone}]"),
        shown("'yes'", when=f"{lookup()}.source == 'vault'"),
        shown("item.expires_in", loop=f"{{{{ query('{TOKEN}') }}}}", no_log=True),
    ]
    (first, of_the_play, _, several, when, loop), done = yield at(world, tasks)
    answer = first["msg"]
    assert list(answer) == [
        *("access_token", "token_type", "expires_at", "expires_in", "source", "stale", "vault"),
    ]
    jwt = answer["access_token"]
    assert world.endpoint.issued[1] == jwt
    assert (answer["source"], answer["stale"], answer["vault"]["version"]) == ("endpoint", False, 1)
    assert 840 < answer["expires_in"] <= 900
    of_set_fact, queried, field = several["msg"]
    assert [one["source"] for one in queried] == ["vault"]
    assert of_the_play["msg"] == ["vault", jwt]
    assert (of_set_fact, field, when["msg"]) == (jwt, jwt, "yes")
    assert 840 < int(loop["results"][0]["msg"]) <= 900
    assert world.endpoint.mints == 1
    assert "[WARNING]" not in done.stdout + done.stderr


def terms_are_identities_that_the_options_complete(world: World) -> Scene:
    third = {"user": {"user_id": 1, "company_name": "Third"}}
    several = lookup("{'user_id': 26}, {'user_id': '27', 'company_name': 'Acme'}, field='vault'")
    alone = lookup("{'company_name': 'Fourth'}, field='vault'")
    (looped, others), _ = yield at(
        world,
        [
            shown("item.vault.path", **{f"with_{TOKEN}": [{"user_id": 28}, "{{ user }}"]}, vars=third),
            shown(f"[{several}, {alone}, query('{TOKEN}', {{'user_id': 26}})]"),
        ],
        company_name="Other",
    )
    both, fourth, whole = others["msg"]
    assert [place["path"] for place in both] == [
        *("klearstack/Other/26/access", "klearstack/Acme/27/access"),
    ]
    assert [one["msg"] for one in looped["results"]] == [
        *("klearstack/Other/28/access", "klearstack/Third/1/access"),
    ]
    assert fourth["path"] == "klearstack/Fourth/26/access"
    assert [one["source"] for one in whole] == ["vault"]
    assert world.endpoint.mints == 5


def kind_says_which_token_and_renew_wants_a_new_one(world: World) -> Scene:
    refresh = ("refresh_token", "refresh_expires_at", "refresh_expires_in", "refresh_vault")
    asked = ["kind='both'", "kind='refresh'", "kind='access'", "renew=true", "renew=false"]
    asked += [f"kind='both', field='{name}'" for name in refresh]
    (answers,), _ = yield at(world, [shown(f"[{', '.join(map(lookup, asked))}]")])
    both, alone, access, renewed, read, *fields = answers["msg"]
    assert list(both)[-4:] == list(refresh)
    assert set(alone) == {"token_type", "source", "stale", *refresh}
    assert not set(refresh) & set(access)
    assert [both["refresh_token"], access["access_token"]] == world.endpoint.issued[:2]
    assert renewed["source"] == "endpoint"
    assert read["access_token"] == renewed["access_token"] == world.endpoint.issued[3]
    assert fields[0] == world.endpoint.issued[2]
    assert world.endpoint.mints == 2


def each_evaluation_counts_and_one_template_evaluates_a_variable_once(world: World) -> Scene:
    fresh, source = f"{{{{ {lookup('renew=true')} }}}}", lookup("renew=true, field='source'")
    yield at(
        world,
        [
            shown("fresh.source, fresh.stale, fresh.vault.path", vars={"fresh": fresh}),  # 1
            {"ansible.builtin.set_fact": {"renewed": fresh}, "no_log": True},  # 2
            shown(f"renewed.source, renewed.expires_in, {source}", vars={"unused": fresh}),  # 3
        ],
    )
    assert world.endpoint.mints == 3


def what_vault_says_is_never_a_template(world: World, folder: Path) -> Scene:
    path = f"{world.mount}/data/{world.get()['vault']['path']}"
    stored = world.vault.admin.read(path)
    evil = "{{ lookup('pipe', 'touch evil') }}"
    stored["data"]["metadata"]["deletion_time"] = evil
    with FaultProxy(world.vault.address) as proxy:
        proxy.answer(lambda line: path in line, 200, body=json.dumps(stored).encode(), when="before", times=9)
        results, _ = yield at(world, [shown(lookup("field='vault'")), token()], vault_addr=proxy.address)
    # It is no time, and so it is not Vault's.
    assert all(one["failed"] and "pipe" not in one["msg"] for one in results)
    assert not (folder / "evil").exists()


_TYPES = """
import json, sys
from ansible.plugins.loader import init_plugin_loader, lookup_loader
try:
    from ansible.template import trust_as_template as core_s_string
except ImportError:
    from ansible.utils.unsafe_proxy import wrap_var as core_s_string

def types(value):
    yield type(value).__module__ + "." + type(value).__name__
    for one in [*value, *value.values()] if isinstance(value, dict) else []:
        yield from types(one)

init_plugin_loader()
mount, user = map(core_s_string, (sys.argv[1], "26"))
assert type(mount) is not str
answers = lookup_loader.get("klearstack.vault.token").run([{"user_id": user}], variables={}, mount=mount)
assert type(answers) is list
print(json.dumps([len(answers), sorted(set(types(answers[0])))]))
"""


def test_an_answer_is_plain_also_where_the_options_are_core_s_own_strings(
    ansible: Ansible, kv2: World
) -> None:
    done = ansible.run("python", "-c", _TYPES, kv2.mount, env=ansible.environ(kv2))
    assert done.returncode == 0, done.stderr
    plain = ["builtins.bool", "builtins.dict", "builtins.int", "builtins.str"]
    assert json.loads(done.stdout) == [1, plain]
