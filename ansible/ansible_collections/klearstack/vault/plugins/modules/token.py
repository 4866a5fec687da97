# Copyright: (c) 2026, The klearstack-vault authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Documentation only: the action plugin of the same name does the work, on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: token
author: The klearstack-vault authors (@klearstack-vault)
version_added: 0.1.0
short_description: Get a KlearStack API token, read from Vault or minted once
description:
  - Gets a valid KlearStack API token. If Vault's KV engine has one, it is read from there. Otherwise a new one is requested
    (minted), stored until its JWT expires, and returned; callers that ask at the same time get the same one.
  - Runs on the controller, once for each host, or once in all with C(run_once). No host needs Python or a connection.
  - Vault is HashiCorp Vault or OpenBao here, not Ansible Vault.
extends_documentation_fragment:
  - klearstack.vault.token
attributes:
  action:
    description: Has an action plugin of the same name, which does all on the controller.
    support: full
  action_group:
    description: Use C(group/klearstack.vault.vault) in C(module_defaults) to set its options for a play or a block.
    support: full
    membership:
      - klearstack.vault.vault
  async:
    description: Can run with the C(async) keyword.
    support: none
  check_mode:
    description: Can run in check mode and predict what would change.
    support: full
    details:
      - It only reads Vault then. If a token would have to be minted, it is C(changed) and returns none.
      - With C(check_mode=false) on the task it mints also under C(--check).
  diff_mode:
    description: Shows what changes, in diff mode.
    support: none
    details:
      - All that changes is secret.
  platform:
    description: What the controller may run on.
    support: full
    platforms: posix
notes:
  - Each option may also come from the variables, environment variables and ini keys that the documentation of the lookup lists.
    The order is task, C(module_defaults), variable, environment, ini.
  - What the task shows of a token is censored as if it had C(no_log=true); what it registers is whole. What later tasks do
    with the token may be printed, so give them C(no_log=true).
  - Write no literal secret into a template or a task. When it fails, ansible-core 2.19 prints these lines of the playbook, whatever C(no_log) says.
  - With C(-v) paths in Vault are printed, which hold the company and the user.
seealso:
  - plugin: klearstack.vault.token
    plugin_type: lookup
  - ref: ansible_collections.klearstack.vault.docsite.guide
    description: When to use the lookup and when the task.
  - plugin: community.hashi_vault.vault_kv2_get
    plugin_type: lookup
  - plugin: community.hashi_vault.vault_login
    plugin_type: lookup
"""

EXAMPLES = r"""
# The addresses and the Vault token come from KLEARSTACK_URL, VAULT_ADDR and VAULT_TOKEN here.
- name: Get a token, once for all hosts
  klearstack.vault.token:
    user_id: "26"
    company_name: Acme
  register: klearstack_token
  run_once: true

- name: Call the API from each host
  ansible.builtin.uri:
    url: https://api.example.com/access/klearstack/getuserid
    method: POST
    headers:
      Authorization: "Bearer {{ klearstack_token.access_token }}"
  when: klearstack_token.access_token is defined # with --check there may be none
  no_log: true # with -vvv the header would be printed

- name: The same options for several tasks
  module_defaults:
    group/klearstack.vault.vault:
      company_name: Acme
      vault_addr: https://vault.example.com:8200
      min_ttl: 5m
  block:
    - name: Get the access token and the refresh token of one user
      klearstack.vault.token:
        user_id: "26"
        kind: both
      register: klearstack_tokens

    - name: Get a new token although the stored one is valid
      klearstack.vault.token:
        user_id: "27"
        renew: true
      register: klearstack_token

- name: Get a token also in check mode
  klearstack.vault.token:
    user_id: "26"
    company_name: Acme
  check_mode: false
  register: klearstack_token

- name: Log in to Vault with AppRole
  klearstack.vault.token:
    user_id: "26"
    company_name: Acme
    auth: approle
    role_id: "{{ lookup('ansible.builtin.file', '/run/secrets/role-id') }}"
    secret_id: "{{ lookup('ansible.builtin.file', '/run/secrets/secret-id') }}"
  register: klearstack_token

