# Copyright: (c) 2026, The klearstack-vault authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lookup: one more way to ask the package for a token, at each evaluation of the template."""

from __future__ import annotations

DOCUMENTATION = r"""
name: token
author: The klearstack-vault authors (@klearstack-vault)
version_added: 0.1.0
short_description: A KlearStack API token, read from Vault or minted once
description:
  - Returns a valid KlearStack API token. If Vault's KV engine has one, it is read from there. Otherwise a new one is requested
    (minted), stored until its JWT expires, and returned; callers that ask at the same time get the same one.
  - Vault is HashiCorp Vault or OpenBao here, not Ansible Vault.
extends_documentation_fragment:
  - klearstack.vault.token
  - klearstack.vault.token.plugins
options:
  _terms:
    description: Identities, each a dict of O(user_id), O(company_name) or both; the options give the rest. Without terms, the options alone.
    type: list
    elements: dict
  field:
    description: Return this field of each answer, such as V(access_token), in place of all.
    type: str
notes:
  - The lookup runs on the controller each time its template is evaluated. A variable that holds it is looked up at each use.
    Each evaluation costs a read of Vault, and a mint only if the token is missing or about to expire.
  - With C(--check) it only reads Vault, and fails where it would have to mint. It knows nothing of a task's own C(check_mode);
    the module M(klearstack.vault.token) does.
  - The lookup prints no token. The task that takes the token may, so give it C(no_log=true). Loops over tokens print them without it.
  - Write no literal secret into a template or a task. When it fails, ansible-core 2.19 prints these lines of the playbook, whatever C(no_log) says.
  - With C(-v) paths in Vault are printed, which hold the company and the user.
seealso:
  - module: klearstack.vault.token
  - ref: ansible_collections.klearstack.vault.docsite.guide
    description: When to use the lookup and when the task.
  - plugin: community.hashi_vault.vault_kv2_get
    plugin_type: lookup
  - plugin: community.hashi_vault.vault_login
    plugin_type: lookup
"""

EXAMPLES = r"""
# The addresses and the Vault token come from KLEARSTACK_URL, VAULT_ADDR and VAULT_TOKEN here.
- name: Call the API
  ansible.builtin.uri:
    url: https://api.example.com/access/klearstack/getuserid
    method: POST
    headers:
      Authorization: "Bearer {{ lookup('klearstack.vault.token', user_id='26', company_name='Acme').access_token }}"
  no_log: true # with -vvv the header would be printed

- name: Take the same options from variables, such as those of group_vars
  ansible.builtin.uri:
    url: "{{ ansible_klearstack_url }}/access/klearstack/getuserid"
    method: POST
    headers:
      Authorization: "Bearer {{ lookup('klearstack.vault.token', field='access_token') }}"
  no_log: true
  vars:
    ansible_klearstack_url: https://api.example.com
    ansible_klearstack_user_id: "26"
    ansible_klearstack_company_name: Acme
    ansible_klearstack_vault_addr: https://vault.example.com:8200

# The same in ansible.cfg:
#   [klearstack]
#   url = https://api.example.com
#   vault_addr = https://vault.example.com:8200
#   company_name = Acme

- name: Evaluate it once, for all hosts
  ansible.builtin.set_fact:
    klearstack_token: "{{ lookup('klearstack.vault.token', user_id='26', company_name='Acme') }}"
  run_once: true
  no_log: true # with -v the fact would be printed

- name: Show when it expires
  ansible.builtin.debug:
    msg: "The token expires at {{ klearstack_token.expires_at }}."

- name: Read the refresh token
  ansible.builtin.set_fact:
    klearstack_refresh_token: "{{ lookup('klearstack.vault.token', kind='refresh', field='refresh_token') }}"
  no_log: true

- name: Tokens of several users, in their order
  ansible.builtin.set_fact:
    klearstack_tokens: "{{ query('klearstack.vault.token', {'user_id': '26'}, {'user_id': '27'}, company_name='Acme') }}"
  no_log: true

- name: Never less than a quarter of an hour, if tokens live for half an hour or longer
  ansible.builtin.set_fact:
    klearstack_token: "{{ lookup('klearstack.vault.token', user_id='26', company_name='Acme', min_ttl='15m') }}"
  no_log: true

- name: Log in to Vault with AppRole
  ansible.builtin.set_fact:
    klearstack_token: "{{ lookup('klearstack.vault.token', user_id='26', company_name='Acme', auth='approle', role_id=role_id, secret_id=secret_id) }}"
  no_log: true
  vars:
    role_id: "{{ lookup('ansible.builtin.file', '/run/secrets/role-id') }}"
    secret_id: "{{ lookup('ansible.builtin.file', '/run/secrets/secret-id') }}"

- name: Log in to Vault by any method that community.hashi_vault knows
  ansible.builtin.set_fact:
    klearstack_token: "{{ lookup('klearstack.vault.token', user_id='26', company_name='Acme', auth='token', vault_token=login_token) }}"
  no_log: true
  vars:
    login_token: "{{ lookup('community.hashi_vault.vault_login', auth_method='jwt', role_id='ci', jwt=ci_jwt) | community.hashi_vault.vault_login_token }}"
    ci_jwt: "{{ lookup('ansible.builtin.env', 'CI_JOB_JWT') }}"

- name: Go on without a token
  ansible.builtin.set_fact:
    klearstack_access_token: "{{ (lookup('klearstack.vault.token', errors='ignore') or {}).access_token | default('') }}"
  no_log: true
"""

