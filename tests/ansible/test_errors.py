"""What goes wrong: one line that says which side failed and what to do, in the words of the options."""

import re
from collections.abc import Callable
from typing import Any

from support.ansible import TOKEN, Ansible, Scene, at, lookup, registered, registering, shown, token
from support.cli import World
from support.fault_proxy import FaultProxy

from vault_plugin.demo.simulator import Simulator

HINT = f" See `ansible-doc -t lookup {TOKEN}`."
SEALED = b'{"errors":["Vault is sealed"]}'
NOBODY = "http://127.0.0.1:9"
MISSING_ROLE = "role_id (VAULT_ROLE_ID or BAO_ROLE_ID) is missing; secret_id (VAULT_SECRET_ID or BAO_SECRET_ID) is missing."
NO_URL = "must look like https://host[:port], without user, password, query or fragment."
ENVIRONMENT = " The keyword `environment` of a play or task sets no variables for this plugin, which runs on the controller."
EMPTY = "is given but empty: give a value, or leave it out."
STRING = "must be a string: put it into quotes."
INPUT: list[tuple[dict[str, Any], str]] = [
    ({"url": ""}, f"url (KLEARSTACK_URL) {EMPTY}"),
    ({"url": None}, f"url (KLEARSTACK_URL) {EMPTY}"),
    ({"url": {"a": 1}}, "The option url has a value that it cannot take."),
    ({"url": "http://u:p@api.example.com"}, f"url (KLEARSTACK_URL) {NO_URL}"),
    ({"url": "http://api.example.com"}, "or allow it with allow_plain_http."),
    ({"vault_addr": ""}, f"vault_addr (VAULT_ADDR or BAO_ADDR) {EMPTY}"),
    ({"vault_addr": None}, f"vault_addr (VAULT_ADDR or BAO_ADDR) {EMPTY}"),
    ({"user_id": None}, f"user_id (KLEARSTACK_USER_ID) {EMPTY}"),
    ({"company_name": None}, f"company_name (KLEARSTACK_COMPANY_NAME) {EMPTY}"),
    ({"company_name": "Acme "}, "company_name (KLEARSTACK_COMPANY_NAME) begins or ends with white space."),
    ({"company_name": "Acme\n"}, "the control or invisible character U+000A at position 5."),
    ({"user_id": "\ufeff26"}, "the control or invisible character U+FEFF at position 1."),
    ({"vault_addr": "http://127.0.0.1:9\n"}, f"vault_addr (VAULT_ADDR or BAO_ADDR) {NO_URL}"),
    ({"vault_token": "a\nb"}, "contains characters that are not allowed in a credential."),
    (
        {"user_id": "", "min_ttl": "x"},
        "min_ttl (KLEARSTACK_MIN_TTL) is not a duration such as 90, 90s, 15m or 1h30m.",
    ),
    ({"user_id": True}, f"The option user_id {STRING}"),
    ({"company_name": 1.10}, f"The option company_name {STRING}"),
    ({"mount": False}, f"The option mount {STRING}"),
    ({"mount": "a//b"}, "in segments separated by single slashes."),
    ({"colour": "red"}, "There is no option colour."),
    ({"user": "26"}, "There is no option user. Did you mean user_id?"),
    ({"deadline": 0}, "deadline (KLEARSTACK_DEADLINE) must be more than 0 seconds."),
    ({"kind": "id"}, "The option kind has a value that it cannot take."),
    ({"auth": "approle"}, MISSING_ROLE),
    (
        {"vault_client_key": "/no"},
        "and vault_client_key (VAULT_CLIENT_KEY or BAO_CLIENT_KEY) must be given together.",
    ),
]
TERM = "Each term must be a dict of user_id and company_name."
TERM_STRING = "The user_id and the company_name must be strings: put them into quotes."
FIELD = "There is no such field, only access_token, expires_at, expires_in, vault, token_type, source, stale."
OF_LOOKUPS = {
    "'26', 'Acme'": TERM,
    "{}": TERM,
    "[{'user_id': 1}, {'user_id': 2}]": TERM,
    "{'user_id': 1}, {'user_id': 2, 'shoe': 3}": TERM,
    "{'user_id': true}": TERM_STRING,
    "{'company_name': none}": f"company_name (KLEARSTACK_COMPANY_NAME) {EMPTY}",
    "{'user_id': none}": f"user_id (KLEARSTACK_USER_ID) {EMPTY}",
    "{'user_id': ''}": f"user_id (KLEARSTACK_USER_ID) {EMPTY}",
    "{'user_id': '26\u200b'}": "the control or invisible character U+200B at position 3.",
    "{'user_id': '27'}, company_name=none": f"company_name (KLEARSTACK_COMPANY_NAME) {EMPTY}",
    "user_id=(nothing | default(none))": f"user_id (KLEARSTACK_USER_ID) {EMPTY}",
    "{'company_name': ['Acme']}": TERM_STRING,
    "field='colour'": FIELD,
    "field='refresh_token'": FIELD,
}


