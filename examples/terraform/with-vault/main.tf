# A KlearStack token for a provider and for a resource, without Terraform ever writing it down: the data source says where
# in Vault it lies, an ephemeral resource reads it there, in the plan and again in the apply. Copy this folder, and:
#
#   export VAULT_ADDR=https://vault.example.com:8200
#   export VAULT_TOKEN=...
#   export KLEARSTACK_URL=https://api.example.com
#   export TF_VAR_klearstack_user='{ user_id = "26", company_name = "Acme" }'
#   terraform init && terraform plan

terraform {
  required_version = ">= 1.11" # write-only arguments

  required_providers {
    external = {
      source  = "hashicorp/external"
      version = "~> 2.3"
    }
    vault = {
      source  = "hashicorp/vault"
      version = "~> 5.0"
    }
  }
}

variable "klearstack_user" {
  description = "Whose token: the user's id, and the company as KlearStack writes it."
  type = object({
    user_id      = string
    company_name = string
  })
}

# The module klearstack-token wraps this block, with more to choose from.
data "external" "klearstack" {
  program = ["klearstack-vault", "terraform"]
  query   = var.klearstack_user
}

# The Vault token is used as it is; without this, the provider makes a child of it, which a token of few rights may not.
provider "vault" {
  skip_child_token = true
}

ephemeral "vault_kv_secret_v2" "access" {
  mount = data.external.klearstack.result.mount
  name  = data.external.klearstack.result.access_name
}

locals {
  # Null is what Vault has after the token's life. (A postcondition in the block above would say so more plainly, but
  # Terraform 1.11's `show -json` crashes on one in an ephemeral block.)
  token = (
    ephemeral.vault_kv_secret_v2.access.data != null
    ? ephemeral.vault_kv_secret_v2.access.data.access_token
    : tobool("The access token is gone from Vault (expired ${data.external.klearstack.result.access_expires_at}): plan again.")
  )
}

# In a provider block. This one sends it to Vault, or to a proxy before it, as a header of each request; a provider for
# KlearStack's API would take it as its token.
provider "vault" {
  alias            = "with_klearstack_token"
  skip_child_token = true

  headers {
    name  = "X-Klearstack-Authorization"
    value = "Bearer ${local.token}"
  }
}

# In a write-only argument: another team's secret gets a copy whenever there is a newer token.
resource "vault_kv_secret_v2" "copy" {
  provider = vault.with_klearstack_token

  mount = data.external.klearstack.result.mount
  name  = "teams/scanning/klearstack"

  data_json_wo         = jsonencode({ token = local.token })
  data_json_wo_version = data.external.klearstack.result.access_version
}

output "klearstack" {
  description = "References to both tokens."
  value       = data.external.klearstack.result
}
