"""KlearStack tokens, read through HashiCorp Vault or OpenBao.

from vault_plugin.app import connect
from vault_plugin.settings import Settings

settings = Settings.from_env()
with connect(settings) as broker:
    grant = broker.get(settings.identity())
headers = {"Authorization": f"Bearer {grant.access.token.value.reveal()}"}

These names are public; everything else may change in any release.

For programs: `app.connect`, `settings.Settings`, `tokens.Kind`, and the errors in `errors`.

For the Ansible collection as well, which is released with this package: `errors.internal_error`,
`output.formats.describe`, `output.formats.describe_error`, `settings.words`, `wording.speaking`.
"""
