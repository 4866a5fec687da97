"""The protocols by which other programs ask for a token."""
