"""KlearStack tokens, read through HashiCorp Vault or OpenBao.

from vault_plugin.app import connect
from vault_plugin.settings import Settings

settings = Settings.from_env()
with connect(settings) as broker:
    grant = broker.get(settings.identity())
headers = {"Authorization": f"Bearer {grant.access.token.value.reveal()}"}
"""
