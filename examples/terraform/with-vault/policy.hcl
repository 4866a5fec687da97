# What Terraform's Vault token needs for this folder, with the default mount and path prefix:
#   vault policy write klearstack-terraform policy.hcl

# The KlearStack tokens: klearstack-vault writes them, the ephemeral resource reads the access token.
path "secret/data/klearstack/*" {
  capabilities = ["update", "read"]
}
path "secret/metadata/klearstack/*" {
  capabilities = ["create", "update"]
}

# The copy. The provider reads its metadata after each read and write, and writes them with each update.
path "secret/data/teams/scanning/klearstack" {
  capabilities = ["create", "update", "read", "delete"]
}
path "secret/metadata/teams/scanning/klearstack" {
  capabilities = ["read", "update"]
}

# The provider looks up its own token first, with skip_child_token, too. Vault's policy `default` grants it as well.
path "auth/token/lookup-self" {
  capabilities = ["read"]
}
