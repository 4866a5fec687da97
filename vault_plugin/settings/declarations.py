"""Every setting, declared once; the only reader of the environment.

A value comes from a flag, else from its environment variables in their order, each of which may instead name a file
(the same name with `_FILE` appended), else from the default. An empty variable is unset; an empty flag as well, unless
the setting is required. Secrets have no flag: `ps` would show them.
The command line, README's table and the checks on both are made from these declarations.
"""

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

from vault_plugin.errors import SettingsError
from vault_plugin.settings.environment import (
    is_readable,
    look_up,
    process_environment,
    tell_ignored,
    text_of_file,
)
from vault_plugin.settings.values import (
    credential,
    duration,
    endpoint_url,
    is_plain_and_remote,
    positive_duration,
    vault_addresses,
    vault_path,
)
from vault_plugin.timing.deadline import Deadline
from vault_plugin.tokens.identity import Identity
from vault_plugin.tokens.names import checked, is_composed
from vault_plugin.tokens.secret import Secret
from vault_plugin.wording import Words, by_default, flag, named, worded

NOTICEABLE = 0.1  # seconds that reading files may take without being subtracted from the deadline


class Origin(NamedTuple):
    """Where a setting comes from: environment variables, first wins; a flag unless it is a secret; how to read it."""

    env: tuple[str, ...]
    help: str
    flag: bool = True
    read: Callable[[str], Any] = str
    choices: tuple[str, ...] = ()
    required: bool = False


def _setting(*env: str, group: str, help: str, default: Any = MISSING, **how: Any) -> Any:  # noqa: A002  click's word too
    metadata = {"origin": Origin(env, help, required=default is MISSING, **how), "group": group}
    shown = env[:1] not in (
        ("KLEARSTACK_USER_ID",),
        ("KLEARSTACK_COMPANY_NAME",),
    )  # all it takes to mint a token
    return field(default=None if default is MISSING else default, repr=shown, metadata=metadata)


