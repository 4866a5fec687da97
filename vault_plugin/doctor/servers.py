"""The way to a server, by the connection that a command would make: proxy, name, connection, TLS."""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress

from vault_plugin.doctor.verdicts import Level, Verdict, failed, ok, skipped, warning
from vault_plugin.errors import KlearstackVaultError
from vault_plugin.network.causes import Cause, failure_of
from vault_plugin.network.peer import LocalPeer, Peer
from vault_plugin.network.sockets import resolved, within
from vault_plugin.network.tls import Certificate, verified_chain
from vault_plugin.timing.clock import format_rfc3339
from vault_plugin.timing.deadline import Deadline

SOON = 14 * 86400.0  # seconds before a certificate expires
# Which step fails by which cause; all others fail to connect.
_STEPS = {
    Cause.NAME: "name",
    Cause.CERTIFICATE: "TLS",
    Cause.CLIENT_CERTIFICATE: "TLS",
    Cause.FILES: "TLS",
    Cause.TLS: "TLS",
    **{cause: "proxy" for cause in Cause if cause.name.startswith("PROXY_")},
}


def way_to(
    where: str, peer: Peer, explain: Callable[[Exception], KlearstackVaultError], seconds: float
) -> Iterator[Verdict]:
    """What each step of a connection to that server led to. The last verdict is a failure if there is no connection."""
    deadline = Deadline(seconds)
    with within(deadline):
        if peer.proxy is not None:
            yield skipped(f"{where} name", f"the proxy {peer.proxy} resolves it")
        elif not isinstance(peer, LocalPeer):
            yield ok(f"{where} proxy", "none is used.")
            yield from _on_name(f"{where} name", peer)
        try:
            with peer.connect() as connection:
                chain = verified_chain(connection)
        except OSError as exc:
            step = _STEPS.get(failure_of(exc).cause, "connection")
            if step == "TLS":
                yield ok(f"{where} connection", "established.")
            yield failed(f"{where} {step}", explain(exc))
            return
    through = f" through the proxy {peer.proxy}" if peer.proxy else ""
    yield ok(f"{where} connection", f"established{through}.")
    yield _on_chain(f"{where} TLS", chain, time.time())


def _on_name(check: str, peer: Peer) -> Iterator[Verdict]:
    """What the name resolves to. If it does not, the connection fails for that reason."""
    with suppress(OSError):
        addresses = dict.fromkeys(str(found[4][0]) for found in resolved(peer.host, peer.port))
        found = "is an address" if peer.host in addresses else f"resolves to {', '.join(addresses)}"
        yield ok(check, f"{peer.host} {found}.")


def _on_chain(check: str, chain: list[Certificate], now: float) -> Verdict:
    if not chain:
        return skipped(check, "the connection has no TLS")
    issuers = ", ".join(one.subject for one in chain[1:]) or "itself"
    first = min(chain, key=lambda one: one.not_after)
    text = (
        f"the certificate of {chain[0].subject} verifies by {issuers}; "
        f"the first of the chain to expire is that of {first.subject}, at {format_rfc3339(int(first.not_after))}."
    )
    if first.not_after - now < SOON:
        return warning(check, text, "Have it renewed before that.")
    return ok(check, text)


def is_open(verdicts: list[Verdict]) -> bool:
    """Whether the way to the server led to a connection."""
    return all(verdict.level is not Level.FAILED for verdict in verdicts)
