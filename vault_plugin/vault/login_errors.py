"""Why Vault rejected a login, in our words: its own text may quote a claim, a role or a path."""

import re
from typing import NamedTuple

from vault_plugin.wording import named

_MOUNT, _ROLE = named("auth_mount"), named("auth_role")


class LoginError(NamedTuple):
    """Why a login failed, as part of a sentence, and what to do next."""

    reason: str
    hint: str


# By the errors of the auth methods of Vault and OpenBao; the first pattern that is found counts.
_ERRORS = [
    (re.compile(pattern, re.IGNORECASE), LoginError(reason, hint))
    for pattern, reason, hint in (
        (
            r"namespace not found",
            "there is no such namespace",
            f"Check {named('auth_namespace')}, or {named('vault_namespace')}, which is its default.",
        ),
        (
            r"no handler for route|route entry not found",
            "no auth method is mounted there",
            f"Check {_MOUNT}: `vault auth list` shows what is mounted.",
        ),
        (
            r"invalid username or password|unsupported path",
            "the user name or the password is wrong",
            f"Check {named('auth_username')} and {named('vault_password')}. Too many wrong ones may lock the user.",
        ),
        (
            r"error connecting to host|LDAP Result Code 200",
            "Vault cannot reach the LDAP server",
            "Check the `url` in the configuration of the auth method.",
        ),
        (
            r"ldap operation failed|failed to bind",
            "the LDAP server does not accept the user name or the password",
            f"Check {named('auth_username')} and {named('vault_password')}, and `userdn` and `userattr` of the auth method.",
        ),
        (
            r"no client certificate found|tls connection required",
            "the connection has no TLS, or brings no client certificate to Vault",
            f"Use https:// in {named('vault_addr')}. A load balancer that ends TLS withholds the certificate.",
        ),
        (
            r"invalid certificate|failed to match all constraints",
            "no role of the auth method accepts the client certificate",
            f"Compare the certificate with the roles: `vault list auth/MOUNT/certs`. Check {_ROLE} and {_MOUNT}.",
        ),
        (
            r"missing name in alias",
            "the client certificate has no common name (CN), by which Vault names the login",
            f"Check {named('vault_client_cert')}.",
        ),
        (
            r"could not load (backend )?configuration",
            "its auth method is mounted, but not configured",
            "Configure it: `vault write auth/MOUNT/config`.",
        ),
        (
            r"role \S+ could not be found|invalid role name",
            "the auth method has no role of that name",
            f"Check {_ROLE} and {_MOUNT}.",
        ),
        (
            r"missing role(?!_)",
            "no role is given, and the mount has no default role",
            f"Set {_ROLE}.",
        ),
        (
            r"no audiences bound",
            "the JWT has an audience (aud), but the role has no bound_audiences",
            "Add the audience of the JWT to the role.",
        ),
        (
            r"audience",
            "the role does not accept the audience of the JWT (aud)",
            "Request the JWT for an audience that the role has in its bound_audiences (kubernetes: audience).",
        ),
        (
            r"role_type",
            "the role is for logins in a browser and not for a JWT (role_type)",
            f"Check {_ROLE}.",
        ),
        (
            r"\(sub\)",
            "the role does not accept the subject of the JWT (sub)",
            "Compare it with the bound_subject of the role.",
        ),
        (
            r"\(iss\)|issuer",
            "the auth method does not accept the issuer of the JWT (iss)",
            "Compare it with the bound_issuer of the auth method.",
        ),
        (
            r"expired|expiration",
            "the JWT has expired",
            "Request a new one; if it is new, compare the clocks of its issuer and of Vault.",
        ),
        (
            r"not yet valid|not before|issued at|\(iat\)",
            "the JWT is not yet valid",
            "Compare the clocks of its issuer and of Vault.",
        ),
        (
            r"malformed|parsing|illegal base64",
            "the given value is not a JWT",
            f"Check {named('vault_jwt')}.",
        ),
        (
            r"signature|no known key",
            "no key of the auth method verifies the signature of the JWT",
            "Check that the auth method trusts the issuer of the JWT.",
        ),
        (r"missing token", "the JWT is empty", f"Check {named('vault_jwt')}."),
        (
            r"could not be (converted|parsed)|error converting claim|is not a string",
            "a claim of the JWT has another type than the role expects",
            "Compare the types of its claims with the role: text, number, list.",
        ),
        (
            r"claim.*(is missing|not found)",
            "the JWT lacks a claim that the role needs",
            "Compare its claims with bound_claims, user_claim and groups_claim of the role.",
        ),
        (
            r"bound claim",
            "a claim of the JWT does not have a value that the role accepts",
            "Compare its claims, values and types, with the bound_claims of the role.",
        ),
        (
            r"invalid (role|secret)",
            "it does not accept the role id or the secret id",
            f"Check both: a secret id may have expired, be used up or belong to another role. Also check {_MOUNT}.",
        ),
        (r"missing (role_id|secret_id)", "the role id or the secret id is empty", "Check both."),
        (
            r"CIDR|source address",
            "the role accepts no login from this host's address",
            "Add the address to its CIDRs.",
        ),
        (
            r"(namespace|service account name) not authorized",
            "the role does not accept the namespace or the service account of the pod",
            f"Compare both with the role, and check {_ROLE}.",
        ),
        (
            r"permission denied",
            "permission denied, without a reason",
            f"Check that an auth method is mounted at {_MOUNT}, and that credential and role are valid for this host.",
        ),
    )
]
_UNKNOWN = LoginError("for an unknown reason", f"See Vault's server log. Check {_MOUNT} and {_ROLE}.")

# Words of errors that concern the node, such as one without a leader, and not the login.
_OF_THE_NODE = (
    "active",
    "leader",
    "sealed",
    "standby",
    "raft",
    "internal error",
    "context",
    "timeout",
    "connect",
)


def explained(errors: list[str]) -> LoginError:
    """Why a login failed, by the errors that Vault lists."""
    text = " ".join(errors)
    return next((error for pattern, error in _ERRORS if pattern.search(text)), _UNKNOWN)


def is_about_the_request(errors: list[str]) -> bool:
    """Whether a status 500 is about the login's credential or the auth method's configuration, and not about the node."""
    text = " ".join(errors).lower()
    return bool(text) and not any(word in text for word in _OF_THE_NODE)
