"""The example manifests, as `sync` takes them from a file and from standard input."""

from pathlib import Path

from support.cli import World, run
from support.vault import Vault

EXAMPLES = Path(__file__).parents[2] / "examples"
PREFIX = "two-vaults"  # one of them is shared with other tests
POLICY = f"""
path "secret/data/{PREFIX}/*"     {{ capabilities = ["update", "read"] }}
path "secret/metadata/{PREFIX}/*" {{ capabilities = ["create", "update"] }}
"""


def test_the_three_forms_name_the_same_identities(own: World) -> None:
    done = own.run("sync", "--detailed-exitcode", str(EXAMPLES / "manifest.yaml"))
    assert (done.returncode, own.endpoint.mints) == (2, 6), done.stderr
    for name in ("manifest.jsonl", "manifest.csv"):
        done = own.run("sync", "--detailed-exitcode", str(EXAMPLES / name))
        assert (done.returncode, own.endpoint.mints) == (0, 6), done.stderr


def test_each_form_alone_names_six(own: World) -> None:
    for count, form in enumerate(("yaml", "jsonl", "csv"), 1):
        text = (EXAMPLES / f"manifest.{form}").read_text(encoding="utf-8")
        environ = own.environ | {"KLEARSTACK_VAULT_PATH_PREFIX": form}
        done = run("sync", "--format", form, "-", environ=environ, stdin=text)
        assert (done.returncode, own.endpoint.mints) == (0, 6 * count), done.stderr


def test_one_mint_lands_in_both_vaults(own: World, bao: Vault) -> None:
    role_id, secret_id, _ = own.vault.approle(POLICY)
    secrets = {"eu/role-id": role_id, "eu/secret-id": secret_id, "us/token": bao.policy_token(POLICY)}
    for name, secret in secrets.items():
        file = own.home / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"{secret}\n")
    text = (EXAMPLES / "manifest-two-vaults.yaml").read_text(encoding="utf-8")
    for theirs, ours in {
        "https://vault-eu.example.com:8200": own.vault.address,
        "https://vault-us.example.com:8200": bao.address,
        "/etc/klearstack": str(own.home),
    }.items():
        assert theirs in text
        text = text.replace(theirs, ours)
    environ = own.environ | {"KLEARSTACK_VAULT_PATH_PREFIX": PREFIX}
    del environ["VAULT_TOKEN"], environ["VAULT_ADDR"]
    done = run("sync", "-", environ=environ, stdin=text)
    assert (done.returncode, own.endpoint.mints) == (0, 2), done.stderr
    for user in (26, 27):
        there = [vault.read("secret", f"{PREFIX}/Acme/{user}/access") for vault in (own.vault, bao)]
        assert there[0] is not None
        assert there[0] == there[1]
