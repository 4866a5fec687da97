"""KlearStack's endpoint: whether it responds, asked by a request that cannot mint."""

from collections.abc import Iterator

from vault_plugin.doctor.servers import is_open, way_to
from vault_plugin.doctor.verdicts import Verdict, failed, ok, skipped, warning
from vault_plugin.endpoint.client import EndpointSource
from vault_plugin.errors import Failure, KlearstackVaultError
from vault_plugin.timing.deadline import Deadline

_RESPONSE = "endpoint response"


def verdicts_on_endpoint(source: EndpointSource, seconds: float) -> Iterator[Verdict]:
    """The way to the endpoint, and its response to a request without an identity."""
    way = list(way_to("endpoint", source.peer, source.explain, seconds))
    yield from way
    if not is_open(way):
        yield skipped(_RESPONSE, "there is no connection")
        return
    try:
        failure = source.probe(Deadline(seconds))
    except KlearstackVaultError as exc:
        yield failed(_RESPONSE, exc)
    else:
        yield _on_failure(failure)


def _on_failure(failure: Failure | None) -> Verdict:
    """The verdict on how the endpoint rejects a request without an identity."""
    if failure is None:
        return warning(
            _RESPONSE,
            "it responds to a request without an identity as if there were one.",
            "Report this to KlearStack.",
        )
    if failure.cause.startswith("parameter"):
        return ok(
            _RESPONSE, "it rejects a request without an identity as documented (no token was requested)."
        )
    if failure.number == 500:
        return warning(
            _RESPONSE,
            "it responds with status 500 to a request without an identity, and not as documented.",
            "Request a token to find out whether it works: `klearstack-vault get`.",
        )
    return ok(
        _RESPONSE,
        f"it rejects a request without an identity (status {failure.number}; no token was requested).",
    )
