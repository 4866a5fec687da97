"""The nodes of Vault: whether each is Vault, unsealed, and the active node or able to forward to it."""

from collections.abc import Iterator
from typing import Any

from vault_plugin.doctor.servers import is_open, way_to
from vault_plugin.doctor.verdicts import Level, Verdict, failed, ok, shown, skipped, warning
from vault_plugin.errors import StoreBusyError, StoreError
from vault_plugin.vault import schema
from vault_plugin.vault.connections import Response
from vault_plugin.vault.retries import SEALED, UNINITIALIZED, on_failure, on_other_server, on_response
from vault_plugin.vault.transport import Transport, TransportError, never

# With status 200 in each state; a node reports it without a token.
_HEALTH = "/v1/sys/health?standbyok=true&perfstandbyok=true&sealedcode=200&uninitcode=200&drsecondarycode=200"
# No auth method is mounted there. Only the active node can say so: a standby forwards each login.
_LOGIN = "/v1/auth/klearstack-vault-doctor/login"
_FORWARDING = "forwarding"
_HEADERS = {"X-Vault-Request": "true"}


def verdicts_on_node(
    where: str, transport: Transport, node: str, nodes: tuple[str, ...], seconds: float
) -> Iterator[Verdict]:
    """The way to a node, and its state. `transport` is for this node alone, which is one of the `nodes`."""
    peer = transport.peer(node)
    way = list(way_to(where, peer, lambda exc: on_failure(peer.explain(exc)).error_of(node), seconds))
    yield from way
    if not is_open(way):
        yield skipped(f"{where} state", "there is no connection")
        return
    try:
        response = transport.once("GET", _HEALTH, _HEADERS, None, seconds)
    except (TransportError, StoreBusyError) as exc:
        yield failed(f"{where} server", _error_of(exc, node))
        return
    verdict = on_response(response, node, _HEALTH, nodes, never)
    about = {} if verdict else _health(response)
    if verdict or not about.keys() & {"errors", "sealed"}:
        yield failed(f"{where} server", (verdict or on_other_server(response)).error_of(node))
        return
    version = about.get("version")
    yield ok(f"{where} server", f"it is Vault or OpenBao{f' {shown(version)}' if version else ''}.")
    yield from _on_state(where, about, node)
    if about.get("standby") is True and about.get("sealed") is False:
        yield _on_forwarding(f"{where} {_FORWARDING}", transport, node, nodes, seconds)


def _health(response: Response) -> dict[str, Any]:
    """What the node says about itself; empty if it is not in Vault's form."""
    try:
        found = schema.parsed(response.body)
    except schema.MalformedError:  # an empty response
        return {}
    return found if isinstance(found, dict) else {}


def _on_state(where: str, about: dict[str, Any], node: str) -> Iterator[Verdict]:
    check = f"{where} state"
    if "sealed" not in about:
        yield skipped(check, "it does not report its state")
    elif about.get("initialized") is False:
        yield failed(check, UNINITIALIZED.error_of(node))
    elif about["sealed"]:
        yield failed(check, SEALED.error_of(node))
    else:
        yield ok(check, f"it is unsealed, and {'a standby' if about.get('standby') else 'the active'} node.")


def _on_forwarding(
    check: str, transport: Transport, node: str, nodes: tuple[str, ...], seconds: float
) -> Verdict:
    """Whether a standby forwards requests to the active node, or redirects to one of the given nodes."""
    try:
        response = transport.once("POST", _LOGIN, _HEADERS, b"{}", seconds)
    except (TransportError, StoreBusyError) as exc:
        return failed(check, _error_of(exc, node))
    verdict = on_response(response, node, _LOGIN, nodes, never)
    if verdict is None:
        return ok(check, "it forwards requests to the active node.")
    if verdict.leader:
        return ok(check, f"it redirects requests to {verdict.leader}.")
    return failed(check, verdict.error_of(node))


def _error_of(exc: TransportError | StoreBusyError, node: str) -> StoreError:
    """What a command fails with for that reason; the rate limit of the settings names itself."""
    return exc if isinstance(exc, StoreBusyError) else exc.verdict.error_of(node)


def serves(verdicts: list[Verdict]) -> bool:
    """Whether the node can be asked, though a standby may not forward what only the active node can do."""
    return all(one.level is not Level.FAILED or one.check.endswith(_FORWARDING) for one in verdicts)


def tolerated(verdict: Verdict) -> Verdict:
    """The verdict where another node of the cluster serves all requests."""
    if verdict.level is not Level.FAILED:
        return verdict
    return warning(verdict.check, verdict.text, f"{verdict.remedy} Other nodes respond.".lstrip())
