"""Many identities at once: sync and watch."""
