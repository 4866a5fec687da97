output "access" {
  description = "Where the access token lies in Vault: `mount`, `name` below it, `version` (null on KV v1), `expires_at` (RFC 3339)."
  value = {
    mount      = local.result.mount
    name       = local.result.access_name
    version    = local.result.access_version == "" ? null : tonumber(local.result.access_version)
    expires_at = local.result.access_expires_at
  }
}

output "refresh" {
  description = "The same for the refresh token."
  value = {
    mount      = local.result.mount
    name       = local.result.refresh_name
    version    = local.result.refresh_version == "" ? null : tonumber(local.result.refresh_version)
    expires_at = local.result.refresh_expires_at
  }
}

output "kv_version" {
  description = "The KV mount's version, 1 or 2."
  value       = tonumber(local.result.kv_version)
}
