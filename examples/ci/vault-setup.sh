#!/bin/sh
# Allow the pipelines of one repository to log in to Vault with their ID tokens. Vault's administrator runs this once.
#
#   vault login ...
#   GITHUB_REPOSITORY_ID=123456789 ./vault-setup.sh    # gh api repos/OWNER/NAME --jq .id
#   GITLAB_PROJECT_ID=4711 ./vault-setup.sh            # on the project's first page
#
# By id, because another user can register a name that was given up. ISSUER names a GitHub Enterprise Server or a GitLab of
# your own, and the file ISSUER_CA its CA if that is not public. It works the same with `bao`.
set -eu

# allow MOUNT ISSUER CLAIM ID: only protected branches and tags, so that no pull request can change what runs.
allow() {
  vault auth list -format=json | grep -q "\"$1/\"" || vault auth enable -path="$1" jwt
  vault write "auth/$1/config" oidc_discovery_url="$2" bound_issuer="$2" \
    ${ISSUER_CA:+oidc_discovery_ca_pem=@"$ISSUER_CA"}
  vault write "auth/$1/role/klearstack" - <<JSON
{
  "role_type": "jwt",
  "user_claim": "$3",
  "bound_audiences": ["vault"],
  "bound_claims": {"$3": "$4", "ref_protected": "true"},
  "token_policies": ["klearstack"],
  "token_ttl": "15m"
}
JSON
}

vault policy write klearstack - <<'HCL'
path "secret/data/klearstack/*"     { capabilities = ["update", "read"] }
path "secret/metadata/klearstack/*" { capabilities = ["create", "update"] }
HCL

if [ -n "${GITHUB_REPOSITORY_ID:-}" ]; then
  allow github "${ISSUER:-https://token.actions.githubusercontent.com}" repository_id "$GITHUB_REPOSITORY_ID"
elif [ -n "${GITLAB_PROJECT_ID:-}" ]; then
  allow gitlab "${ISSUER:-https://gitlab.com}" project_id "$GITLAB_PROJECT_ID"
else
  echo "Set GITHUB_REPOSITORY_ID or GITLAB_PROJECT_ID." >&2
  exit 64
fi
