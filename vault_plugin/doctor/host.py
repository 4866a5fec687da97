"""This host: its lock folder, and its clock compared with those of the servers."""

import time
from collections.abc import Iterator

from vault_plugin.doctor.verdicts import Verdict, failed, ok, skipped, warning
from vault_plugin.errors import KlearstackVaultError
from vault_plugin.locks.singleflight import SingleFlight
from vault_plugin.timing.clock import MAX_SKEW, ServerClock
from vault_plugin.timing.deadline import Deadline

# Seconds by which ServerClock may be ahead of the server: a `Date` has whole seconds.
_RESOLUTION = 1.0
_KEY = "klearstack-vault doctor"


def verdict_on_locks(folder: str | None, deadline: Deadline) -> Verdict:
    """Whether a lock can be acquired in the lock folder, as each mint does."""
    check = "lock folder"
    try:
        with SingleFlight(folder).lock(_KEY, deadline) as handle:
            unlocked = handle.unlocked
    except KlearstackVaultError as exc:
        return failed(check, exc)
    if unlocked is not None:
        return warning(
            check,
            f"{unlocked} Without locks, several processes of this host may mint at the same time, and KV v1 is refused.",
            unlocked.hint,
        )
    return ok(check, "a lock can be acquired.")


def verdicts_on_clocks(vault: ServerClock, endpoint: ServerClock) -> Iterator[Verdict]:
    """The clocks of both servers, compared with this host's and with each other."""
    skews = {}
    for name, clock in (("Vault", vault), ("the endpoint", endpoint)):
        check = f"clock of {name}"
        if not clock.measured:
            yield skipped(check, "no response shows its time")
            continue
        skews[name] = clock.now() - time.time() - _RESOLUTION / 2
        yield _on_skew(
            check,
            skews[name],
            "this host's",
            "Set this host's clock (NTP): certificates and JWTs to log in with depend on it.",
        )
    if len(skews) == 2:
        yield _on_skew(
            "clocks of both servers",
            skews["Vault"] - skews["the endpoint"],
            "the endpoint's",
            "Have both synchronized (NTP): otherwise tokens are deleted too early, or count as younger than they are.",
            "Vault's",
        )


def _on_skew(check: str, skew: float, other: str, remedy: str, one: str = "it") -> Verdict:
    how = "ahead of" if skew > 0 else "behind"
    if abs(skew) > MAX_SKEW:
        return warning(check, f"{one} is {abs(skew):.0f} s {how} {other}.", remedy)
    return ok(check, f"{one} agrees with {other} within {MAX_SKEW:.0f} s.")