# What each login cannot do without, and what else to say if it is nowhere.
_LOGINS = {
    "token": {"vault_token": ", and ~/.vault-token holds none"},
    "approle": {"role_id": "", "secret_id": ""},
    "jwt": {"vault_jwt": ""},
    "kubernetes": {"auth_role": "", "vault_jwt": ", and so is a pod's service account token"},
}
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")  # in every pod
_EMPTY = "is given but empty: give a value, or leave it out"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All that the parts need to know. Durations are seconds. Build it with `from_env`."""

    user_id: str = _setting(
        "KLEARSTACK_USER_ID",
        group="Identity",
        help="The user's id; `-` reads a line of standard input.",
        read=checked,
    )
    company_name: str = _setting(
        "KLEARSTACK_COMPANY_NAME",
        group="Identity",
        help="The user's company; `-` reads the next line.",
        read=checked,
    )
    url: str = _setting(
        "KLEARSTACK_URL",
        group="KlearStack endpoint",
        help="KlearStack's base URL, as you were given it.",
        read=endpoint_url,
    )
    ca_cert: str | None = _setting(
        "KLEARSTACK_CACERT",
        group="KlearStack endpoint",
        help="PEM file of the endpoint's CA, if it is not a public one.",
        default=None,
    )
    allow_plain_http: bool = _setting(
        group="KlearStack endpoint",
        help="Mint over plain http to another host: whoever listens gets the token.",
        default=False,
    )
    vault_addr: tuple[str, ...] = _setting(
        "BAO_ADDR",
        "VAULT_ADDR",
        group="Vault connection",
        help="Vault's address; several nodes of a cluster with commas, a socket as unix:///path.",
        read=vault_addresses,
    )
    vault_namespace: str | None = _setting(
        "BAO_NAMESPACE",
        "VAULT_NAMESPACE",
        group="Vault connection",
        help="Vault's namespace.",
        default=None,
        read=vault_path,
    )
    vault_cacert: str | None = _setting(
        "BAO_CACERT",
        "VAULT_CACERT",
        group="Vault connection",
        help="PEM file of Vault's CA, if it is not a public one.",
        default=None,
    )
    vault_client_cert: str | None = _setting(
        "BAO_CLIENT_CERT",
        "VAULT_CLIENT_CERT",
        group="Vault connection",
        help="PEM file of a TLS client certificate.",
        default=None,
    )
    vault_client_key: str | None = _setting(
        "BAO_CLIENT_KEY",
        "VAULT_CLIENT_KEY",
        group="Vault connection",
        help="PEM file of its key.",
        default=None,
    )
    auth: str = _setting(
        "KLEARSTACK_VAULT_AUTH",
        group="Vault login",
        help="How to log in to Vault.",
        default="token",
        choices=tuple(_LOGINS),
    )
    auth_mount: str | None = _setting(
        "KLEARSTACK_VAULT_AUTH_MOUNT",
        group="Vault login",
        help="Where that auth method is mounted; else at its own name.",
        default=None,
        read=vault_path,
    )
    auth_role: str | None = _setting(
        "KLEARSTACK_VAULT_AUTH_ROLE",
        group="Vault login",
        help="The role to log in as: for kubernetes; for jwt, unless the mount has a default one.",
        default=None,
    )
    vault_token: Secret | None = _setting(
        "BAO_TOKEN",
        "VAULT_TOKEN",
        group="Vault login",
        help="The Vault token; else ~/.vault-token.",
        default=None,
        flag=False,
        read=Secret,
    )
    role_id: Secret | None = _setting(
        "BAO_ROLE_ID",
        "VAULT_ROLE_ID",
        group="Vault login",
        help="AppRole's role id.",
        default=None,
        flag=False,
        read=Secret,
    )
    secret_id: Secret | None = _setting(
        "BAO_SECRET_ID",
        "VAULT_SECRET_ID",
        group="Vault login",
        help="AppRole's secret id.",
        default=None,
        flag=False,
        read=Secret,
    )
    vault_jwt: Secret | None = _setting(
        "BAO_JWT",
        "VAULT_JWT",
        group="Vault login",
        help="The JWT to log in with; for kubernetes else the pod's service account token.",
        default=None,
        flag=False,
        read=Secret,
    )
    mount: str = _setting(
        "KLEARSTACK_VAULT_MOUNT",
        group="Vault storage",
        help="The KV mount (v1 or v2).",
        default="secret",
        read=vault_path,
    )
    path_prefix: str = _setting(
        "KLEARSTACK_VAULT_PATH_PREFIX",
        group="Vault storage",
        help="The folder below it.",
        default="klearstack",
        read=vault_path,
    )
    min_ttl: float = _setting(
        "KLEARSTACK_MIN_TTL",
        group="Token",
        help="Mint if less is left; never more than half of a token's life.",
        default=60.0,
        read=duration,
    )
    timeout: float = _setting(
        "KLEARSTACK_TIMEOUT",
        group="Limits",
        help="For each connection, and each wait for an answer.",
        default=10.0,
        read=positive_duration,
    )
    deadline: float = _setting(
        "KLEARSTACK_DEADLINE",
        group="Limits",
        help="For everything together.",
        default=60.0,
        read=positive_duration,
    )
    on_vault_error: str = _setting(
        "KLEARSTACK_ON_VAULT_ERROR",
        group="Vault connection",
        help="With Vault down: fail, or bypass it: mint and store nothing.",
        default="fail",
        choices=("fail", "bypass"),
    )
    on_user_mismatch: str = _setting(
        "KLEARSTACK_ON_USER_MISMATCH",
        group="Token",
        help="If a token names another user: fail, or warn and use it.",
        default="fail",
        choices=("fail", "warn"),
    )
    lock_dir: str | None = _setting(
        "KLEARSTACK_LOCK_DIR",
        group="Limits",
        help="Where this host's processes meet, if /tmp is not shared by them.",
        flag=False,
        default=None,  # see lock_folder.py: nothing is looked at before it is needed
    )

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, /, **flags: str | bool | None) -> "Settings":
        """Gather all settings; a flag that is None was not given.

        What reading files has taken of the deadline is gone from it.

        Raises SettingsError, which names at once all that is missing, unreadable or wrong.
        """
        settings, deadline = cls._gathered(environ, flags)
        for one in fields(cls):
            if one.metadata["origin"].read is checked and not is_composed(getattr(settings, one.name)):
                _log.warning(
                    "%s is not NFC-normalized: it is a different identity from its NFC form",
                    worded(named(one.name)),
                )
        slow = settings.deadline - deadline.left() > NOTICEABLE
        return replace(settings, deadline=deadline.left()) if slow else settings

    @classmethod
    def _gathered(
        cls, environ: Mapping[str, str] | None, flags: Mapping[str, str | bool | None]
    ) -> tuple["Settings", Deadline]:
        if unknown := flags.keys() - {one.name for one in fields(cls)}:
            raise TypeError(f"There is no setting {', '.join(sorted(unknown))}.")
        environ = process_environment() if environ is None else environ
        values: dict[str, Any] = {}
        complaints = _Complaints()
        empty: dict[str, str] = {}  # credentials whose files are, and what to say of them if they are needed
        deadline = Deadline(cls.deadline)
        for one in sorted(fields(cls), key=lambda one: one.name != "deadline"):  # which counts for all others
            origin: Origin = one.metadata["origin"]
            place = ""
            try:
                text, place = _gather(origin, flags.get(one.name), environ, deadline)
                if isinstance(text, bool):
                    values[one.name] = text
                elif text and (value := _read(origin, text)) is not None:
                    values[one.name] = value
                elif origin.required and text is None:
                    complaints.miss(one.name)
                elif origin.required:
                    complaints.add(f"{place} {_EMPTY}", one.name)
                elif place and origin.read is Secret:
                    empty[one.name] = f"{place} is empty"
                if one.name == "deadline":
                    deadline = Deadline(values.get("deadline", cls.deadline))
            except ValueError as exc:  # its text is one of ours: no value is ever quoted
                complaints.add(f"{place} {exc}", one.name)
        _disagreements(values, empty, environ, deadline, complaints)
        complaints.end()
        tell_ignored(environ)
        return cls(**values), deadline

    @classmethod
    def for_many(cls, environ: Mapping[str, str] | None = None, /, **flags: str | bool | None) -> "Settings":
        """The same for a caller with identities of its own: none is asked for here. Raises SettingsError."""
        return cls._gathered(environ, flags | {"user_id": "-", "company_name": "-"})[0]

    def identity(self) -> Identity:
        """Whose token is asked for. Raises SettingsError if it cannot be one."""
        return Identity(self.user_id, self.company_name)


def default_company(given: str | None, environ: Mapping[str, str] | None = None) -> str | None:
    """The company of identities that name none; None if there is none. Raises SettingsError."""
    origin: Origin = next(one.metadata["origin"] for one in fields(Settings) if one.name == "company_name")
    name, place = named("company_name"), ""
    try:
        deadline = Deadline(Settings.deadline)
        environ = process_environment() if environ is None else environ
        text, place = _gather(origin, given, environ, deadline)
        company = checked(str(text or ""))
    except ValueError as exc:
        raise SettingsError(f"{name}{place} {exc}.") from None
    if text == "":
        raise SettingsError(f"{name}{place} {_EMPTY}.")
    return company or None


def without_credentials(environ: Mapping[str, str]) -> dict[str, str]:
    """For another program: nothing that leads to tokens, neither Vault's logins nor the identity, which is all that
    KlearStack asks for.
    """
    ours = {
        name
        for one in fields(Settings)
        if one.metadata["origin"].read is Secret or not one.repr
        for variable in one.metadata["origin"].env
        for name in (variable, f"{variable}_FILE")
    }
    return {name: text for name, text in environ.items() if name not in ours}


def _gather(
    origin: Origin, flag: str | bool | None, environ: Mapping[str, str], deadline: Deadline
) -> tuple[str | bool | None, str]:
    """The flag, else what the environment says, and which file that was read from; None if nobody says anything."""
    # An identity or an address given as an empty text is wrong; it must not become another one from the environment.
    if flag is not None and (flag != "" or origin.required):
        return flag, ""
    return look_up(origin.env, environ, deadline, rewritten=origin.read is Secret) or (None, "")


def _read(origin: Origin, text: str) -> Any:
    if origin.choices and text not in origin.choices:
        raise ValueError(f"must be one of {', '.join(origin.choices)}")
    return credential(text) if origin.read is Secret else origin.read(text)


def words(calls: Callable[[str], str | None], others: Mapping[str, str] | None = None) -> Words:
    """A face's words: what it calls a setting (None: it has none of that name), with its variable; `others` come first."""
    variables = {one.name: " or ".join(reversed(one.metadata["origin"].env)) for one in fields(Settings)}
    others = others or {}

    def word(name: str) -> str:
        if name in others:
            return others[name]
        own, variable = calls(name), variables.get(name, "")
        if own and variable:
            return f"{own} ({variable})"
        return own or variable or f"`klearstack-vault get {flag(name)}`"

    return word


