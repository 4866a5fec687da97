"""What the connections to the endpoint and to Vault share: TLS, deadlines, and the causes of failures."""
