"""Gathering: the values of settings from flags, environment variables and files, and one error for all that is wrong."""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from vault_plugin.errors import SettingsError
from vault_plugin.settings.complaints import Complaints
from vault_plugin.settings.environment import (
    is_readable,
    look_up,
    process_environment,
    report_ignored,
    warn_of_skipped_verification,
)
from vault_plugin.settings.logins import LOGINS, credential_in
from vault_plugin.settings.origin import Origin, without_logins
from vault_plugin.settings.proxies import Proxy
from vault_plugin.settings.token_helper import token_helper, token_of
from vault_plugin.settings.values import is_plain_and_remote
from vault_plugin.timing.deadline import Deadline
from vault_plugin.wording import flag as _flag
from vault_plugin.wording import named

Flags = Mapping[str, str | bool | None]
_EMPTY = "is given but empty: give a value, or leave it out"


class Survey(NamedTuple):
    """What was gathered: the values that are valid, the deadline that began with reading them, and what is wrong.

    `sources` says where each value that is no default comes from: a flag, a variable, one that names a file, or the file
    or token helper of another program.
    """

    values: dict[str, Any]
    deadline: Deadline
    sources: dict[str, str]
    error: SettingsError | None


def gather(
    origins: Mapping[str, Origin],
    environ: Mapping[str, str] | None,
    flags: Flags,
    seconds: float,
    began: float | None = None,
) -> tuple[dict[str, Any], Deadline]:
    """The values that are given, and the deadline that began with reading them (`seconds` unless one is given).

    `began`: when the call began, if it was earlier (monotonic seconds). A flag that is None was not given. Raises
    SettingsError, which names at once all that is missing, unreadable or wrong, and TypeError for a flag of no setting.
    """
    found = survey(origins, environ, flags, seconds, began)
    if found.error is not None:
        raise found.error
    return found.values, found.deadline


def survey(
    origins: Mapping[str, Origin],
    environ: Mapping[str, str] | None,
    flags: Flags,
    seconds: float,
    began: float | None = None,
) -> Survey:
    """The same with what is wrong. Raises TypeError for a flag of no setting."""
    if unknown := flags.keys() - origins.keys():
        raise TypeError(f"There is no setting {', '.join(sorted(unknown))}.")
    gathering = _Gathering(process_environment() if environ is None else environ, seconds, began)
    # The deadline first: it bounds the reading of all others.
    for name in sorted(origins, key=lambda name: name != "deadline"):
        gathering.add(name, origins[name], flags.get(name))
    gathering.add_proxies(origins["proxy"], flags)
    gathering.prefer_flags(("vault_cacert", "vault_cacert_bytes", "vault_capath"), flags)
    gathering.check_connections()
    gathering.add_credentials(origins)
    error = gathering.complaints.error()
    if error is None:
        report_ignored(gathering.environ)
        if any(address.startswith("https:") for address in gathering.values["vault_addr"]):
            warn_of_skipped_verification(gathering.environ)
    return Survey(gathering.values, gathering.deadline, gathering.sources, error)


def gather_deadline(
    origin: Origin, flag: str | bool | None, environ: Mapping[str, str] | None, seconds: float
) -> Deadline:
    """The deadline of a call that begins now; over `seconds` if it is not given, or invalid."""
    gathering = _Gathering(process_environment() if environ is None else environ, seconds)
    with suppress(SettingsError):
        gathering.add("deadline", origin, flag)
    return gathering.deadline


def gather_one(
    name: str, origin: Origin, flag: str | bool | None, environ: Mapping[str, str] | None, seconds: float
) -> Any:
    """The value of one setting alone; None if it is not given. Raises SettingsError."""
    gathering = _Gathering(process_environment() if environ is None else environ, seconds)
    gathering.add(name, origin, flag)
    error = gathering.complaints.error()
    if error is not None and not gathering.complaints.missing:
        raise error
    return gathering.values.get(name)


