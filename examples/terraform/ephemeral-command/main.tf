# A KlearStack token without the Vault provider: an ephemeral resource runs the command, whose output is in no state or plan
# file. It runs in the plan and again in the apply; both get the token that is in Vault.
#
# With TF_LOG=TRACE the provider writes the command's output, which is both tokens, and the API's response into the log:
# leave TF_LOG at DEBUG or below, or treat that log as a secret.
#
#   export KLEARSTACK_URL=https://api.example.com VAULT_ADDR=https://vault.example.com:8200   # and a Vault token
#   export TF_VAR_user_id=26 TF_VAR_company_name=Acme TF_VAR_api_url=$KLEARSTACK_URL/...
#   terraform init && terraform apply

terraform {
  required_version = ">= 1.10" # ephemeral resources

  required_providers {
    local = {
      source  = "hashicorp/local"
      version = ">= 2.7" # local_command
    }
  }
}

variable "user_id" {
  type = string
}

variable "company_name" {
  type = string
}

variable "api_url" {
  description = "What is called with the token."
  type        = string
}

ephemeral "local_command" "token" {
  command   = "klearstack-vault"
  arguments = ["terraform", "--with-tokens"] # only here: data "external" would write the tokens into the state
  stdin     = jsonencode({ user_id = var.user_id, company_name = var.company_name })
}

locals {
  token = jsondecode(ephemeral.local_command.token.stdout).access_token
}

# Call the API: the token goes in by standard input, no argument holds it.
ephemeral "local_command" "call" {
  command   = "curl"
  arguments = ["-fsS", "-K", "-", var.api_url]
  stdin     = "header = \"Authorization: Bearer ${local.token}\""
}
