"""`python -m vault_plugin` is `klearstack-vault`."""

from vault_plugin.cli import main

if __name__ == "__main__":
    main()
