"""How a setting is declared: its sources, its help, and what it is about."""

from collections.abc import Callable
from dataclasses import MISSING, field
from enum import StrEnum
from typing import Any, NamedTuple

from vault_plugin.settings.values import credential
from vault_plugin.tokens.names import checked


class Group(StrEnum):
    """What settings are about: the headings of `--help`."""

    IDENTITY = "Identity"
    TOKEN = "Token"  # noqa: S105  a heading
    ENDPOINT = "KlearStack endpoint"
    VAULT_CONNECTION = "Vault connection"
    VAULT_LOGIN = "Vault login"
    VAULT_STORAGE = "Vault storage"
    LIMITS = "Limits"


class Origin(NamedTuple):
    """The declaration of a setting.

    `env`: its environment variables, of which the first that is set counts. `flag`: whether it has a command-line option.
    `read`: makes its value from text, or raises ValueError. `secret`: a credential. `identity`: a part of the
    identity whose token is requested.
    """

    env: tuple[str, ...]
    group: Group
    help: str
    flag: bool = True
    read: Callable[[str], Any] = str
    choices: tuple[str, ...] = ()
    required: bool = False
    secret: bool = False
    identity: bool = False

    def value(self, text: str) -> Any:
        """The value of that text; None if it counts as empty. Raises ValueError, which does not quote it."""
        if self.choices and text not in self.choices:
            raise ValueError(f"must be one of {', '.join(self.choices)}")
        return self.read(text)


def setting(*env: str, group: Group, help: str, default: Any = MISSING, **how: Any) -> Any:  # noqa: A002  click's word too
    """A field of a dataclass, required unless it has a default."""
    origin = Origin(env, group, help, required=default is MISSING, **how)
    # An identity is all that it takes to mint a token, so that `repr` hides it.
    return field(
        default=None if default is MISSING else default,
        repr=not origin.identity,
        metadata={"origin": origin, "group": group},
    )


def identity_setting(variable: str, *, help: str) -> Any:  # noqa: A002
    """A setting that is a part of an identity."""
    return setting(variable, group=Group.IDENTITY, help=help, read=checked, identity=True)


def secret_setting(*env: str, help: str, read: Callable[[str], Any] = credential) -> Any:  # noqa: A002
    """A credential to log in to Vault with. It has no flag, since process lists show command lines."""
    return setting(*env, group=Group.VAULT_LOGIN, help=help, default=None, flag=False, read=read, secret=True)
