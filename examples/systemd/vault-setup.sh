#!/bin/sh
# Allow the service to log in to Vault with AppRole. Vault's administrator runs this once.
#
#   vault login ...
#   ./vault-setup.sh
#
# It writes the files role-id and secret-id into the current folder, mode 0600. It works the same with `bao`.
set -eu
umask 077

vault policy write klearstack - <<'HCL'
path "secret/data/klearstack/*"     { capabilities = ["update", "read"] }
path "secret/metadata/klearstack/*" { capabilities = ["create", "update"] }
HCL

vault auth list -format=json | grep -q '"approle/"' || vault auth enable approle
# No secret_id_num_uses and no secret_id_ttl: the service logs in repeatedly while it runs.
vault write auth/approle/role/klearstack token_policies=klearstack token_ttl=15m
vault read -field=role_id auth/approle/role/klearstack/role-id >role-id
vault write -force -field=secret_id auth/approle/role/klearstack/secret-id >secret-id
