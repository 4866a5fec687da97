"""The client of HashiCorp Vault and OpenBao."""
