"""Connections: TLS, deadlines, and why one failed. Shared by both sides."""
