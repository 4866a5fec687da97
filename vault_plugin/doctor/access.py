"""The access to the KV mount: login, mount, capabilities and the stored tokens, by the requests that a command sends."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from vault_plugin.broker.ports import TokenStore
from vault_plugin.doctor.verdicts import Verdict, failed, ok, shown, skipped, warning
from vault_plugin.errors import KlearstackVaultError, StoreError, StoreRefusedError
from vault_plugin.network.library_logs import unlogged
from vault_plugin.settings import Settings
from vault_plugin.timing.clock import format_rfc3339
from vault_plugin.timing.deadline import Deadline
from vault_plugin.tokens.identity import Identity
from vault_plugin.tokens.jwt import Kind
from vault_plugin.vault.client import VaultClient
from vault_plugin.vault.denials import WRAPPING
from vault_plugin.vault.hvac_adapter import Limits
from vault_plugin.vault.hvac_errors import DeniedError, UnknownTokenError, mount_missing, wrong_version
from vault_plugin.vault.policy import READER, SYNCER, mount_in, rules
from vault_plugin.vault.wrapping import is_wrapping_token

_SHORT = 60  # seconds; a Vault token with less left may end during a command
_LOGIN, _MOUNT, _CONFIG, _READS = "Vault login", "KV mount", "KV configuration", "stored tokens"
_NO_CONFIG = "the policy of the Vault token does not grant read on it, which no command needs"


class Access:
    """Checks of one KV mount, each with the time of one request. `identity`: whose paths are looked at, if known."""

    def __init__(
        self,
        client: VaultClient,
        store: TokenStore,
        settings: Settings,
        identity: Identity | None,
        deadline: Deadline,
    ) -> None:
        self.client = client
        self.settings = settings
        self._store = store
        self._identity = identity
        self._deadline = deadline

    def time(self) -> Deadline:
        """The time for one check."""
        return Deadline(min(self.settings.vault_timeout or self.settings.timeout, self._deadline.left()))

    def verdict_on_login(self) -> Verdict:
        """The login, and how long its token is valid."""
        try:
            self._refuse_wrapped()
            about = self.client.ask("lookup of the Vault token", "auth/token/lookup-self", self.time())
        except DeniedError:
            return skipped(
                _LOGIN, "the policy of the Vault token does not grant read on auth/token/lookup-self"
            )
        except StoreError as exc:
            return failed(_LOGIN, exc)
        return _on_token(self.settings.auth, about)

    def _refuse_wrapped(self) -> None:
        """Raise UnknownTokenError if the Vault token is a wrapping token, which any other request would use up."""
        if self.settings.auth == "token":
            with unlogged():
                login, limits = self.client.login, Limits(self.time())
                if is_wrapping_token(login.adapter("", limits), login.token(limits.deadline)):
                    raise UnknownTokenError("A wrapping token is given as the Vault token.", hint=WRAPPING)

    def version(self) -> int:
        """The KV version of the mount, 1 or 2; that of the settings if Vault does not say. Raises StoreError."""
        mount, given = self.settings.mount, int(self.settings.kv_version or 0)
        try:
            found = self.client.kv_version(mount, self.time())
        except DeniedError:
            if given:
                return given
            # Vault responds so also where nothing is mounted; a token that may do something below knows better.
            if self._may_do_something(mount):
                raise mount_missing(mount) from None
            raise
        if given not in (0, found):
            raise wrong_version(mount, given)
        return found

    def verdicts_on_mount(self, version: int) -> Iterator[Verdict]:
        """The version and the configuration of the mount."""
        mount = self.settings.mount
        if version == 1:
            yield warning(
                _MOUNT,
                f"KV v1 is mounted at {mount}, where Vault does not delete tokens when they expire.",
                f"Use a KV v2 mount: `vault kv enable-versioning {mount}` converts this one.",
            )
            return
        yield ok(_MOUNT, f"KV v2 is mounted at {mount}.")
        try:
            config = self.client.ask("read of the mount's configuration", f"{mount}/config", self.time())
        except DeniedError:
            yield skipped(_CONFIG, _NO_CONFIG)
        except StoreError as exc:
            yield failed(_CONFIG, exc)
        else:
            yield _on_config(mount, config)

    def verdicts_on_paths(self, version: int) -> Iterator[Verdict]:
        """The capabilities on the identity's paths, or below the prefix, and what is stored there."""
        try:
            yield from self._capabilities(version)
        except DeniedError:
            yield skipped(
                "capabilities", "the policy of the Vault token does not grant update on sys/capabilities-self"
            )
        except StoreError as exc:
            yield failed("capabilities", exc)
        if self._identity is None:
            yield skipped(_READS, "no identity is given")
            return
        for kind in Kind:
            check = f"stored {kind} token"
            try:
                stored = self._store.read(self._identity, kind, self.time()).stored
            except KlearstackVaultError as exc:
                yield failed(check, exc)
                continue
            end = stored and format_rfc3339(stored.token.expires_at)
            yield ok(
                check, f"a token that expires at {end}." if stored else "none, and the path can be read."
            )

    def _may_do_something(self, mount: str) -> bool:
        """Whether the policy of the Vault token has a capability below the mount and prefix."""
        places = [
            rule.place(mount, path)
            for path in self._places()
            for version in (1, 2)
            for rule in rules(SYNCER, version)
        ]
        with suppress(StoreError):
            found = self._capabilities_on(places)
            return any(set(found.get(place) or ()) - {"deny"} for place in places)
        return False

    def _capabilities_on(self, places: list[str]) -> dict[str, Any]:
        """What the Vault token may do on each path. Raises StoreError."""
        settings = self.settings
        mount = mount_in(settings.mount, settings.vault_namespace, self.client.login.namespace)
        asked = {place: f"{mount}{place.removeprefix(settings.mount)}" for place in places}
        found = self.client.ask(
            "lookup of the capabilities",
            "sys/capabilities-self",
            self.time(),
            {"paths": list(asked.values())},
        )
        return {place: found.get(path) for place, path in asked.items()}

    def _capabilities(self, version: int) -> Iterator[Verdict]:
        """A verdict on each path. Raises StoreError if Vault does not say what the token may do."""
        settings = self.settings
        places = {
            rule.place(settings.mount, path): rule.capabilities
            for path in self._places()
            for rule in rules(SYNCER, version)
        }
        found = self._capabilities_on(list(places))
        lacking = {
            place: [one for one in needed if not {one, "root"} & set(found.get(place) or ())]
            for place, needed in places.items()
        }
        readable = {
            rule.place(settings.mount, path) for path in self._places() for rule in rules(READER, version)
        }
        may_read = not any("read" in lacking[place] for place in readable)
        granted = sum(len(places[place]) - len(lacking[place]) for place in places)
        for place, needed in places.items():
            yield _on_capabilities(
                self._anonymous(place), needed, lacking[place], reader=may_read and granted == len(readable)
            )

    def _anonymous(self, place: str) -> str:
        """The path without company and user, since the verdicts may be shown to others."""
        if self._identity is None:
            return place
        *above, _, _, kind = place.split("/")
        return "/".join((*above, "COMPANY", "USER", kind))

    def _places(self) -> list[str]:
        prefix, identity = self.settings.path_prefix, self._identity
        return [f"{prefix}/*"] if identity is None else [identity.path(prefix, kind) for kind in Kind]


