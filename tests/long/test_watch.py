"""`watch` with a Vault token that would expire every 15 s."""

import subprocess
import time

from support.cli import COMMAND, World
from support.waiting import until

PERIOD = 15  # seconds
MANIFEST = "identities: [{user_id: '26', company_name: Acme}, {user_id: '27', company_name: Acme}]\n"


def test_a_periodic_token_survives_watch(kv2: World) -> None:
    kv2.endpoint.access_ttl = 6  # seconds, so that Vault is needed again and again
    vault = kv2.vault.admin
    vault.sys.create_or_update_policy(
        kv2.mount, f'path "{kv2.mount}/*" {{ capabilities = ["create", "update", "read"] }}'
    )
    made = vault.auth.token.create(policies=[kv2.mount], period=f"{PERIOD}s")["auth"]
    path = kv2.home / "m.yaml"
    path.write_text(MANIFEST)
    with subprocess.Popen(
        [*COMMAND, "watch", str(path)],
        env=kv2.environ | {"VAULT_TOKEN": made["client_token"]},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            time.sleep(4 * PERIOD)
            mints = kv2.endpoint.mints
            until(lambda: kv2.endpoint.mints >= mints + 2)
            assert vault.auth.token.lookup_accessor(made["accessor"])["data"]["ttl"] <= PERIOD
        finally:
            process.terminate()
            _, said = process.communicate(timeout=30)
    assert (process.returncode, said.count("\n")) == (0, 1), said  # what it watches, and no warning
