# Runs in every plan and destroy. It reads Vault, and mints only if a token is missing or about to expire; its result does
# not change as long as the stored tokens are valid, so that a second plan is empty.
data "external" "token" {
  program = var.command

  query = merge({
    user_id      = var.user_id
    company_name = var.company_name
    mount        = var.mount
    path_prefix  = var.path_prefix
    min_ttl      = var.min_ttl
  }, var.settings)

  lifecycle {
    postcondition {
      condition     = timecmp(self.result.access_expires_at, plantimestamp()) > 0
      error_message = "The access token expired at ${self.result.access_expires_at}. Is this machine's clock right, and the endpoint up?"
    }
    postcondition {
      condition     = !contains(keys(self.result), "access_token") && !contains(keys(self.result), "refresh_token")
      error_message = "The command answered tokens, which do not belong into Terraform's state: leave --with-tokens out."
    }
  }
}

locals {
  result = data.external.token.result
}