def _on_token(auth: str, about: dict[str, Any]) -> Verdict:
    """The verdict on the Vault token, of which Vault says this."""
    ttl, policies = about.get("ttl"), about.get("policies")
    named = ", ".join(map(shown, policies)) if isinstance(policies, list) else "unknown"
    text = f"by {auth}; policies: {named}; "
    if not isinstance(ttl, int | float) or not ttl:
        return ok(_LOGIN, f"{text}the Vault token does not expire.")
    renewable = "renewable" if about.get("renewable") is True else "not renewable"
    text += f"the Vault token is valid for another {ttl:.0f} s, {renewable}."
    if ttl < _SHORT and auth == "token":
        return warning(_LOGIN, text, "Log in again: a command may take longer.")
    return ok(_LOGIN, text)


def _on_config(mount: str, config: dict[str, Any]) -> Verdict:
    """The verdict on the configuration of a KV v2 mount."""
    limit, cas = str(config.get("delete_version_after") or "0s"), config.get("cas_required") is True
    text = f"delete_version_after is {shown(limit)}, cas_required is {str(cas).lower()}."
    remedy = f"Set it to 0s: `vault write {mount}/config delete_version_after=0s`."
    if limit.startswith("-"):
        return warning(_CONFIG, f"{text} Vault keeps tokens after their JWT has expired.", remedy)
    if limit.strip("0hms"):
        return warning(_CONFIG, f"{text} Vault deletes tokens after that time at the latest.", remedy)
    return ok(_CONFIG, text)


def _on_capabilities(place: str, needed: tuple[str, ...], lacking: list[str], *, reader: bool) -> Verdict:
    check = f"capabilities on {place}"
    if not lacking:
        return ok(check, f"{', '.join(needed)}.")
    text = f"The policy of the Vault token lacks {' and '.join(lacking)} on {place}."
    remedy = "`klearstack-vault policy syncer` prints the policy that it needs."
    if reader:
        return warning(check, f"{text} Stored tokens can be read; new ones cannot be stored.", remedy)
    return failed(check, StoreRefusedError(text, hint=remedy))
