"""Where the options of the lookup and the task come from, and that they are the settings of the package."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from support.ansible import TOKEN, Ansible, Scene, Tasks, at, lookup, shown, token
from support.cli import World

from vault_plugin.settings import Settings

# What programs beside Ansible say by their environment, and the folder that all of them share.
WITHOUT_OPTION = {"lock_dir", "vault_config_path", "actions_url", "actions_token"}
SETTINGS = {name: one for name, one in Settings.origins.items() if name not in WITHOUT_OPTION}
SECRETS = {name for name, one in SETTINGS.items() if one.secret}
THEIRS = {  # of community.hashi_vault
    "vault_addr": "ADDR",
    "vault_namespace": "NAMESPACE",
    "vault_cacert": "CA_CERT",
    "auth": "AUTH_METHOD",
    "auth_mount": "MOUNT_POINT",
    "vault_token": "TOKEN",
    "role_id": "ROLE_ID",
    "secret_id": "SECRET_ID",
    "timeout": "TIMEOUT",
    "vault_jwt": "JWT",
    "auth_username": "USERNAME",
    "vault_password": "PASSWORD",
}
PATH = lookup("field='vault'") + ".path"
UNUSED = {"ansible_klearstack_path_prefix": "{{ nowhere }}"}
WHERE = {"ansible_klearstack_path_prefix": "{{ team }}/variable", "team": "red"}


def ini(ansible: Ansible, **values: str) -> None:
    lines = [f"{name} = {value}" for name, value in values.items()]
    (ansible.folder / "ansible.cfg").write_text("\n".join(["[klearstack]", *lines, ""]))


def test_where_options_come_from(ansible: Ansible, kv2: World, another: Callable[[], World]) -> None:
    ini(ansible, path_prefix="ini")
    password = ansible.folder / "password"
    password.write_text("pass")
    secrets = ("--name", "secret_token", "--name", "company", kv2.vault.root_token, "Hidden")
    encrypt = ("encrypt_string", "--vault-password-file", str(password), *secrets)
    done = ansible.run("ansible-vault", *encrypt, env=ansible.environ(kv2))
    (ansible.folder / "secrets.yml").write_text(done.stdout)
    ansible.together(
        kv2,
        a_keyword_comes_before_a_variable_the_environment_and_the_ini_file(another()),
        what_community_hashi_vault_knows_from_variables_we_know_too(another()),
        a_namespace_is_one_of_its_own(another(), "ansible_hashi_vault_namespace"),
        a_namespace_is_one_of_its_own(another(), "ansible_klearstack_vault_namespace"),
        what_is_a_setting_by_now_is_an_option_too(another()),
        secrets_that_ansible_vault_encrypts_are_decrypted(another()),
        flags=("--vault-password-file", str(password)),
        vars_files=["secrets.yml"],
        env={"KLEARSTACK_VAULT_PATH_PREFIX": "environment", "VAULT_ADDR": None, "VAULT_TOKEN": None},
    )


def with_vault(world: World, tasks: Tasks) -> Tasks:
    return at(world, tasks, vault_addr=world.vault.address, vault_token=world.vault.root_token)


def a_keyword_comes_before_a_variable_the_environment_and_the_ini_file(world: World) -> Scene:
    tasks = [
        shown(lookup("path_prefix='keyword', field='vault'") + ".path", vars=UNUSED),
        shown(PATH, vars=WHERE),
        shown(PATH),
        {**token(path_prefix="option"), "vars": WHERE},
        {**token(path_prefix=None), "vars": WHERE},
    ]
    (keyword, variable, environment, of_task, task_variable), _ = yield with_vault(world, tasks)
    paths = [one["msg"].partition("/Acme")[0] for one in (keyword, variable, environment)]
    assert paths == ["keyword", "red/variable", "environment"]
    paths = [one["vault"]["path"].partition("/Acme")[0] for one in (of_task, task_variable)]
    assert paths == ["option", "red/variable"]


def what_community_hashi_vault_knows_from_variables_we_know_too(world: World) -> Scene:
    role_id, secret_id, accessors = world.vault.approle(
        f"""
        path "{world.mount}/data/*"     {{ capabilities = ["update", "read"] }}
        path "{world.mount}/metadata/*" {{ capabilities = ["create", "update"] }}
        """,
        mount="machines",
    )
    theirs = {"ansible_hashi_vault_url": world.vault.address, "ansible_hashi_vault_timeout": 5}
    by_token = {
        **theirs,
        "ansible_hashi_vault_token": "{{ of_another }}",
        "of_another": world.vault.root_token,
    }
    by_role = {
        "ansible_hashi_vault_addr": world.vault.address,
        "ansible_hashi_vault_auth_method": "approle",
        "ansible_hashi_vault_role_id": role_id,
        "ansible_hashi_vault_secret_id": secret_id,
        "ansible_hashi_vault_mount_point": "machines",
    }
    ours = {f"ansible_klearstack_{name}": "wrong" for name in SECRETS}
    before = accessors()
    results, _ = yield at(
        world,
        [
            shown(lookup("field='source'"), vars=by_token),
            shown(lookup("field='source', renew=true"), vars=by_role),
            shown(lookup("field='source'"), vars={**by_role, "ansible_hashi_vault_secret_id": "wrong"}),
            shown(lookup("field='source'"), vars={**by_role, **ours}),  # ours are stronger
            shown(lookup("field='source'"), vars={**by_token, "ansible_hashi_vault_ca_cert": "/no/such"}),
            shown(lookup("field='source'"), vars={**by_token, "ansible_hashi_vault_timeout": 0}),
            shown(lookup("field='source'"), vars={**by_token, "ansible_hashi_vault_auth_method": "aws_iam"}),
        ],
    )
    assert [one["msg"] for one in results[:2]] == ["endpoint", "endpoint"]
    assert accessors() <= before
    for one, said in zip(
        results[2:],
        [
            "Also check auth_mount (KLEARSTACK_VAULT_AUTH_MOUNT).",
            "Also check auth_mount (KLEARSTACK_VAULT_AUTH_MOUNT).",
            "vault_cacert (VAULT_CACERT or BAO_CACERT) names a file that cannot be read",
            "timeout (KLEARSTACK_TIMEOUT) must be more than 0",
            "The option auth has a value that it cannot take",
        ],
        strict=True,
    ):
        assert said in one["msg"]


def a_namespace_is_one_of_its_own(world: World, variable: str) -> Scene:
    inside = World(world.endpoint, world.vault, "kv", world.home)  # which is mounted in the namespace alone
    source, namespace = lookup("field='source'"), {variable: world.vault.namespace()}
    (found, outside), _ = yield with_vault(inside, [shown(source, vars=namespace), shown(lookup())])
    assert found["msg"] == "endpoint"
    assert outside["failed"]


def what_is_a_setting_by_now_is_an_option_too(world: World) -> Scene:
    admin, policy = world.vault.admin, f"userpass-{world.mount}"
    admin.sys.enable_auth_method("userpass", path=policy)
    admin.sys.create_or_update_policy(
        policy,
        f"""
        path "{world.mount}/data/*"     {{ capabilities = ["update", "read"] }}
        path "{world.mount}/metadata/*" {{ capabilities = ["create", "update"] }}
        """,
    )
    user = {"password": "pass", "token_policies": policy}
    admin.write_data(f"auth/{policy}/users/ci", data=user)
    ours = {"auth": "userpass", "auth_mount": policy, "auth_username": "ci", "kv_version": "2"}
    theirs = {
        "ansible_hashi_vault_auth_method": "userpass",
        "ansible_hashi_vault_mount_point": policy,
        "ansible_hashi_vault_username": "ci",
        "ansible_hashi_vault_password": "pass",
    }
    tasks = [
        token(vault_password="pass", vault_proxy="none", vault_timeout="9", auth_namespace="root", **ours),
        shown(lookup("field='source', kv_version='2'"), vars=theirs),
        token(vault_password="wrong", **ours),
        token(vault_password="pass", **ours | {"kv_version": "3"}),
    ]
    (task, by_lookup, wrong, odd), _ = yield at(world, tasks, vault_addr=world.vault.address)
    assert (task["source"], by_lookup["msg"]) == ("endpoint", "vault")
    assert "Vault rejected the userpass login" in wrong["msg"]
    assert "The option kv_version has a value that it cannot take" in odd["msg"]
    admin.sys.disable_auth_method(policy)


def secrets_that_ansible_vault_encrypts_are_decrypted(world: World) -> Scene:
    of_variable = {"ansible_hashi_vault_token": "{{ secret_token }}"}
    tasks = [
        shown(lookup("vault_token=secret_token, company_name=company")),
        shown(lookup("{'company_name': company}"), vars=of_variable),
        token(vault_token="{{ secret_token }}", company_name="{{ company }}"),
    ]
    results, _ = yield at(world, tasks, vault_addr=world.vault.address)
    answers = [one.get("msg", one) for one in results]
    assert [one["vault"]["path"] for one in answers] == ["environment/Hidden/26/access"] * 3
    assert world.endpoint.mints == 1


def test_the_ini_file_comes_before_vault_s_own_variables_and_these_come_last(
    newest: Ansible, kv2: World
) -> None:
    ini(newest, path_prefix="ini", vault_addr=kv2.vault.address)
    (newest.folder / "token").write_text(f"{kv2.vault.root_token}\n")
    environ = {"VAULT_ADDR": "http://127.0.0.1:9", "VAULT_TOKEN": None, "BAO_TOKEN_FILE": "token"}
    (of_ini,) = newest.results(kv2, [shown(PATH)], env=environ)
    assert of_ini["msg"] == "ini/Acme/26/access"
    ini(newest, user_id="27")
    (newest.folder / "token").rename(newest.folder / ".vault-token")
    files = {"KLEARSTACK_COMPANY_NAME": "Other", "KLEARSTACK_VAULT_PATH_PREFIX": "by/file"}
    for name, value in files.items():
        (newest.folder / name).write_text(value)
        environ[f"{name}_FILE"] = name
    environ |= {
        "KLEARSTACK_COMPANY_NAME": "",
        "KLEARSTACK_USER_ID": None,
        "BAO_TOKEN_FILE": None,
        "BAO_ADDR": kv2.vault.address,
    }
    (of_file,) = newest.results(kv2, [shown(PATH)], env=environ)
    assert of_file["msg"] == "by/file/Other/27/access"


@pytest.mark.parametrize("kind", ["lookup", "module"])
def test_the_options_are_the_settings(newest: Ansible, kv2: World, kind: str) -> None:
    done = newest.run("ansible-doc", "--json", "-t", kind, TOKEN, env=newest.environ(kv2))
    options: dict[str, Any] = json.loads(done.stdout)[TOKEN]["doc"]["options"]
    own = {"kind", "renew"} | ({"_terms", "field"} if kind == "lookup" else set())
    assert set(options) == SETTINGS.keys() | own
    for name, origin in SETTINGS.items():
        option = options[name]
        assert option.get("choices", []) == list(origin.choices), name
        default = f"{origin.default:g}" if isinstance(origin.default, float) else origin.default
        assert option.get("default") == default, name
        assert option["type"] == ("bool" if origin.default is False else "str"), name
        if kind == "lookup":
            sources = {
                source: [entry["name"] for entry in option.get(source, [])] for source in ("vars", "env")
            }
            theirs = [f"ANSIBLE_HASHI_VAULT_{THEIRS[name]}"] if name in THEIRS else []
            ours = [variable for variable in origin.env if variable.startswith("KLEARSTACK_")]
            # VAULT_ADDR and the like come last, from the package.
            assert sources["env"] == theirs + ours, name
            assert {one.lower() for one in theirs} <= set(sources["vars"]), name
            assert sources["vars"][-1] == f"ansible_klearstack_{name}"  # the last one wins
            ini = [] if name in SECRETS else [{"section": "klearstack", "key": name}]
            assert option.get("ini", []) == ini, name