class _Gathering:
    """The values that are known so far, and the complaints about them."""

    def __init__(self, environ: Mapping[str, str], seconds: float, began: float | None = None) -> None:
        self.environ = environ
        self._began = time.monotonic() if began is None else began
        self.deadline = self._deadline_after(seconds)
        self.values: dict[str, Any] = {}
        self.sources: dict[str, str] = {}
        self.complaints = Complaints()
        # Credentials whose files are empty, with a complaint for the login that requires one.
        self._empty: dict[str, str] = {}

    def add(self, name: str, origin: Origin, flag: str | bool | None) -> None:
        """Take the setting from the flag, else from the environment or the file that it names."""
        text, place, source = flag, "", _flag(name)
        try:
            _require_text(flag, or_bool=origin.default is False)
            # An empty identity or address is an error. It must not be replaced by that of the environment.
            if flag is None or (flag == "" and not origin.required):
                found = look_up(origin.env, self.environ, self.deadline, rewritten=origin.secret)
                text, place, source = found or (None, "", "")
            value = origin.value(text) if isinstance(text, str) and text else None
        except ValueError as exc:  # raised by this package, and without the value
            self.complaints.add(f"{place} {exc}", name)
            return
        if text:
            self.sources[name] = source
        if isinstance(text, bool):
            self.values[name] = text
        elif value is not None:
            self.values[name] = value
        elif origin.required and text is None:
            self.complaints.add_missing(name)
        elif origin.required:
            self.complaints.add(f"{place} {_EMPTY}", name)
        elif place and origin.secret:
            self._empty[name] = f"{place} is empty"
        if name == "deadline" and value is not None:
            self.deadline = self._deadline_after(value)

    def _deadline_after(self, seconds: float) -> Deadline:
        """What is so many seconds after the beginning."""
        return Deadline(self._began + seconds - time.monotonic(), began=self._began)

    def add_proxies(self, origin: Origin, flags: Flags) -> None:
        """Take HTTPS_PROXY where no other proxy is given. NO_PROXY holds for it alone."""
        for name in ("proxy", "vault_proxy"):
            if flags.get(name) and name in self.values and self.values[name].login:
                self.complaints.add(
                    " contains a login, which command lines and files show to others: give it in the variable",
                    name,
                )
        own, given = self.values.pop("proxy", None), flags.get("proxy")
        source = self.sources.get("proxy", "")
        if given and "vault_proxy" not in self.values:  # whose default is HTTPS_PROXY all the same
            self.add("proxy", origin, None)
        general: Proxy | None = self.values.pop("proxy", None) if given else own
        if general:
            general = general.excluding(self.values.get("no_proxy", ""))
            self.values.setdefault("vault_proxy", general)
            self.sources.setdefault("vault_proxy", self.sources["proxy"])
        self.values["proxy"] = own if given else general
        self.sources["proxy"] = source

    def prefer_flags(self, names: Sequence[str], flags: Flags) -> None:
        """Of settings that stand for each other, drop those of the environment if one is given as a flag."""
        if any(flags.get(name) for name in names):
            for name in names:
                if not flags.get(name):
                    self.values.pop(name, None)

    def check_connections(self) -> None:
        """Complain about addresses and certificates that do not fit each other."""
        if is_plain_and_remote(self.values.get("url", "")) and not self.values.get("allow_plain_http"):
            self.complaints.add(
                " uses plain http to a remote host, which exposes the token to the network: use https, "
                f"or allow it with {named('allow_plain_http')}",
                "url",
            )
        for name in ("ca_cert", "vault_cacert", "vault_client_cert", "vault_client_key"):
            if name in self.values and not is_readable(self.values[name]):
                self.complaints.add(" names a file that cannot be read", name)
        if "vault_capath" in self.values and not is_readable(self.values["vault_capath"], folder=True):
            self.complaints.add(" names a folder that cannot be read", "vault_capath")
        pair = "vault_client_cert", "vault_client_key"
        if bool(self.values.get(pair[0])) != bool(self.values.get(pair[1])):
            self.complaints.add(f" and {named(pair[1])} must be given together", *pair)

    def add_credentials(self, origins: Mapping[str, Origin]) -> None:
        """Take the login's credential from where another program leaves it, and complain if it is nowhere."""
        login = LOGINS[self.values.get("auth", "token")]
        if login.has_helper and not self._is_given("vault_token") and not self._ask_helper(origins):
            return
        for name, file in login.files.items():
            path = file(self.environ)
            if not self._is_given(name) and (found := credential_in(path, self.deadline)):
                self.values[name], self.sources[name] = found, str(path)
        for name, also in login.requires.items():
            instead = login.instead.get(name, ())
            if name in self.values or (instead and all(other in self.values for other in instead)):
                continue
            if self.complaints.settings & {name, *instead}:
                continue
            if empty := next((one for one in (name, *instead) if one in self._empty), ""):
                self.complaints.add(self._empty[empty], empty)
            else:
                self.complaints.add_missing(name, also)

    def _is_given(self, name: str) -> bool:
        return name in self.values or name in self._empty

    def _ask_helper(self, origins: Mapping[str, Origin]) -> bool:
        """Take the token from the token helper, if there is one; return whether the token may be elsewhere.

        Like `bao` and `vault`, it gets Vault's address. It needs neither another credential nor the identity.
        """
        try:
            helper = token_helper(self.values.get("vault_config_path"), self.environ, self.deadline)
            if helper is None:
                return True
            address = ",".join(self.values.get("vault_addr", ()))
            environ = without_logins(self.environ, origins) | {"BAO_ADDR": address, "VAULT_ADDR": address}
            found = token_of(helper, environ, self.deadline)
        except ValueError as exc:
            self.complaints.add(str(exc), "vault_token")
            return False
        if found is None:
            self.complaints.add_missing("vault_token", f", and the token helper {helper} printed none")
            return False
        self.values["vault_token"], self.sources["vault_token"] = found, str(helper)
        return True


def _require_text(value: object, *, or_bool: bool) -> None:
    """Raise ValueError for what a program has given that is no text, such as a number."""
    if not (value is None or isinstance(value, str) or (or_bool and isinstance(value, bool))):
        raise ValueError(f"is not a string, but {type(value).__name__}")