def both(options: dict[str, Any]) -> list[dict[str, Any]]:
    """The lookup with these options, and the task."""
    return [shown(lookup("**options"), vars={"options": options}), token(**options)]


def test_what_goes_wrong_is_told_in_one_line(
    ansible: Ansible, kv2: World, another: Callable[[], World]
) -> None:
    ansible.together(
        kv2,
        bad_input_is_told_and_nobody_is_asked(another()),
        null_or_omit_in_a_variable_becomes_nobody_elses_identity_and_a_task_may_omit(another()),
        a_name_that_is_not_nfc_is_taken_with_a_warning(another()),
        a_side_that_fails_is_named(another()),
        a_token_of_another_user_or_endpoint_is_refused(another()),
        a_failed_lookup_is_ignored_or_a_warning_if_its_caller_says_so(another()),
    )


def bad_input_is_told_and_nobody_is_asked(world: World) -> Scene:
    tasks = [
        *(task for options, _ in INPUT for task in both(options)),
        *(shown(lookup(arguments)) for arguments in OF_LOOKUPS),
        token(field="access_token"),
        {**token(), "vars": {"ansible_klearstack_company_name": False}},
        shown(lookup("user_id=nowhere")),
        shown(lookup("{'user_id': nowhere}")),
        token(user_id="{{ nowhere }}"),
    ]
    with FaultProxy(world.vault.address) as proxy:
        results, _ = yield at(world, tasks, vault_addr=proxy.address)
        assert (proxy.requests, world.endpoint.requests) == ([], 0)
    results, (field, norway, *undefined) = results[:-5], results[-5:]
    expected = [said for _, said in INPUT for _ in range(2)] + [*OF_LOOKUPS.values()]
    for result, said in zip(results, expected, strict=True):
        assert result["failed"]
        hint = f"{ENVIRONMENT}{HINT}" if " is missing" in said else HINT
        assert result["msg"].endswith(said + hint)
        assert result["msg"].count(HINT) == 1
        assert "\n" not in result["msg"]
        if "error" in result:
            assert result["msg"] == f"{result['error']['message']}{hint}"
            assert (result["error"]["hint"], result["error"]["retryable"]) == (hint.strip(), False)
            assert result["error"]["code"] in {"usage", "settings"}
    assert sum("error" in result for result in results) == len(INPUT)
    assert field["msg"] == f"There is no option field.{HINT}"
    assert norway["msg"] == f"The option company_name {STRING}{HINT}"
    assert ["'nowhere' is undefined" in one["msg"] for one in undefined] == [True] * 3


def null_or_omit_in_a_variable_becomes_nobody_elses_identity_and_a_task_may_omit(world: World) -> Scene:
    results, _ = yield at(
        world,
        [
            shown(lookup(), vars={"ansible_klearstack_user_id": None}),
            shown(lookup(), vars={"ansible_klearstack_company_name": "{{ nothing | default(none) }}"}),
            token(user_id="{{ nothing | default(none) }}"),
            shown(
                lookup(),
                vars={"ansible_hashi_vault_addr": world.vault.address, "ansible_klearstack_vault_addr": None},
            ),
            shown(
                lookup("field='source'"),
                vars={"ansible_hashi_vault_addr": None, "ansible_klearstack_vault_addr": world.vault.address},
            ),
            shown(lookup("user_id=omit")),
            shown(lookup("{'user_id': omit}")),
            token(user_id="{{ nothing | default(omit) }}"),
        ],
    )
    null, template, template_in_task, stronger, weaker, omit, omit_in_term, omitted = results
    for result, name in (
        (null, "user_id"), (template, "company_name"), (template_in_task, "user_id"), (stronger, "vault_addr"),
    ):  # fmt: skip
        assert result["failed"]
        assert f"{name} (" in result["msg"]
        assert EMPTY in result["msg"]
    assert omit["failed"]
    assert omit_in_term["failed"]
    assert (weaker["msg"], omitted["source"], world.endpoint.mints) == ("endpoint", "vault", 1)
    assert omitted["vault"]["path"] == "klearstack/Acme/26/access"


def a_name_that_is_not_nfc_is_taken_with_a_warning(world: World) -> Scene:
    _, done = yield at(world, [token(company_name="A\u0308hre")])
    assert world.endpoint.mints == 1
    said = " ".join((done.stdout + done.stderr).split())
    assert "klearstack.vault: company_name (KLEARSTACK_COMPANY_NAME) is not NFC" in said


