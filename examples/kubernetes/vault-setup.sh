#!/bin/sh
# Allow the service account klearstack-vault of one namespace to log in to Vault. Vault's administrator runs this once.
#
#   vault login ...
#   NAMESPACE=klearstack ./vault-setup.sh
#
# This is for a Vault in the cluster. For one outside, KUBERNETES_HOST and the file KUBERNETES_CA name the
# cluster's API, and the file REVIEWER_JWT holds the token of a service account with the role system:auth-delegator.
# It works the same with `bao`.
set -eu
: "${NAMESPACE:?}"

vault policy write klearstack - <<'HCL'
path "secret/data/klearstack/*"     { capabilities = ["update", "read"] }
path "secret/metadata/klearstack/*" { capabilities = ["create", "update"] }
HCL

vault auth list -format=json | grep -q '"kubernetes/"' || vault auth enable kubernetes
vault write auth/kubernetes/config kubernetes_host="${KUBERNETES_HOST:-https://kubernetes.default.svc}" \
  ${KUBERNETES_CA:+kubernetes_ca_cert=@"$KUBERNETES_CA"} ${REVIEWER_JWT:+token_reviewer_jwt=@"$REVIEWER_JWT"}
vault write auth/kubernetes/role/klearstack \
  bound_service_account_names=klearstack-vault \
  bound_service_account_namespaces="$NAMESPACE" \
  audience=vault \
  token_policies=klearstack \
  token_ttl=15m
