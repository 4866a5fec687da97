# Copyright: (c) 2026, The klearstack-vault authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options that the lookup and the task share."""

from __future__ import annotations


class ModuleDocFragment:
    """DOCUMENTATION for both, PLUGINS with the further sources of the lookup's options."""

    DOCUMENTATION = r"""
options:
  user_id:
    description: The user's id. Required.
    type: str
  company_name:
    description: The user's company. Required.
    type: str
  url:
    description: KlearStack's base URL, as you were given it. Required.
    type: str
  ca_cert:
    description: PEM file of the endpoint's CA, if it is not a public one.
    type: str
  proxy:
    description: Proxy for the endpoint at https, or V(none), without user and password. Else E(HTTPS_PROXY), which may have them.
    type: str
  no_proxy:
    description: Hosts, domains and networks that are reached without the proxy of E(HTTPS_PROXY). Else E(NO_PROXY).
    type: str
  allow_plain_http:
    description: 'Mint over plain http to another host: whoever listens gets the token.'
    type: bool
    default: false
  vault_addr:
    description: Vault's address; several nodes of a cluster with commas, a socket as unix:///path. Required; else E(VAULT_ADDR).
    type: str
  vault_namespace:
    description: Vault's namespace. Else E(VAULT_NAMESPACE).
    type: str
  vault_cacert:
    description: PEM file of Vault's CA, if it is not a public one. Else E(VAULT_CACERT).
    type: str
  vault_cacert_bytes:
    description: The same as PEM text, if no file is named. Else E(VAULT_CACERT_BYTES).
    type: str
  vault_capath:
    description: Folder of PEM files of CAs, if neither a file nor PEM text is given. Else E(VAULT_CAPATH).
    type: str
  vault_tls_server_name:
    description: Name in Vault's certificate, if it is not the host of its address. Else E(VAULT_TLS_SERVER_NAME).
    type: str
  vault_client_cert:
    description: PEM file of a TLS client certificate. Else E(VAULT_CLIENT_CERT).
    type: str
  vault_client_key:
    description: PEM file of its key. Else E(VAULT_CLIENT_KEY).
    type: str
  vault_proxy:
    description: Proxy for Vault at https, or V(none), without user and password. Else E(VAULT_PROXY_ADDR), E(VAULT_HTTP_PROXY) or E(HTTPS_PROXY).
    type: str
  vault_timeout:
    description: Connect and read timeout for Vault, in place of O(timeout). Else E(VAULT_CLIENT_TIMEOUT).
    type: str
  vault_max_retries:
    description: How often a failed request to Vault is sent again at most. Else E(VAULT_MAX_RETRIES).
    type: str
  vault_rate_limit:
    description: Maximum requests per second to Vault, as V(rate) or V(rate:burst). Else E(VAULT_RATE_LIMIT).
    type: str
  auth:
    description: How to log in to Vault. The guide has the way for other methods.
    type: str
    choices: [token, approle, jwt, kubernetes]
    default: token
  auth_mount:
    description: Where that auth method is mounted; else at its own name.
    type: str
  auth_role:
    description: The role to log in as, for V(jwt) and V(kubernetes).
    type: str
  vault_token:
    description: The Vault token; else ~/.vault-token. E(VAULT_TOKEN) comes before that file.
    type: str
  vault_jwt:
    description: The JWT to log in with, else E(VAULT_JWT); for V(kubernetes) else the pod's service account token.
    type: str
  role_id:
    description: AppRole's role id. Else E(VAULT_ROLE_ID).
    type: str
  secret_id:
    description: AppRole's secret id. Else E(VAULT_SECRET_ID).
    type: str
  mount:
    description: The KV mount (v1 or v2).
    type: str
    default: secret
  path_prefix:
    description: The folder below it.
    type: str
    default: klearstack
  min_ttl:
    description: Mint if less is left; never more than half of a token's life. Seconds, or a duration such as V(15m) or V(1h30m).
    type: str
    default: "60"
  timeout:
    description: For each connection, and each wait for an answer. Seconds, or a duration.
    type: str
    default: "10"
  deadline:
    description: For everything together. Seconds, or a duration.
    type: str
    default: "60"
  on_vault_error:
    description: 'With Vault down: fail, or bypass it: mint and store nothing.'
    type: str
    choices: [fail, bypass]
    default: fail
  on_user_mismatch:
    description: 'If a token names another user: fail, or warn and use it.'
    type: str
    choices: [fail, warn]
    default: fail
  kind:
    description: Which token, or both.
    type: str
    choices: [access, refresh, both]
    default: access
  renew:
    description: Mint even if the stored token is valid. A lookup does so at each evaluation.
    type: bool
    default: false
notes:
  - An option that no keyword, variable, environment variable or ini key sets may still come from E(VAULT_ADDR) and the
    others that its description names. E(BAO_ADDR) and the like go before them. Each, also E(KLEARSTACK_URL) and the like,
    may name a file with C(_FILE) appended, such as E(VAULT_TOKEN_FILE).
  - O(user_id), O(company_name), O(url) and O(vault_addr) fail if they are given but null or empty, for example by a variable
    that is not set. In a task use C(default(omit)) to leave one out.
  - O(user_id) and O(company_name) are used exactly as given. Control characters, invisible characters, and white space at either end
    are errors.
  - Of the settings of C(community.hashi_vault) those count that the lookup's documentation lists as C(ansible_hashi_vault_*)
    and E(ANSIBLE_HASHI_VAULT_*). Proxies, retries, C(retry_action), C(token_path), C(token_file) and C(validate_certs) do
    not; TLS is always verified.
requirements:
  - The Python package C(klearstack-vault), in the Python that runs Ansible.
"""

    PLUGINS = r"""
options:
  user_id:
    vars:
      - name: ansible_klearstack_user_id
    env:
      - name: KLEARSTACK_USER_ID
    ini:
      - section: klearstack
        key: user_id
  company_name:
    vars:
      - name: ansible_klearstack_company_name
    env:
      - name: KLEARSTACK_COMPANY_NAME
    ini:
      - section: klearstack
        key: company_name
  url:
    vars:
      - name: ansible_klearstack_url
    env:
      - name: KLEARSTACK_URL
    ini:
      - section: klearstack
        key: url
  ca_cert:
    vars:
      - name: ansible_klearstack_ca_cert
    env:
      - name: KLEARSTACK_CACERT
    ini:
      - section: klearstack
        key: ca_cert
  proxy:
    vars:
      - name: ansible_klearstack_proxy
    ini:
      - section: klearstack
        key: proxy
  no_proxy:
    vars:
      - name: ansible_klearstack_no_proxy
    ini:
      - section: klearstack
        key: no_proxy
  allow_plain_http:
    vars:
      - name: ansible_klearstack_allow_plain_http
    ini:
      - section: klearstack
        key: allow_plain_http
  vault_addr:
    vars:
      - name: ansible_hashi_vault_addr
      - name: ansible_hashi_vault_url
      - name: ansible_klearstack_vault_addr
    env:
      - name: ANSIBLE_HASHI_VAULT_ADDR
    ini:
      - section: klearstack
        key: vault_addr
  vault_namespace:
    vars:
      - name: ansible_hashi_vault_namespace
      - name: ansible_klearstack_vault_namespace
    env:
      - name: ANSIBLE_HASHI_VAULT_NAMESPACE
    ini:
      - section: klearstack
        key: vault_namespace
  vault_cacert:
    vars:
      - name: ansible_hashi_vault_ca_cert
      - name: ansible_klearstack_vault_cacert
    env:
      - name: ANSIBLE_HASHI_VAULT_CA_CERT
    ini:
      - section: klearstack
        key: vault_cacert
  vault_cacert_bytes:
    vars:
      - name: ansible_klearstack_vault_cacert_bytes
    ini:
      - section: klearstack
        key: vault_cacert_bytes
  vault_capath:
    vars:
      - name: ansible_klearstack_vault_capath
    ini:
      - section: klearstack
        key: vault_capath
  vault_tls_server_name:
    vars:
      - name: ansible_klearstack_vault_tls_server_name
    ini:
      - section: klearstack
        key: vault_tls_server_name
  vault_client_cert:
    vars:
      - name: ansible_klearstack_vault_client_cert
    ini:
      - section: klearstack
        key: vault_client_cert
  vault_client_key:
    vars:
      - name: ansible_klearstack_vault_client_key
    ini:
      - section: klearstack
        key: vault_client_key
  vault_proxy:
    vars:
      - name: ansible_klearstack_vault_proxy
    ini:
      - section: klearstack
        key: vault_proxy
  vault_timeout:
    vars:
      - name: ansible_klearstack_vault_timeout
    ini:
      - section: klearstack
        key: vault_timeout
  vault_max_retries:
    vars:
      - name: ansible_klearstack_vault_max_retries
    ini:
      - section: klearstack
        key: vault_max_retries
  vault_rate_limit:
    vars:
      - name: ansible_klearstack_vault_rate_limit
    ini:
      - section: klearstack
        key: vault_rate_limit
  auth:
    vars:
      - name: ansible_hashi_vault_auth_method
      - name: ansible_klearstack_auth
    env:
      - name: ANSIBLE_HASHI_VAULT_AUTH_METHOD
      - name: KLEARSTACK_VAULT_AUTH
    ini:
      - section: klearstack
        key: auth
  auth_mount:
    vars:
      - name: ansible_hashi_vault_mount_point
      - name: ansible_klearstack_auth_mount
    env:
      - name: ANSIBLE_HASHI_VAULT_MOUNT_POINT
      - name: KLEARSTACK_VAULT_AUTH_MOUNT
    ini:
      - section: klearstack
        key: auth_mount
  auth_role:
    vars:
      - name: ansible_klearstack_auth_role
    env:
      - name: KLEARSTACK_VAULT_AUTH_ROLE
    ini:
      - section: klearstack
        key: auth_role
  vault_jwt:
    vars:
      - name: ansible_hashi_vault_jwt
      - name: ansible_klearstack_vault_jwt
    env:
      - name: ANSIBLE_HASHI_VAULT_JWT
  vault_token:
    vars:
      - name: ansible_hashi_vault_token
      - name: ansible_klearstack_vault_token
    env:
      - name: ANSIBLE_HASHI_VAULT_TOKEN
  role_id:
    vars:
      - name: ansible_hashi_vault_role_id
      - name: ansible_klearstack_role_id
    env:
      - name: ANSIBLE_HASHI_VAULT_ROLE_ID
  secret_id:
    vars:
      - name: ansible_hashi_vault_secret_id
      - name: ansible_klearstack_secret_id
    env:
      - name: ANSIBLE_HASHI_VAULT_SECRET_ID
  mount:
    vars:
      - name: ansible_klearstack_mount
    env:
      - name: KLEARSTACK_VAULT_MOUNT
    ini:
      - section: klearstack
        key: mount
  path_prefix:
    vars:
      - name: ansible_klearstack_path_prefix
    env:
      - name: KLEARSTACK_VAULT_PATH_PREFIX
    ini:
      - section: klearstack
        key: path_prefix
  min_ttl:
    vars:
      - name: ansible_klearstack_min_ttl
    env:
      - name: KLEARSTACK_MIN_TTL
    ini:
      - section: klearstack
        key: min_ttl
  timeout:
    vars:
      - name: ansible_hashi_vault_timeout
      - name: ansible_klearstack_timeout
    env:
      - name: ANSIBLE_HASHI_VAULT_TIMEOUT
      - name: KLEARSTACK_TIMEOUT
    ini:
      - section: klearstack
        key: timeout
  deadline:
    vars:
      - name: ansible_klearstack_deadline
    env:
      - name: KLEARSTACK_DEADLINE
    ini:
      - section: klearstack
        key: deadline
  on_vault_error:
    vars:
      - name: ansible_klearstack_on_vault_error
    env:
      - name: KLEARSTACK_ON_VAULT_ERROR
    ini:
      - section: klearstack
        key: on_vault_error
  on_user_mismatch:
    vars:
      - name: ansible_klearstack_on_user_mismatch
    env:
      - name: KLEARSTACK_ON_USER_MISMATCH
    ini:
      - section: klearstack
        key: on_user_mismatch
"""
