"""The cause of a failed login, by the errors of OpenBao 2.7 and Vault, never in their words."""

from hypothesis import given
from hypothesis import strategies as st

from vault_plugin.vault.login_errors import _ERRORS, _UNKNOWN, explained

AUDIENCE = "the role does not accept the audience of the JWT (aud)"
TYPE = "a claim of the JWT has another type than the role expects"
SAID = {
    'no handler for route "auth/jwt/login". route entry not found.': "no auth method is mounted there",
    "could not load configuration": "its auth method is mounted, but not configured",
    "could not load backend configuration": "its auth method is mounted, but not configured",
    'role "CANARY" could not be found': "the auth method has no role of that name",
    'invalid role name "CANARY"': "the auth method has no role of that name",
    "missing role": "no role is given, and the mount has no default role",
    "error validating token: invalid audience (aud) claim: audience claim does not match any expected audience": AUDIENCE,
    "invalid audience (aud) claim: audience claim does not match any bound audience": AUDIENCE,
    "audience claim found in JWT but no audiences bound to the role": "the JWT has an audience (aud), but the role has no bound_audiences",
    "error validating token: invalid subject (sub) claim": "the role does not accept the subject of the JWT (sub)",
    "error validating token: invalid issuer (iss) claim": "the auth method does not accept the issuer of the JWT (iss)",
    "error validating token: invalid expiration time (exp) claim: token is expired": "the JWT has expired",
    "error validating token: invalid not before (nbf) claim: token not yet valid": "the JWT is not yet valid",
    "error validating token: error verifying token signature: failed to verify id token signature": "no key of the auth method verifies the signature of the JWT",
    "error validating token: error verifying token signature: oidc: malformed jwt: illegal base64 data at input byte 0": "the given value is not a JWT",
    "missing token": "the JWT is empty",
    'error validating claims: claim "CANARY" is missing': "the JWT lacks a claim that the role needs",
    'claim "CANARY" not found in token': "the JWT lacks a claim that the role needs",
    'failed to fetch groups: "CANARY" claim not found in token': "the JWT lacks a claim that the role needs",
    'error validating claims: claim "CANARY" does not match any associated bound claim values': "a claim of the JWT does not have a value that the role accepts",
    "error validating claims: received claim is not a string, bool, int or list: map[a:CANARY]": TYPE,
    'claim "CANARY" could not be converted to string': TYPE,
    "value CANARY in groups claim could not be parsed as string": TYPE,
    "error converting claim 'CANARY' to string": TYPE,
    "role with oidc role_type is not allowed": "the role is for logins in a browser and not for a JWT (role_type)",
    "invalid role or secret ID": "it does not accept the role id or the secret id",
    "invalid secret id": "it does not accept the role id or the secret id",
    "missing role_id": "the role id or the secret id is empty",
    'source address "10.1.2.3" unauthorized by CIDR restrictions on the role': "the role accepts no login from this host's address",
    "namespace not authorized": "the role does not accept the namespace or the service account of the pod",
    "service account name not authorized": "the role does not accept the namespace or the service account of the pod",
    "invalid username or password": "the user name or the password is wrong",
    '1 error occurred:\n\t* error connecting to host "ldap://CANARY": LDAP Result Code 200 "Network Error"': "Vault cannot reach the LDAP server",
    "ldap operation failed: failed to bind as user": "the LDAP server does not accept the user name or the password",
    "no client certificate found": "the connection has no TLS, or brings no client certificate to Vault",
    "invalid certificate or no client certificate supplied": "no role of the auth method accepts the client certificate",
    "missing name in alias": "the client certificate has no common name (CN), by which Vault names the login",
    "permission denied": "permission denied, without a reason",
    "namespace not found": "there is no such namespace",
}


def test_each_cause_is_distinguished() -> None:
    for error, reason in SAID.items():
        found = explained([error])
        assert found.reason == reason, error
        assert "CANARY" not in "".join(found), error
        assert found.hint.endswith((".", "?")), error


def test_each_cause_was_observed_on_a_server() -> None:
    assert {explained([error]) for error in SAID} == {found for _, found in _ERRORS}


@given(st.lists(st.text(max_size=40), max_size=3))
def test_any_errors_are_explained(errors: list[str]) -> None:
    assert explained(errors).reason
    assert explained([]) == _UNKNOWN
