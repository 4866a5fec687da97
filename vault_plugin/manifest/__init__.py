"""Manifests: which identities, which Vaults."""
