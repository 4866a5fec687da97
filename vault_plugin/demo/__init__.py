"""The demo, with an OpenBao and an endpoint of its own."""
