"""The lookup, in templates."""

import json

from support.ansible import TOKEN, Ansible, lookup, registered, registering, shown, token
from support.cli import World
from support.fault_proxy import FaultProxy


def test_a_token_is_minted_once_and_then_read_wherever_templates_are(ansible: Ansible, kv2: World) -> None:
    done = ansible.play(
        kv2,
        registering(
            [
                shown(lookup()),
                shown(f"query('{TOKEN}')"),
                shown("[of_the_play.source, of_the_play.access_token]"),
                {"ansible.builtin.set_fact": {"kept": f"{{{{ {lookup()} }}}}"}},
                shown("kept.access_token"),
                shown("'yes'", when=f"{lookup()}.source == 'vault'"),
                shown("item.expires_in", loop=f"{{{{ query('{TOKEN}') }}}}", no_log=True),
                shown(lookup("field='access_token'")),
            ]
        ),
        vars={"of_the_play": f"{{{{ {lookup()} }}}}", "never_used": f"{{{{ {lookup('renew=true')} }}}}"},
    )
    first, queried, of_the_play, _, of_set_fact, when, loop, field = registered(done)
    answer = first["msg"]
    assert list(answer) == [
        *("access_token", "token_type", "expires_at", "expires_in", "source", "stale", "vault"),
    ]
    jwt = answer["access_token"]
    assert kv2.endpoint.issued[1] == jwt
    assert (answer["source"], answer["stale"], answer["vault"]["version"]) == ("endpoint", False, 1)
    assert 890 < answer["expires_in"] <= 900
    assert [one["source"] for one in queried["msg"]] == ["vault"]
    assert of_the_play["msg"] == ["vault", jwt]
    assert (of_set_fact["msg"], field["msg"], when["msg"]) == (jwt, jwt, "yes")
    assert 890 < int(loop["results"][0]["msg"]) <= 900
    assert kv2.endpoint.mints == 1
    assert "[WARNING]" not in done.stdout + done.stderr


def test_terms_are_identities_that_the_options_complete(ansible: Ansible, kv2: World) -> None:
    company = {"ansible_klearstack_company_name": "Other", "user": {"user_id": 1, "company_name": "Third"}}
    several, looped, alone, whole = ansible.results(
        kv2,
        [
            shown(lookup("{'user_id': 26}, {'user_id': '27', 'company_name': 'Acme'}, field='vault'")),
            shown("item.vault.path", **{f"with_{TOKEN}": [{"user_id": 28}, "{{ user }}"]}),
            shown(lookup("{'company_name': 'Fourth'}, field='vault'")),
            shown(f"query('{TOKEN}', {{'user_id': 26}})"),
        ],
        vars=company,
    )
    assert [place["path"] for place in several["msg"]] == [
        *("klearstack/Other/26/access", "klearstack/Acme/27/access"),
    ]
    assert [one["msg"] for one in looped["results"]] == [
        *("klearstack/Other/28/access", "klearstack/Third/1/access"),
    ]
    assert alone["msg"]["path"] == "klearstack/Fourth/26/access"
    assert [one["source"] for one in whole["msg"]] == ["vault"]
    assert kv2.endpoint.mints == 5


def test_kind_says_which_token_and_renew_wants_a_new_one(newest: Ansible, kv2: World) -> None:
    refresh = ("refresh_token", "refresh_expires_at", "refresh_expires_in", "refresh_vault")
    both, alone, access, renewed, read, *fields = newest.results(
        kv2,
        [
            shown(lookup("kind='both'")),
            shown(lookup("kind='refresh'")),
            shown(lookup("kind='access'")),
            shown(lookup("renew=true")),
            shown(lookup("renew=false")),
            *(shown(lookup(f"kind='both', field='{name}'")) for name in refresh),
        ],
    )
    assert list(both["msg"])[-4:] == list(refresh)
    assert set(alone["msg"]) == {"token_type", "source", "stale", *refresh}
    assert not set(refresh) & set(access["msg"])
    assert [both["msg"]["refresh_token"], access["msg"]["access_token"]] == kv2.endpoint.issued[:2]
    assert renewed["msg"]["source"] == "endpoint"
    assert read["msg"]["access_token"] == renewed["msg"]["access_token"] == kv2.endpoint.issued[3]
    assert fields[0]["msg"] == kv2.endpoint.issued[2]
    assert kv2.endpoint.mints == 2


def test_each_evaluation_counts_and_one_template_evaluates_a_variable_once(
    newest: Ansible, kv2: World
) -> None:
    fresh = f"{{{{ {lookup('renew=true')} }}}}"
    newest.play(
        kv2,
        [
            shown("fresh.source, fresh.stale, fresh.vault.path"),  # 1
            {"ansible.builtin.set_fact": {"kept": fresh}, "no_log": True},  # 2
            shown("kept.source, kept.expires_in"),
            shown(lookup("renew=true, field='source'"), vars={"unused": fresh}),  # 3
        ],
        vars={"fresh": fresh},
    )
    assert kv2.endpoint.mints == 3


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


def test_what_vault_says_is_never_a_template(ansible: Ansible, kv2: World) -> None:
    path = f"{kv2.mount}/data/{kv2.get()['vault']['path']}"
    stored = kv2.vault.admin.read(path)
    evil = "{{ lookup('pipe', 'touch evil') }}"
    stored["data"]["metadata"]["deletion_time"] = evil
    with FaultProxy(kv2.vault.address) as proxy:
        proxy.answer(lambda line: path in line, 200, body=json.dumps(stored).encode(), when="before", times=9)
        results = ansible.results(
            kv2, [shown(lookup("field='vault'")), token()], env={"VAULT_ADDR": proxy.address}
        )
    # It is no time, and so it is not Vault's.
    assert all(one["failed"] and "pipe" not in one["msg"] for one in results)
    assert not (ansible.folder / "evil").exists()
