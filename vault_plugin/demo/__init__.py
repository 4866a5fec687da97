"""The demo, with its own OpenBao and endpoint."""
