# A copy of a KlearStack token in another secret of Vault, without the token in state or plan files: the data source returns
# where the token is in Vault, and an ephemeral resource reads it there, in the plan and again in the apply. Copy this
# folder, and:
#
#   export VAULT_ADDR=https://vault.example.com:8200
#   export VAULT_TOKEN=...
#   export KLEARSTACK_URL=https://api.example.com
#   export TF_VAR_klearstack_user='{ user_id = "26", company_name = "Acme" }'
#   terraform init && terraform plan
#
# policy.hcl is the policy that the Vault token needs.

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

# The Vault token is used as it is. Without this, the provider creates a child token, which a limited token may not.
#
# Do not pass the KlearStack token in this provider's `headers`: with TF_LOG=DEBUG or TRACE it writes each header but its
# own token into the log. A provider that has an argument for the token takes `local.token`, which is null once the token
# has expired.
provider "vault" {
  skip_child_token = true
}

ephemeral "vault_kv_secret_v2" "access" {
  mount = data.external.klearstack.result.mount
  name  = data.external.klearstack.result.access_name
}

locals {
  # Null if the token has expired: Vault returns no data then. Terraform evaluates this in a destroy as well, which must not
  # fail for that, so the error is in the precondition below.
  token = try(ephemeral.vault_kv_secret_v2.access.data.access_token, null)
}

# The write-only argument is sent whenever there is a newer token.
resource "vault_kv_secret_v2" "copy" {
  mount = data.external.klearstack.result.mount
  name  = "teams/scanning/klearstack"

  data_json_wo         = jsonencode({ token = local.token })
  data_json_wo_version = data.external.klearstack.result.access_version

  lifecycle {
    precondition {
      condition     = local.token != null
      error_message = "The access token is no longer in Vault (it expired at ${data.external.klearstack.result.access_expires_at}). Run terraform plan again."
    }
  }
}

output "klearstack" {
  description = "References to both tokens."
  value       = data.external.klearstack.result
}
