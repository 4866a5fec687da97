"""Secrets, tokens, the identities that they belong to, and what Vault stores of them."""

from vault_plugin.tokens.jwt import Kind

__all__ = ["Kind"]
