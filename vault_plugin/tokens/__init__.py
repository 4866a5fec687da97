"""Secrets, tokens, the identities they belong to, and what is stored of them."""

from vault_plugin.tokens.jwt import Kind

__all__ = ["Kind"]
