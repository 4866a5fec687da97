"""Secrets, tokens, the identities they belong to, and what is stored of them."""
