"""Large manifests, and the memory that it takes to check them."""

from pathlib import Path

from support.memory import peak_of
from vault_plugin.manifest.model import Manifest
from vault_plugin.manifest.shards import Shard
from vault_plugin.settings import Settings


def made_file(path: Path, form: str, count: int) -> None:
    """A manifest with so many identities."""
    with path.open("w", encoding="utf-8") as file:
        if form == "csv":
            file.write("user_id\n")
            file.writelines(f"user-{number}\n" for number in range(count))
        else:
            file.write("defaults: {company_name: Acme}\nidentities:\n")
            file.writelines(f"- user_id: user-{number}\n" for number in range(count))


def memory_of_checking(path: Path, form: str, count: int) -> int:
    """Bytes, at most, while a manifest with so many identities is checked."""
    settings = Settings(
        user_id="-", company_name="-", url="https://api.example", vault_addr=("https://v.example",)
    )
    made_file(path, form, count)

    def check() -> None:
        with path.open("rb") as file:
            assert Manifest(file, form, Shard(1, 1), "Acme", (), lambda _row: settings).count == count

    return peak_of(check)
