"""What other programs ask for tokens by."""
