"""The whole examination: which checks there are, in which order, and which are left out after a failure."""

from collections.abc import Iterator
from typing import cast

from vault_plugin.app import REVOKE_TIMEOUT, parts_of
from vault_plugin.doctor.access import Access
from vault_plugin.doctor.endpoint import verdicts_on_endpoint
from vault_plugin.doctor.host import verdict_on_locks, verdicts_on_clocks
from vault_plugin.doctor.nodes import serves, tolerated, verdicts_on_node
from vault_plugin.doctor.origins import verdicts_on_settings
from vault_plugin.doctor.verdicts import Level, Verdict, failed, skipped
from vault_plugin.doctor.writing import verdict_on_writing
from vault_plugin.endpoint.client import EndpointSource
from vault_plugin.errors import StoreError
from vault_plugin.settings import Settings
from vault_plugin.settings.declarations import ORIGINS
from vault_plugin.settings.gathering import Survey
from vault_plugin.settings.origin import Group
from vault_plugin.timing.clock import ServerClock
from vault_plugin.timing.deadline import Deadline
from vault_plugin.tokens.identity import Identity

_INVALID = "its settings are invalid"
_LATE = "the deadline passed"


class Examination:
    """The checks of one set of settings. Nothing is minted, and nothing is written to Vault unless `write_test` is set."""

    def __init__(self, survey: Survey, *, write_test: bool) -> None:
        self._survey = survey
        self._settings = Settings(**survey.values)
        self._deadline = survey.deadline
        self._write_test = write_test
        wrong = survey.error.settings if survey.error else frozenset()
        self._invalid = {ORIGINS[name].group for name in wrong}
        if "proxy" in wrong and self._settings.vault_proxy is None:  # whose default it is
            self._invalid.add(Group.VAULT_CONNECTION)
        self._vault_clock, self._endpoint_clock = ServerClock(), ServerClock()

    def verdicts(self) -> Iterator[Verdict]:
        """All verdicts, each as soon as it is known."""
        yield from verdicts_on_settings(self._survey)
        yield verdict_on_locks(self._settings.lock_dir, Deadline(self._seconds()))
        if self._seconds():
            yield from self._endpoint()
        else:
            yield skipped("endpoint", _LATE)
        reachable: list[str] = []
        yield from self._nodes(reachable)
        yield from verdicts_on_clocks(self._vault_clock, self._endpoint_clock)
        if not reachable:
            yield skipped("Vault login and KV mount", "no node of Vault can be asked")
        elif self._invalid & {Group.VAULT_LOGIN, Group.VAULT_STORAGE}:
            yield skipped("Vault login and KV mount", _INVALID)
        elif not self._seconds():
            yield skipped("Vault login and KV mount", _LATE)
        else:
            yield from self._access()

    def _seconds(self, timeout: float | None = None) -> float:
        """The time for one request, with another timeout than the general one if it is given."""
        return min(timeout or self._settings.timeout, self._deadline.left())

    def _endpoint(self) -> Iterator[Verdict]:
        if Group.ENDPOINT in self._invalid:
            yield skipped("endpoint", _INVALID)
            return
        with parts_of(self._settings.replace(vault_addr=self._settings.vault_addr or ())) as parts:
            source = cast(EndpointSource, parts.make_source())
            yield from verdicts_on_endpoint(source, self._seconds())
            self._endpoint_clock = parts.endpoint_clock

    def _nodes(self, reachable: list[str]) -> Iterator[Verdict]:
        """The verdicts on all nodes; those that can be asked are added to `reachable`."""
        if Group.VAULT_CONNECTION in self._invalid:
            yield skipped("Vault", _INVALID)
            return
        nodes, found = self._settings.vault_addr, []
        for node in nodes:
            seconds = self._seconds(self._settings.vault_timeout)
            if not seconds:
                yield skipped(f"Vault {node}", _LATE)
                continue
            with parts_of(self._settings.replace(vault_addr=(node,))) as parts:
                where = "Vault" if len(nodes) == 1 else f"Vault {node}"
                verdicts = list(verdicts_on_node(where, parts.transport, node, nodes, seconds))
                if not self._vault_clock.measured:
                    self._vault_clock = parts.vault_clock
            reachable += [node] * serves(verdicts)
            found.append(verdicts)
        for verdicts in found:
            yield from map(tolerated, verdicts) if reachable and not serves(verdicts) else verdicts

    def _access(self) -> Iterator[Verdict]:
        settings = self._settings
        with parts_of(settings) as parts:
            client = parts.make_client(lambda _: settings, lambda: Deadline(REVOKE_TIMEOUT))
            store = parts.make_store(client)
            access = Access(client, store, settings, self._identity(), self._deadline)
            login = access.verdict_on_login()
            yield login
            if login.level is Level.FAILED:
                yield skipped("KV mount and paths", "there is no login")
                return
            try:
                version = access.version()
            except StoreError as exc:
                yield failed("KV mount", exc)
                yield skipped("paths", "the KV mount cannot be looked at")
                return
            yield from access.verdicts_on_mount(version)
            yield from access.verdicts_on_paths(version)
            if self._write_test:
                yield verdict_on_writing(access, version)

    def _identity(self) -> Identity | None:
        user, company = self._settings.user_id, self._settings.company_name
        return Identity(user, company) if user and company else None