RETURN = r"""
_raw:
  description:
    - One dict for each term, or one if there is no term; with O(field) that field of each.
    - C(query) returns the list, C(lookup) the dict itself if there is just one.
  type: list
  elements: dict
  contains:
    access_token:
      description: The access token, a JWT.
      type: str
      returned: with O(kind=access) and O(kind=both)
      sample: eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9...
    token_type:
      description: What goes before it in an C(Authorization) header.
      type: str
      returned: always
      sample: Bearer
    expires_at:
      description: When the access token expires, by RFC 3339 in UTC.
      type: str
      returned: with O(kind=access) and O(kind=both)
      sample: "2026-01-02T03:04:05Z"
    expires_in:
      description: Whole seconds until then, at the moment of the answer.
      type: int
      returned: with O(kind=access) and O(kind=both)
      sample: 873
    source:
      description: V(vault) if it was read, V(endpoint) if it was minted just now.
      type: str
      returned: always
      sample: vault
    stale:
      description: Whether a newer one was due, but the endpoint is down or too busy. A warning says so too.
      type: bool
      returned: always
      sample: false
    vault:
      description: Where the access token lies; V(null) if O(on_vault_error=bypass) stored none.
      type: dict
      returned: with O(kind=access) and O(kind=both)
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
      returned: with O(kind=refresh) and O(kind=both)
      sample: eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9...
    refresh_expires_at:
      description: When the refresh token expires.
      type: str
      returned: with O(kind=refresh) and O(kind=both)
      sample: "2026-01-04T03:04:05Z"
    refresh_expires_in:
      description: Whole seconds until then, at the moment of the answer.
      type: int
      returned: with O(kind=refresh) and O(kind=both)
      sample: 172773
    refresh_vault:
      description: Where the refresh token lies, in the form of RV(_raw[].vault).
      type: dict
      returned: with O(kind=refresh) and O(kind=both)
"""

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from ansible_collections.klearstack.vault.plugins.plugin_utils import _engine


class LookupModule(LookupBase):
    """`lookup('klearstack.vault.token', ...)`."""

    def run(self, terms, variables=None, **kwargs):
        if _engine.connect is None:
            raise AnsibleLookupError(_engine.MISSING)
        variables = variables or {}
        field = kwargs.pop("field", None)
        kwargs.pop("wantlist", None)  # what `with_` gives before core 2.19
        # Core tells lookups of --check, and nothing of a task's own `check_mode`.
        mint = not variables.get("ansible_check_mode")
        try:
            answers = _engine.tokens(self, self._templar, variables, kwargs, terms, field, mint)
        except _engine.EngineError as exc:
            raise AnsibleLookupError(str(exc)) from None
        if None in answers:
            raise AnsibleLookupError(
                "A token would have to be minted, and with --check a lookup mints none. "
                "The task klearstack.vault.token does with `check_mode: false`."
            )
        return answers if field is None else [answer[field] for answer in answers]
