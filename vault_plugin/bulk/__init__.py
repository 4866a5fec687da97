"""Bulk commands over the identities of a manifest: sync and watch."""