def _flag_of(name: str) -> str | None:
    return (
        None
        if name in {one.name for one in fields(Settings) if not one.metadata["origin"].flag}
        else flag(name)
    )


by_default(words(_flag_of, {"help": "README", "verbose": "-v"}))


class _Complaints:
    """All that is wrong with the settings, as one error."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._settings: set[str] = set()
        self._missing: set[str] = set()

    def add(self, complaint: str, *about: str) -> None:
        """Something that begins with the name of the first of these settings."""
        self._texts.append(named(about[0]) + complaint)
        self._settings.update(about)

    def miss(self, name: str, also: str = "") -> None:
        """A setting that is nowhere."""
        self.add(f" is missing{also}", name)
        self._missing.add(name)

    def end(self) -> None:
        """Raise SettingsError if there is a complaint."""
        if not self._texts:
            return
        error = SettingsError("; ".join(self._texts) + ".", hint=f"{named('help')} explains each.")
        error.settings, error.missing = frozenset(self._settings), frozenset(self._missing)
        raise error


def _disagreements(
    values: dict[str, Any],
    empty: Mapping[str, str],
    environ: Mapping[str, str],
    deadline: Deadline,
    complaints: _Complaints,
) -> None:
    """What no single setting shows; fills in what another program left to log in with."""
    if is_plain_and_remote(values.get("url", "")) and not values.get("allow_plain_http"):
        complaints.add(
            " is plain http to another host, where the token could be read on its way: use https, "
            f"or accept that with {named('allow_plain_http')}",
            "url",
        )
    for name in ("ca_cert", "vault_cacert", "vault_client_cert", "vault_client_key"):
        if name in values and not is_readable(values[name]):
            complaints.add(" names a file that cannot be read", name)
    pair = "vault_client_cert", "vault_client_key"
    if bool(values.get(pair[0])) != bool(values.get(pair[1])):
        complaints.add(f" and {named(pair[1])} go together", *pair)
    login = values.get("auth", "token")
    if login == "token" and "vault_token" not in empty:
        _fall_back(values, "vault_token", Path(environ.get("HOME", "/nonexistent"), ".vault-token"), deadline)
    elif login == "kubernetes" and "vault_jwt" not in empty:
        _fall_back(values, "vault_jwt", SERVICE_ACCOUNT, deadline)
    for name, also in _LOGINS[login].items():
        if name in values:
            continue
        if name in empty:
            complaints.add(empty[name], name)
        else:
            complaints.miss(name, also)


def _fall_back(values: dict[str, Any], name: str, path: Path, deadline: Deadline) -> None:
    """Unless it was given, take a credential from where another program leaves it."""
    with suppress(ValueError):
        if name not in values and (
            secret := credential(text_of_file(path, "", deadline, rewritten=True, given=False))
        ):
            values[name] = secret