def a_side_that_fails_is_named(world: World) -> Scene:
    limited = world.vault.policy_token('path "other/*" { capabilities = ["read"] }')
    with FaultProxy(world.vault.address) as sealed, Simulator(fault="401") as refusing:
        sealed.answer(lambda line: True, 503, body=SEALED, when="before", times=99)
        sides: list[tuple[dict[str, Any], str, str]] = [
            (
                {"vault_token": "hvs.wrong"},
                "vault_refused",
                "Vault does not know the Vault token: it has been revoked, has expired, or is wrong. Log in again.",
            ),
            (
                {"vault_token": limited, "mount": "missing"},
                "vault_refused",
                "or check mount (KLEARSTACK_VAULT_MOUNT): `vault secrets list` shows the mounts.",
            ),
            (
                {"vault_addr": sealed.address},
                "vault_unavailable",
                f"The request to Vault at {sealed.address} failed: it is sealed. Unseal Vault.",
            ),
            (
                {"vault_addr": NOBODY, "deadline": 4},
                "vault_unavailable",
                "connection refused. Check vault_addr (VAULT_ADDR or BAO_ADDR), and that Vault is running there.",
            ),
            (
                {"url": NOBODY, "deadline": "4s"},
                "endpoint_unavailable",
                "cannot be reached: connection refused. Check url (KLEARSTACK_URL), or try again later.",
            ),
            (
                {"url": refusing.url},
                "endpoint_refused",
                "The endpoint requires no login; check url (KLEARSTACK_URL).",
            ),
        ]
        results, _ = yield at(world, [task for options, _, _ in sides for task in both(options)])
    for number, (_, code, said) in enumerate(sides):
        looked, ran = results[2 * number : 2 * number + 2]
        assert (looked["msg"].endswith(said), ran["msg"].endswith(said)) == (True, True), ran
        assert "\n" not in looked["msg"] + ran["msg"]
        assert ran["error"]["code"] == code
    assert world.endpoint.requests == 0


def a_token_of_another_user_or_endpoint_is_refused(world: World) -> Scene:
    world.endpoint.fault, world.endpoint.fault_count = "another-user", 2
    with Simulator() as staging, Simulator(fault="another-user") as elsewhere:
        mismatch, kept = both({}), token(path_prefix="kept")
        other = both({"url": staging.url, "path_prefix": "kept"})
        accepted = token(on_user_mismatch="warn", path_prefix="warned", url=elsewhere.url)
        renewed = token(url=staging.url, path_prefix="kept", renew=True)
        results, _ = yield at(world, [*mismatch, kept, *other, renewed, accepted])
        assert (staging.mints, elsewhere.mints) == (1, 1)
    for looked, ran, code, option in (
        (*results[:2], "user_mismatch", "set on_user_mismatch (KLEARSTACK_ON_USER_MISMATCH) to warn"),
        (*results[3:5], "vault_other_endpoint", "path_prefix"),
    ):
        assert option in looked["msg"]
        assert "--" not in looked["msg"]
        assert "access_token" not in ran
        assert ran["error"]["code"] == code
    assert [result.get("source") for result in (results[2], *results[5:])] == ["endpoint"] * 3
    assert world.vault.read(world.mount, "klearstack/Acme/26/access") is None


def a_failed_lookup_is_ignored_or_a_warning_if_its_caller_says_so(world: World) -> Scene:
    with FaultProxy(world.vault.address) as ignoring, FaultProxy(world.vault.address) as warning:
        for proxy in (ignoring, warning):
            proxy.answer(lambda line: True, 503, body=SEALED, when="before", times=99)
        ignored, warned = lookup("errors='ignore'"), lookup("errors='warn'")
        default, query = (
            f"({ignored} or {{}}).access_token | default('none')",
            f"query('{TOKEN}', errors='ignore')",
        )
        results, done = yield [
            *at(world, [shown(default), shown(query)], vault_addr=ignoring.address),
            *at(world, [shown(f"{warned} is none")], vault_addr=warning.address),
        ]
    assert [str(one["msg"]) for one in results] == ["none", "[]", "True"]
    assert ignoring.requests
    assert ignoring.address not in done.stdout + done.stderr
    assert re.search(rf"\[WARNING\]:[^[]*{re.escape(warning.address)}", " ".join(done.stderr.split()))


def test_the_package_s_warnings_are_ansible_s_and_with_v_it_says_what_it_does(
    newest: Ansible, kv2: World
) -> None:
    bypass = shown(lookup(f"on_vault_error='bypass', vault_addr='{NOBODY}', field='vault'"))
    done = newest.play(kv2, registering([bypass, shown(lookup("field='source'")), token(renew=True)]))
    assert [one.get("msg") for one in registered(done)[:2]] == [None, "endpoint"]
    assert done.stderr.count("[WARNING]") == 1
    said = " ".join(done.stderr.split())
    assert said.startswith(f"[WARNING]: klearstack.vault: The request to Vault at {NOBODY} failed")
    assert "WITHOUT being stored" in said
    path = "klearstack/Acme/28/access"
    assert path not in done.stdout
    asked = shown(lookup("user_id=28, field='source'"))
    loud = newest.play(kv2, [asked], "-v", env={"ANSIBLE_LOG_PATH": "log"}).stdout
    assert (newest.folder / "log").read_text().count(path) == loud.count(path) > 0
