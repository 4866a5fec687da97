# A KlearStack token for a provider and for a resource, without Terraform ever writing it down: the module says where in
# Vault it lies, an ephemeral resource reads it there, in the plan and again in the apply.
#
#   vault login                                   # or VAULT_TOKEN
#   export VAULT_ADDR=https://vault.example.com:8200
#   export KLEARSTACK_URL=https://api.example.com
#   export TF_VAR_user_id=26
#   export TF_VAR_company_name=Acme
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

variable "user_id" {
  type = string
}

variable "company_name" {
  type = string
}

module "klearstack_token" {
  source       = "../modules/klearstack-token"
  user_id      = var.user_id
  company_name = var.company_name
}

ephemeral "vault_kv_secret_v2" "access" {
  mount = module.klearstack_token.access.mount
  name  = module.klearstack_token.access.name
}

locals {
  # Null is what Vault has after the token's life. (A postcondition in the block above would say so more plainly, but
  # Terraform 1.11's `show -json` crashes on one in an ephemeral block.)
  token = (
    ephemeral.vault_kv_secret_v2.access.data != null
    ? ephemeral.vault_kv_secret_v2.access.data.access_token
    : tobool("The access token is gone from Vault (expired ${module.klearstack_token.access.expires_at}): plan again.")
  )
}

# In a provider block. This one sends it to Vault, or to a proxy before it, as a header of each request; a provider for
# KlearStack's API would take it as its token.
provider "vault" {
  alias = "with_klearstack_token"

  headers {
    name  = "X-Klearstack-Authorization"
    value = "Bearer ${local.token}"
  }
}

# In a write-only argument: another team's secret gets a copy whenever there is a newer token.
resource "vault_kv_secret_v2" "copy" {
  provider = vault.with_klearstack_token

  mount = module.klearstack_token.access.mount
  name  = "teams/scanning/klearstack"

  data_json_wo         = jsonencode({ token = local.token })
  data_json_wo_version = module.klearstack_token.access.version
}

output "access" {
  value = module.klearstack_token.access # a reference
}