- name: Log in to Vault by any method that community.hashi_vault knows
  klearstack.vault.token:
    user_id: "26"
    company_name: Acme
    auth: token
    vault_token: "{{ lookup('community.hashi_vault.vault_login', auth_method='jwt', role_id='ci', jwt=ci_jwt) | community.hashi_vault.vault_login_token }}"
  vars:
    ci_jwt: "{{ lookup('ansible.builtin.env', 'CI_JOB_JWT') }}"
  register: klearstack_token

- name: Wait until the endpoint is back
  klearstack.vault.token:
    user_id: "26"
    company_name: Acme
  register: klearstack_token
  until: klearstack_token is succeeded or not klearstack_token.error.retryable
  retries: 5
  delay: 30
"""

RETURN = r"""
access_token:
  description: The access token, a JWT.
  type: str
  returned: with O(kind=access) and O(kind=both), on success
  sample: eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9...
token_type:
  description: What goes before it in an C(Authorization) header.
  type: str
  returned: on success
  sample: Bearer
expires_at:
  description: When the access token expires, by RFC 3339 in UTC.
  type: str
  returned: with O(kind=access) and O(kind=both), on success
  sample: "2026-01-02T03:04:05Z"
expires_in:
  description: Whole seconds until then, at the moment of the answer.
  type: int
  returned: with O(kind=access) and O(kind=both), on success
  sample: 873
source:
  description: V(vault) if it was read, V(endpoint) if it was minted just now, which is C(changed).
  type: str
  returned: on success
  sample: vault
stale:
  description: Whether a newer one was due, but the endpoint is down or too busy. A warning says so too.
  type: bool
  returned: on success
  sample: false
vault:
  description: Where the access token lies; V(null) if O(on_vault_error=bypass) stored none.
  type: dict
  returned: with O(kind=access) and O(kind=both), on success
  contains:
    mount:
      description: The KV mount.
      type: str
      sample: secret
    path:
      description: The path below it.
      type: str
      sample: klearstack/Acme/26/access
    version:
      description: KV v2's version; V(null) on KV v1.
      type: int
      sample: 1
    deletion_time:
      description: When KV v2 deletes it, as Vault says; V(null) on KV v1.
      type: str
      sample: "2026-01-02T03:04:04.123456789Z"
refresh_token:
  description: The refresh token, a JWT.
  type: str
  returned: with O(kind=refresh) and O(kind=both), on success
  sample: eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9...
refresh_expires_at:
  description: When the refresh token expires.
  type: str
  returned: with O(kind=refresh) and O(kind=both), on success
  sample: "2026-01-04T03:04:05Z"
refresh_expires_in:
  description: Whole seconds until then, at the moment of the answer.
  type: int
  returned: with O(kind=refresh) and O(kind=both), on success
  sample: 172773
refresh_vault:
  description: Where the refresh token lies, in the form of RV(vault).
  type: dict
  returned: with O(kind=refresh) and O(kind=both), on success
msg:
  description: What failed and what to do; in check mode, that a token would be minted.
  type: str
  returned: on failure, and in check mode if a token would be minted
  sample: "The deadline passed before a request to Vault at https://vault.example.com:8200 was sent. Increase deadline (KLEARSTACK_DEADLINE)."
error:
  description: The failure, for programs. Holds no secret.
  type: dict
  returned: on failure
  contains:
    code:
      description: What kind of failure; does not change between versions.
      type: str
      sample: vault_unavailable
    message:
      description: What failed.
      type: str
      sample: "The deadline passed before a request to Vault at https://vault.example.com:8200 was sent."
    hint:
      description: What to do.
      type: str
      sample: Increase deadline (KLEARSTACK_DEADLINE).
    retryable:
      description: Whether the same task may succeed later.
      type: bool
      sample: true
"""
