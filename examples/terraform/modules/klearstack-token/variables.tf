variable "user_id" {
  description = "The KlearStack user's id."
  type        = string
  nullable    = false

  validation {
    condition     = var.user_id != ""
    error_message = "The user_id must not be empty."
  }
}

variable "company_name" {
  description = "The user's company, as KlearStack writes it."
  type        = string
  nullable    = false

  validation {
    condition     = var.company_name != ""
    error_message = "The company_name must not be empty."
  }
}

variable "mount" {
  description = "The KV mount in Vault. Null leaves it to KLEARSTACK_VAULT_MOUNT, or else `secret`."
  type        = string
  default     = null
}

variable "path_prefix" {
  description = "The folder below the mount. Null leaves it to KLEARSTACK_VAULT_PATH_PREFIX, or else `klearstack`."
  type        = string
  default     = null
}

variable "min_ttl" {
  description = "How long the tokens are to last at least, such as `90s`, `15m` or `1h30m`: more than your plans wait for their apply. Half of a token's life is always enough."
  type        = string
  default     = "2m"
  nullable    = false

  validation {
    condition     = can(timeadd("2000-01-01T00:00:00Z", var.min_ttl)) && !startswith(var.min_ttl, "-")
    error_message = "The min_ttl must be a duration such as 90s, 15m or 1h30m."
  }
}

variable "settings" {
  description = "Further keys of the query, such as `auth` and `auth_mount`, in place of their environment variables. No secrets: Terraform writes them into its state."
  type        = map(string)
  default     = {}
  nullable    = false

  validation {
    condition     = !contains(keys(var.settings), "user_id") && !contains(keys(var.settings), "company_name")
    error_message = "The user and the company have variables of their own."
  }
}

variable "command" {
  description = "The program and its arguments; the default finds it on the PATH."
  type        = list(string)
  default     = ["klearstack-vault", "terraform"]
  nullable    = false

  validation {
    condition     = length(var.command) > 0 && !contains(var.command, "--with-tokens")
    error_message = "The command must name a program, and must not have --with-tokens: Terraform would write the tokens into its state."
  }
}
