"""Ask for a token in Python: the same settings, the same Vault, the same single minting as the command."""

from vault_plugin.app import connect
from vault_plugin.settings import Settings


def main() -> None:
    """Print what the KlearStack API would be called with, short of the token itself."""
    settings = Settings.from_env()
    with connect(settings) as broker:
        grant = broker.get(settings.identity())
    headers = {"Authorization": f"Bearer {grant.access.token.value.reveal()}"}
    print(f"{len(headers)} header, good for {grant.shortest_ttl} s, from {grant.source}")  # noqa: T201


if __name__ == "__main__":
    main()
