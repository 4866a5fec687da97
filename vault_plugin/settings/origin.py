"""How a setting is declared: its sources, its help, and what it is about."""

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, ClassVar, NamedTuple, NoReturn, Self, dataclass_transform

from vault_plugin.settings.environment import without
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
    identity whose token is requested. `default` is the value of a setting that is not given; of one that is `required`,
    None.
    """

    env: tuple[str, ...]
    group: Group
    help: str
    flag: bool = True
    read: Callable[[str], Any] = str
    choices: tuple[str, ...] = ()
    default: Any = None
    required: bool = False
    secret: bool = False
    identity: bool = False

    def value(self, text: str) -> Any:
        """The value of that text; None if it counts as empty. Raises ValueError, which does not quote it."""
        if self.choices and text not in self.choices:
            raise ValueError(f"must be one of {', '.join(self.choices)}")
        return self.read(text)


def without_logins(environ: Mapping[str, str], origins: Mapping[str, Origin]) -> dict[str, str]:
    """For the same Vault with another login: the environment without credentials and without the identity."""
    withheld = {variable for one in origins.values() if one.secret or one.identity for variable in one.env}
    return without(environ, withheld)


@dataclass_transform(frozen_default=True, kw_only_default=True)
class Declared:
    """The base of classes whose attributes are settings: what a frozen dataclass is, without the methods that it generates.

    Generating them took 7 % of the time in which a stored token is read.
    """

    origins: ClassVar[dict[str, Origin]] = {}

    def __init_subclass__(cls) -> None:
        inherited = [vars(base).get("origins", {}) for base in reversed(cls.__mro__)]
        own = {name: one for name, one in vars(cls).items() if isinstance(one, Origin)}
        cls.origins = {name: one for origins in (*inherited, own) for name, one in origins.items()}
        for name, origin in own.items():
            setattr(cls, name, origin.default)

    def __init__(self, **values: Any) -> None:
        if unknown := values.keys() - self.origins.keys():
            raise TypeError(f"There is no setting {', '.join(sorted(unknown))}.")
        vars(self).update(values)

    def replace(self, **values: Any) -> Self:
        """The same settings with other values of some."""
        return type(self)(**vars(self) | values)

    def _values(self) -> tuple[tuple[str, Any], ...]:
        return tuple((name, getattr(self, name)) for name in self.origins)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"Settings cannot be changed: {name}")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"Settings cannot be changed: {name}")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self)) and self._values() == other._values()

    def __hash__(self) -> int:
        return hash(self._values())

    def __repr__(self) -> str:
        # An identity is all that it takes to mint a token.
        shown = (f"{name}={value!r}" for name, value in self._values() if not self.origins[name].identity)
        return f"{type(self).__name__}({', '.join(shown)})"


_NONE: Any = object()


def setting(*env: str, group: Group, help: str, default: Any = _NONE, **how: Any) -> Any:  # noqa: A002  click's word too
    """The declaration of an attribute of Declared, required unless it has a default."""
    required = default is _NONE
    return Origin(env, group, help, default=None if required else default, required=required, **how)


def identity_setting(variable: str, *, help: str) -> Any:  # noqa: A002
    """A setting that is a part of an identity."""
    return setting(variable, group=Group.IDENTITY, help=help, read=checked, identity=True)


def secret_setting(*env: str, help: str, read: Callable[[str], Any] = credential) -> Any:  # noqa: A002
    """A credential to log in to Vault with. It has no flag, since process lists show command lines."""
    return setting(*env, group=Group.VAULT_LOGIN, help=help, default=None, flag=False, read=read, secret=True)
