"""What Vault means by a refusal, in our words: its own text may quote a claim, a role or a path."""

import re
from typing import NamedTuple

from vault_plugin.wording import named

_MOUNT, _ROLE = named("auth_mount"), named("auth_role")


class Refusal(NamedTuple):
    """Why a login failed, as a part of a sentence, and what to do next."""

    reason: str
    hint: str


# By what the auth methods of Vault and OpenBao say: the first one that is found counts.
_LOGINS = [
    (re.compile(pattern, re.IGNORECASE), Refusal(reason, hint))
    for pattern, reason, hint in (
        (
            r"no handler for route|route entry not found",
            "no auth method is mounted there",
            f"Check {_MOUNT}: `vault auth list` shows what is mounted.",
        ),
        (
            r"could not load (backend )?configuration",
            "its auth method is mounted, but not configured",
            "Have it configured: `vault write auth/MOUNT/config`.",
        ),
        (
            r"role \S+ could not be found|invalid role name",
            "the auth method has no role of that name",
            f"Check {_ROLE} and {_MOUNT}.",
        ),
        (
            r"missing role(?!_)",
            "no role was named, and the mount has no default role",
            f"Name it with {_ROLE}.",
        ),
        (
            r"no audiences bound",
            "the JWT is for an audience (aud), and the role has no bound_audiences",
            "Have the audience of the JWT added to the role.",
        ),
        (
            r"audience",
            "the role does not accept the audience of the JWT (aud)",
            "Request the JWT for an audience that the role has in its bound_audiences (kubernetes: audience).",
        ),
        (
            r"role_type",
            "the role is for logins in a browser, and not for a JWT (role_type)",
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
            "what was given as a JWT is none",
            f"Check {named('vault_jwt')}.",
        ),
        (
            r"signature|no known key",
            "no key of the auth method verifies the signature of the JWT",
            "Is the JWT of the issuer that the auth method trusts?",
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
            f"Check both: a secret id may have expired, be used up, or be another role's. Check {_MOUNT}, too.",
        ),
        (r"missing (role_id|secret_id)", "the role id or the secret id is empty", "Check both."),
        (
            r"CIDR|source address",
            "the role accepts no login from this host's address",
            "Have its CIDRs changed.",
        ),
        (
            r"(namespace|service account name) not authorized",
            "the role does not accept the namespace or the service account of the pod",
            f"Compare both with the role, and check {_ROLE}.",
        ),
        (
            r"permission denied",
            "permission denied, which is all that it says",
            f"Check that an auth method is mounted at {_MOUNT}, and that credential and role are valid from this host.",
        ),
    )
]
_UNKNOWN = Refusal("for none of the known reasons", f"Vault's own log says more. Check {_MOUNT} and {_ROLE}.")

# What a policy has to allow, by method.
_CAPABILITIES = {"GET": "read", "LIST": "list", "DELETE": "delete", "PATCH": "patch"}


def of_login(errors: list[str]) -> Refusal:
    """Why a login failed, by the errors that Vault lists."""
    told = " ".join(errors)
    return next((refusal for pattern, refusal in _LOGINS if pattern.search(told)), _UNKNOWN)


def of_mount(mount: str, prefix: str) -> Refusal:
    """Why Vault does not describe a mount, as a sentence: a limited token gets one answer for a denied mount and for none."""
    return Refusal(
        f"Vault denied permission to look at the mount {mount}, or no secrets engine is mounted at {mount}: it answers "
        "both alike (403).",
        f"Give the policy of the Vault token access to {mount}/{prefix} (README shows the policy; {named('verbose')} "
        f"names the request and the capability), or check {named('mount')}: `vault secrets list` shows what is mounted.",
    )


def capability(method: str, path: str) -> str:
    """The capability of a policy that a request needs. KV v2's data are written after the metadata, so never created."""
    if path.startswith("/v1/sys/internal/ui/mounts/"):
        return "any capability below the mount"
    return _CAPABILITIES.get(method, "update" if "/data/" in path else "create and update")
