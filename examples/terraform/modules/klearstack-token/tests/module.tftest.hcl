mock_provider "external" {
  mock_data "external" {
    defaults = {
      result = {
        mount              = "secret"
        kv_version         = "2"
        access_name        = "klearstack/Acme/26/access"
        access_version     = "7"
        access_expires_at  = "9999-01-01T00:00:00Z"
        refresh_name       = "klearstack/Acme/26/refresh"
        refresh_version    = "3"
        refresh_expires_at = "9999-01-01T00:00:00Z"
      }
    }
  }
}

variables {
  user_id      = "26"
  company_name = "Acme"
}

run "refers_to_both_tokens" {
  assert {
    condition     = output.access.name == "klearstack/Acme/26/access" && output.access.version == 7
    error_message = "The access token's place is not what the program said."
  }
  assert {
    condition     = output.refresh.name == "klearstack/Acme/26/refresh" && output.refresh.version == 3
    error_message = "The refresh token's place is not what the program said."
  }
  assert {
    condition     = toset(keys(output.access)) == toset(["mount", "name", "version", "expires_at"])
    error_message = "A reference holds more than a reference."
  }
}

run "passes_further_settings_on" {
  variables {
    settings = { auth = "jwt", auth_mount = "ci", mount = "kv" }
  }
  assert {
    condition     = data.external.token.query.auth == "jwt" && data.external.token.query.auth_mount == "ci"
    error_message = "The query lacks a setting."
  }
  assert {
    condition     = data.external.token.query.mount == "kv" && data.external.token.query.user_id == "26"
    error_message = "The query lacks what the other variables say."
  }
}

run "has_an_identity_by_its_variables_alone" {
  command = plan
  variables {
    settings = { user_id = "27" }
  }
  expect_failures = [var.settings]
}

run "has_no_version_on_kv_v1" {
  override_data {
    target = data.external.token
    values = {
      result = {
        mount              = "kv"
        kv_version         = "1"
        access_name        = "klearstack/Acme/26/access"
        access_version     = ""
        access_expires_at  = "9999-01-01T00:00:00Z"
        refresh_name       = "klearstack/Acme/26/refresh"
        refresh_version    = ""
        refresh_expires_at = "9999-01-01T00:00:00Z"
      }
    }
  }
  assert {
    condition     = output.kv_version == 1 && output.access.version == null && output.refresh.version == null
    error_message = "KV v1 has no versions."
  }
}

run "refuses_an_expired_token" {
  command = plan
  override_data {
    target = data.external.token
    values = {
      result = {
        mount              = "secret"
        kv_version         = "2"
        access_name        = "klearstack/Acme/26/access"
        access_version     = "7"
        access_expires_at  = "2001-01-01T00:00:00Z"
        refresh_name       = "klearstack/Acme/26/refresh"
        refresh_version    = "3"
        refresh_expires_at = "9999-01-01T00:00:00Z"
      }
    }
  }
  expect_failures = [data.external.token]
}

run "refuses_tokens_in_the_answer" {
  command = plan
  override_data {
    target = data.external.token
    values = {
      result = {
        mount              = "secret"
        kv_version         = "2"
        access_name        = "klearstack/Acme/26/access"
        access_version     = "7"
        access_expires_at  = "9999-01-01T00:00:00Z"
        access_token       = "not for the state"
        refresh_name       = "klearstack/Acme/26/refresh"
        refresh_version    = "3"
        refresh_expires_at = "9999-01-01T00:00:00Z"
      }
    }
  }
  expect_failures = [data.external.token]
}

run "refuses_an_empty_user" {
  command = plan
  variables {
    user_id = ""
  }
  expect_failures = [var.user_id]
}

run "refuses_an_empty_company" {
  command = plan
  variables {
    company_name = ""
  }
  expect_failures = [var.company_name]
}

run "refuses_what_is_no_duration" {
  command = plan
  variables {
    min_ttl = "soon"
  }
  expect_failures = [var.min_ttl]
}

run "refuses_a_command_that_answers_tokens" {
  command = plan
  variables {
    command = ["klearstack-vault", "terraform", "--with-tokens"]
  }
  expect_failures = [var.command]
}
