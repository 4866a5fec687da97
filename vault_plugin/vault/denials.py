"""What is wrong with a Vault token that was denied a request, as far as Vault tells."""

from hvac.exceptions import Forbidden, VaultError

from vault_plugin.errors import StoreError, StoreRefusedError
from vault_plugin.network.library_logs import unlogged
from vault_plugin.timing.deadline import Deadline
from vault_plugin.vault import wrapping
from vault_plugin.vault.auth import Login
from vault_plugin.vault.hvac_adapter import Limits
from vault_plugin.vault.hvac_errors import DeniedError, UnknownTokenError, is_policys
from vault_plugin.wording import named

_NO_TOKEN = (
    f"The request had no Vault token, as {named('auth')} says: check that {named('vault_addr')} is that of Vault Agent or "
    "Vault Proxy, and that its auto-auth works and `use_auto_auth_token` is set."
)
WRAPPING = (
    "The Vault token is a wrapping token, which contains a response of Vault: get the Vault token out of it with "
    "`vault unwrap -field=token`."
)
_USED_UP = (
    "The Vault token was valid for a single request, and that one has been denied: it is a wrapping token (get the Vault "
    "token out of a new one with `vault unwrap -field=token`) or has a limited number of uses."
)


class Denials:
    """Explains denials to one login. Safe among threads. It asks Vault about a token once, unless threads ask at once."""

    def __init__(self, login: Login, auth: str) -> None:
        self._login = login
        self._auth = auth
        self._known: tuple[str, str] = "", ""  # a token, and what is wrong with it

    def explained(
        self, denial: StoreRefusedError, token: str, recognized: bool, deadline: Deadline
    ) -> StoreRefusedError:
        """The denial, with a better hint if there is one; `recognized`: Vault has known the token a moment ago."""
        is_unknown = isinstance(denial, UnknownTokenError)
        hint = ""
        if self._auth == "none":
            hint = _NO_TOKEN if is_unknown else ""
        elif self._auth == "token" and isinstance(denial, DeniedError | UnknownTokenError):
            known = self._known  # which another thread may replace, by what is wrong with another token
            if known[0] != token:
                known = self._known = token, self._fault(token, is_unknown, recognized, deadline)
            hint = known[1]
        return UnknownTokenError(str(denial.args[0]), hint=hint) if hint else denial

    def _fault(self, token: str, is_unknown: bool, recognized: bool, deadline: Deadline) -> str:
        """What is wrong with the token; empty if Vault does not say.

        A denied request uses a wrapping token up, like any other: then Vault does not know it any more.
        """
        limits = Limits(deadline.half())
        try:
            with unlogged():
                if wrapping.is_wrapping_token(self._login.adapter("", limits), token):
                    return WRAPPING
                if is_unknown:
                    return _USED_UP if recognized else ""
                self._login.adapter(token, limits).get("/v1/auth/token/lookup-self")
        except Forbidden as exc:
            return "" if is_policys(exc) else _USED_UP
        except (VaultError, StoreError):
            pass
        return ""
