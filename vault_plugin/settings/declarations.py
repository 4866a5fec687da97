"""Every setting, declared once. Command line, documentation and checks are made from these declarations.

A value comes from a flag, else from its environment variables in their order, each of which may instead name a file
(the same name with `_FILE` appended), else from the default. An empty variable is unset; an empty flag as well, unless
the setting is required.
"""

import logging
from collections.abc import Mapping
from typing import Any

from vault_plugin.settings.endpoint_settings import EndpointSettings
from vault_plugin.settings.gathering import Survey, gather, gather_deadline, gather_one, survey
from vault_plugin.settings.origin import Declared, Group, Origin, identity_setting, setting
from vault_plugin.settings.values import duration, positive_duration, vault_path
from vault_plugin.settings.vault_settings import VaultConnectionSettings, VaultLoginSettings
from vault_plugin.timing.deadline import Deadline
from vault_plugin.tokens.identity import Identity
from vault_plugin.tokens.names import is_composed
from vault_plugin.wording import named, worded

_log = logging.getLogger(__name__)
NOTICEABLE = 0.1  # seconds that reading may take without being subtracted from the deadline


class IdentitySettings(Declared):
    """Whose token is requested."""

    user_id: str = identity_setting(
        "KLEARSTACK_USER_ID", help="User ID; `-` reads a line from standard input."
    )
    company_name: str = identity_setting(
        "KLEARSTACK_COMPANY_NAME", help="Company name; `-` reads the next line from standard input."
    )


class Settings(VaultLoginSettings, VaultConnectionSettings, EndpointSettings, IdentitySettings):
    """The values of all settings. Durations are seconds. Build it with `from_env`."""

    mount: str = setting(
        "KLEARSTACK_VAULT_MOUNT",
        group=Group.VAULT_STORAGE,
        help="Mount path of the KV secrets engine (v1 or v2).",
        default="secret",
        read=vault_path,
    )
    kv_version: str | None = setting(
        "KLEARSTACK_VAULT_KV_VERSION",
        group=Group.VAULT_STORAGE,
        help="Version of the KV secrets engine; by default, Vault is asked, which a policy may forbid.",
        default=None,
        choices=("1", "2"),
    )
    path_prefix: str = setting(
        "KLEARSTACK_VAULT_PATH_PREFIX",
        group=Group.VAULT_STORAGE,
        help="Path prefix below the mount.",
        default="klearstack",
        read=vault_path,
    )
    min_ttl: float = setting(
        "KLEARSTACK_MIN_TTL",
        group=Group.TOKEN,
        help="Minimum remaining lifetime; capped at half of the token's lifetime.",
        default=60.0,
        read=duration,
    )
    timeout: float = setting(
        "KLEARSTACK_TIMEOUT",
        group=Group.LIMITS,
        help="Connect and read timeout.",
        default=10.0,
        read=positive_duration,
    )
    deadline: float = setting(
        "KLEARSTACK_DEADLINE",
        group=Group.LIMITS,
        help="Overall timeout.",
        default=60.0,
        read=positive_duration,
    )
    on_user_mismatch: str = setting(
        "KLEARSTACK_ON_USER_MISMATCH",
        group=Group.TOKEN,
        help="If a token names another user: fail, or warn and use it.",
        default="fail",
        choices=("fail", "warn"),
    )
    lock_dir: str | None = setting(
        "KLEARSTACK_LOCK_DIR",
        group=Group.LIMITS,
        help="Directory for lock files shared by all processes on this host.",
        flag=False,
        default=None,  # the lock folder is only chosen when it is needed
    )

    @classmethod
    def from_env(
        cls,
        environ: Mapping[str, str] | None = None,
        began: float | None = None,
        /,
        **flags: str | bool | None,
    ) -> "Settings":
        """Gather all settings; a flag that is None was not given.

        The time that reading files has taken is subtracted from the deadline; also all that has passed since the call
        `began` (monotonic seconds), such as with reading standard input.

        Raises SettingsError, which names at once all that is missing, unreadable or wrong.
        """
        values, deadline = gather(ORIGINS, environ, flags, cls.deadline, began)
        _warn_of_form(values)
        settings = cls(**values)
        slow = settings.deadline - deadline.left() > NOTICEABLE
        return settings.replace(deadline=deadline.left()) if slow else settings

    @classmethod
    def for_many(cls, environ: Mapping[str, str] | None = None, /, **flags: str | bool | None) -> "Settings":
        """The same for a caller that has identities of its own: none is required here. Raises SettingsError."""
        placeholders = {name: "-" for name, origin in ORIGINS.items() if origin.identity}
        return cls(**gather(ORIGINS, environ, {**flags, **placeholders}, cls.deadline)[0])

    def identity(self) -> Identity:
        """The identity whose token is requested. Raises SettingsError if it is not valid."""
        return Identity(self.user_id, self.company_name)


ORIGINS: dict[str, Origin] = Settings.origins


def default_company(given: str | None, environ: Mapping[str, str] | None = None) -> str | None:
    """The company of identities that name none; None if there is none. Raises SettingsError."""
    company: str | None = gather_one(
        "company_name", ORIGINS["company_name"], given, environ, Settings.deadline
    )
    return company


def survey_all(environ: Mapping[str, str] | None = None, /, **flags: str | bool | None) -> Survey:
    """What all settings are, where each comes from, and what is wrong with them. The identity is not required."""
    origins = {
        name: one._replace(required=one.required and not one.identity) for name, one in ORIGINS.items()
    }
    return survey(origins, environ, flags, Settings.deadline)


def value_of(name: str, given: str | None, environ: Mapping[str, str] | None = None) -> Any:
    """The value of one setting alone; its default if it is not given. Raises SettingsError."""
    found = gather_one(name, ORIGINS[name], given, environ, Settings.deadline)
    return getattr(Settings, name) if found is None else found


def known_deadline(given: str | bool | None = None, environ: Mapping[str, str] | None = None) -> Deadline:
    """The deadline of a call that begins now, for what comes before the other settings; the default if it is invalid.

    Settings.from_env takes its `began`.
    """
    return gather_deadline(ORIGINS["deadline"], given, environ, Settings.deadline)


def _warn_of_form(values: Mapping[str, Any]) -> None:
    """Warn of an identity that looks like another one."""
    for name, origin in ORIGINS.items():
        if origin.identity and not is_composed(values[name]):
            _log.warning(
                "%s is not NFC-normalized: it is a different identity from its NFC form", worded(named(name))
            )
