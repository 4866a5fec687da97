"""What to do after a request to Vault failed: send it again, to which node, or give up.

A table gives the verdict on each response and each cause of a failed connection; `Attempts` adds them up.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from math import inf
from typing import NamedTuple

from vault_plugin.errors import StoreBusyError, StoreError, StoreSettingsError
from vault_plugin.failures import ALLOW, CLOCK, DATES, OTHER_NAME
from vault_plugin.network.causes import Cause, ConnectionFailure
from vault_plugin.timing.backoff import full_jitter
from vault_plugin.timing.deadline import Deadline
from vault_plugin.vault import not_vault
from vault_plugin.vault.connections import Response
from vault_plugin.vault.not_vault import Redirect, place_of
from vault_plugin.wording import named

# A node is given up when its verdicts add up to FINAL. A node without a listener gets 8 tries, which take about 2 s: a
# cluster that elects a new leader responds within that time, one that is down does not.
FINAL = 8
SECOND_IS_FINAL = 4
NOBODY_LISTENS = 1
TRANSIENT = 0

_ADDRESS, _CA = named("vault_addr"), named("vault_cacert")
_CLIENT = f"{named('vault_client_cert')} and {named('vault_client_key')}"
_REACH = f"Check {_ADDRESS}, and that Vault is running there."
_PROXIES = f"{named('vault_proxy')} or {named('proxy')}"
_NOT_THROUGH = f"Check {_PROXIES}, or exclude Vault from the latter with {named('no_proxy')}."
_LOG = "See Vault's server log."


class PermanentError(StoreError):
    """The status 500 concerns this request alone, and further tries cannot help."""

    for_all = False


class Verdict(NamedTuple):
    """What a try without a result means.

    `reason` is part of a sentence, `error` what the caller gets if this try was the last one, and `weight` counts towards
    FINAL. `ambiguous`: the request may have been carried out. `stays`: the same node is tried again. `leader` is the
    address of the node that the response names. `is_quota`: Vault's rate limit quota is exceeded, and the limiter
    knows when to send the request again.
    """

    reason: str
    hint: str = _REACH
    error: type[StoreError] = StoreError
    weight: int = TRANSIENT
    ambiguous: bool = False
    stays: bool = False
    leader: str = ""
    is_quota: bool = False

    def error_of(self, node: str) -> StoreError:
        """The error for a request to that node."""
        return self.error(f"The request to Vault at {node} failed: {self.reason}.", hint=self.hint)


LAGGING = Verdict("it has not yet applied an earlier write (status {status})", "Try again.")
QUOTA = Verdict(
    "its rate limit quota is exceeded (status {status})",
    "Try again later, or ask for a higher rate limit quota.",
    StoreBusyError,
    stays=True,
    is_quota=True,
)
SEALED = Verdict("it is sealed", "Unseal Vault.", weight=FINAL)
UNINITIALIZED = Verdict("it is not initialized", "Initialize Vault.", weight=FINAL)
OWN_LIMIT = Verdict(
    "the rate limit of the settings leaves no time for it before the deadline",
    f"Raise {named('vault_rate_limit')} or {named('deadline')}.",
    StoreBusyError,
)
_PERMANENT = Verdict("status {status}", _LOG, PermanentError, SECOND_IS_FINAL, ambiguous=True)


def _is_page(response: Response) -> bool:
    return not_vault.is_page(response.headers, response.body)


# The first row that matches a response counts. `{status}` stands for its status.
_RESPONSES: tuple[tuple[Callable[[Response], bool], Verdict], ...] = (
    (lambda response: response.status == 429, QUOTA),
    (
        # A standby takes a second to set up a new KV engine.
        lambda response: response.status == 400 and b"from non-versioned to versioned" in response.body,
        Verdict("its KV secrets engine is still being set up", "Try again.", StoreBusyError, stays=True),
    ),
    (
        lambda response: response.status == 503 and not _is_page(response) and b"sealed" in response.body,
        SEALED,
    ),
    (
        lambda response: response.status == 501 and not _is_page(response),
        UNINITIALIZED,
    ),
    (
        lambda response: response.status >= 500 and _is_page(response),
        Verdict("status {status} with an HTML page, as a proxy or load balancer sends it", ambiguous=True),
    ),
    (lambda response: response.status >= 500, Verdict("status {status}", _LOG, ambiguous=True)),
)

_NOBODY = {Cause.REFUSED, Cause.NO_SOCKET, Cause.PROXY_REFUSED}
_HINTS = {
    Cause.CERTIFICATE: f"Name its CA's PEM file with {_CA}; verification cannot be turned off.",
    Cause.CLIENT_CERTIFICATE: f"Check {_CLIENT}.",
    Cause.FILES: f"Check {_CA}, {named('vault_cacert_bytes')}, {named('vault_capath')}, {_CLIENT}.",
    Cause.PERMISSION: "Give this user access to the unix socket, or allow the connection in this host's firewall or security module.",
    Cause.SCHEME: f"Correct the scheme in {_ADDRESS}.",
    Cause.PROXY_DENIES: f"Have it allow CONNECT to that host and port. {_NOT_THROUGH}",
    Cause.PROXY_FAILS: f"{_REACH} The proxy has to reach it, not this host.",
    Cause.PROXY_FOREIGN: _NOT_THROUGH,
    Cause.PROXY_LOGIN: f"Put user and password into its URL, in a variable of {_PROXIES}: http://user:password@host:port.",
    Cause.PROXY_PERMISSION: ALLOW,
    **dict.fromkeys(
        (
            Cause.PROXY_BROKEN,
            Cause.PROXY_ERROR,
            Cause.PROXY_NAME,
            Cause.PROXY_REFUSED,
            Cause.PROXY_TIMEOUT,
            Cause.PROXY_UNREACHABLE,
        ),
        f"Check {_PROXIES}.",
    ),
}


def on_response(
    response: Response,
    node: str,
    path: str,
    addresses: Sequence[str],
    is_permanent: Callable[[Response], bool],
) -> Verdict | None:
    """The verdict on a response of `node`, one of the `addresses`; None if it is the result of the request."""
    status = response.status
    if 300 <= status < 400:
        return _on_redirect(Redirect.of(status, response.headers, node, path), addresses)
    if status == 500 and is_permanent(response):
        return with_status(_PERMANENT, status)
    for matches, verdict in _RESPONSES:
        if matches(response):
            return with_status(verdict, status)
    return None if not_vault.is_of_vault(status, response.body) else on_other_server(response)


def on_other_server(response: Response) -> Verdict:
    """The verdict on a server that is not Vault."""
    reason = not_vault.described(response.status, response.headers, response.body)
    return Verdict(reason, not_vault.advice(response.status), StoreSettingsError, FINAL)


def on_failure(failure: ConnectionFailure) -> Verdict:
    """The verdict on a failed connection."""
    hint = _HINTS.get(failure.cause, _REACH)
    if failure.cause is Cause.CERTIFICATE and failure.number in DATES:
        hint = CLOCK
    elif failure.cause is Cause.CERTIFICATE and failure.number in OTHER_NAME:
        hint = f"Check {_ADDRESS}, or give the name in the certificate with {named('vault_tls_server_name')}."
    weight = NOBODY_LISTENS if failure.cause in _NOBODY else TRANSIENT
    return Verdict(
        str(failure),
        hint,
        StoreSettingsError if failure.misconfigured else StoreError,
        FINAL if failure.final else weight,
        ambiguous=not failure.final,
    )


def with_status(verdict: Verdict, status: int) -> Verdict:
    """The verdict, with the status in its reason."""
    return verdict._replace(reason=verdict.reason.format(status=status))


def _on_redirect(redirect: Redirect, addresses: Sequence[str]) -> Verdict:
    """The verdict on a redirect, which may follow a request that was carried out: a standby may send it then."""
    leader = next((address for address in addresses if place_of(address) == redirect.place), "")
    if redirect.host and leader:
        reason = f"it redirects to {redirect.host}, which does not respond"
        return Verdict(reason, ambiguous=True, leader=leader)
    if not redirect.standby:
        return Verdict(str(redirect), redirect.advice, StoreSettingsError, FINAL)
    where = f" to {redirect.host}, which is none of the given nodes" if redirect.host else ""
    return Verdict(
        f"it redirects{where}, and redirects are not followed with a Vault token",
        f"Give all nodes of the cluster in {_ADDRESS}, separated by commas." if where else _REACH,
        StoreSettingsError,
        SECOND_IS_FINAL,
        ambiguous=True,
    )


class Attempts:
    """The failed tries of one request; `last` is the error of the newest one."""

    def __init__(self, addresses: Sequence[str], *, repeatable: bool, max_retries: int | None = None) -> None:
        """`max_retries`: how many further tries there may be; None for as many as the deadline allows."""
        self.last: StoreError | None = None
        self._addresses = addresses
        self._repeatable = repeatable
        self._retries_left = inf if max_retries is None else max_retries
        self._weights: Counter[str] = Counter()
        self._delays = full_jitter(0.1, 1.0)

    def note(self, node: str, verdict: Verdict) -> StoreError:
        """Count a failed try; its error. Raises it if there may be no further try."""
        error = verdict.error_of(node)
        error.unrepeatable = not self._repeatable
        self.last = error
        if not verdict.leader:  # following a redirect is a part of the same try
            self._retries_left -= 1
        if self._retries_left < 0:
            raise error
        return error

    def delay(self, node: str, verdict: Verdict, deadline: Deadline) -> float:
        """Seconds to wait before the next try. Raises StoreError if there is none."""
        error = self.note(node, verdict)
        leader_failed = verdict.leader and self._weights[verdict.leader] >= FINAL
        self._weights[node] += FINAL if leader_failed else verdict.weight
        delay = max(next(self._delays), 0.05 if verdict.stays else 0.0)
        hopeless = all(self._weights[address] >= FINAL for address in self._addresses)
        if hopeless or not deadline.permits(delay) or (verdict.ambiguous and not self._repeatable):
            raise error
        return delay
