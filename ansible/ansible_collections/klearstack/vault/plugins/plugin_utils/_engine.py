# Copyright: (c) 2026, The klearstack-vault authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Internal use only: the border between Ansible's plugins and the Python package klearstack-vault.

Options come in as Ansible resolves them and go out as plain text; the package knows nothing of Ansible.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path

from ansible import constants
from ansible.errors import AnsibleError
from ansible.module_utils.common.collections import is_string
from ansible.utils.display import Display
from jinja2 import Undefined, UndefinedError

try:
    from vault_plugin.app import connect
    from vault_plugin.errors import KlearstackVaultError, SettingsError, UsageError, internal_error
    from vault_plugin.output.formats import describe, describe_error
    from vault_plugin.settings import Settings, words
    from vault_plugin.tokens import Kind
    from vault_plugin.wording import speaking
except ImportError:
    connect = None

KINDS = {"access": ("access",), "refresh": ("refresh",), "both": ("access", "refresh")}
FIELDS = {
    "access": ("access_token", "expires_at", "expires_in", "vault"),
    "refresh": ("refresh_token", "refresh_expires_at", "refresh_expires_in", "refresh_vault"),
}
IDENTITY = ("user_id", "company_name")
NEVER_NULL = (*IDENTITY, "url", "vault_addr")
# The folder above `ansible/` is the checkout's, if the collection is read from one.
_CHECKOUT = [one for one in list(Path(__file__).parents)[6:7] if (one / "vault_plugin/app.py").is_file()]
PACKAGE = str(_CHECKOUT[0]) if _CHECKOUT else "./klearstack_vault-0.1.0-py3-none-any.whl"
MISSING = (
    "klearstack.vault needs the Python package klearstack-vault in the Python that runs Ansible: "
    f"{sys.executable} -m pip install {PACKAGE}"
)
_OMITTED = "__omit_place_holder__"  # what `omit` is before core 2.19, which has none in lookups
_DOC = "`ansible-doc -t lookup klearstack.vault.token`"
_HINT = f"See {_DOC}."
# Core hands it to what runs on the hosts, and to nothing that runs here.
_ENVIRONMENT = "The keyword `environment` of a play or task sets no variables for this plugin, which runs on the controller."
_display = Display()


class EngineError(Exception):
    """What failed and what to do, in one line without any secret; `about` is the same for machines."""

    def __init__(self, exc):
        self.about = describe_error(exc)
        if isinstance(exc, SettingsError) and exc.missing:
            self.about["hint"] = f"{_ENVIRONMENT} {exc.hint}"
        super().__init__(f"{self.about['message']} {self.about['hint']}".rstrip())


def _words(lookup):
    """What messages call settings here: by their options."""
    others = {"renew": "renew", "verbose": "`ansible-playbook -v`", "help": _DOC}
    return words(lambda name: name if name in lookup.option_definitions else None, others)


class _ToDisplay(logging.Handler):
    """The package's warnings as Ansible's; with -v what it does."""

    def emit(self, record):
        show = _display.warning if record.levelno >= logging.WARNING else _display.v
        show(f"klearstack.vault: {record.getMessage()}")


def _listen():
    """Once per process, and of nobody else's messages: other libraries log what they send."""
    ours = logging.getLogger("vault_plugin")
    if not ours.handlers:
        ours.addHandler(_ToDisplay())
        ours.propagate = False
        ours.setLevel(logging.INFO)


def tokens(lookup, templar, variables, direct, terms=(), field=None, mint=True):
    """The answers for all terms, each a dict of plain values, or None where a token would have to be minted and may not.

    Raises EngineError, and AnsibleError for what core itself finds wrong, such as an undefined variable.
    """
    _listen()
    with speaking(_words(lookup)):
        return _tokens(lookup, templar, variables, direct, terms, field, mint)


def _tokens(lookup, templar, variables, direct, terms, field, mint):
    try:
        options = _options(lookup, templar, variables, direct)
        kinds = _kinds(options.pop("kind"), field)
        renew = options.pop("renew")
        asked = [_identity(term, options) for term in terms] or [{}]
        # All of them, before anything is asked for.
        settings = [Settings.from_env(**{**options, **one}) for one in asked]

        with connect(settings[0]) as broker:

            def answer(identity):
                if mint:
                    return describe(broker.get(identity, kinds, renew=renew))
                grant = None if renew else broker.stored(identity, kinds)
                return grant and describe(grant)

            return [answer(one.identity()) for one in settings]
    except KlearstackVaultError as exc:
        raise EngineError(exc) from None
    except (AnsibleError, UndefinedError):
        raise
    except Exception as exc:  # noqa: BLE001  its text might quote a secret
        raise EngineError(internal_error(exc)) from None


def _options(lookup, templar, variables, direct):
    """By keyword, else variable, environment, ini; a default is left to the package, which knows further sources."""
    definitions = {
        name: about for name, about in lookup.option_definitions.items() if name not in ("_terms", "field")
    }
    if unknown := sorted(str(name) for name in direct if name not in definitions):
        near = get_close_matches(unknown[0], definitions, 1)
        meant = f" Did you mean {near[0]}?" if near else ""
        raise UsageError(f"There is no option {unknown[0]}.{meant}", hint=_HINT)
    options = {"kind": "access", "renew": False}
    for name, about in definitions.items():
        given = direct.get(name)
        if isinstance(given, Undefined):  # before core 2.19, which says so itself
            str(given)  # raises UndefinedError
        # Core takes variables as they stand there, also those that are templates.
        names = (one["name"] for one in about.get("vars", ())) if given is None else ()
        said = {one: templar.template(variables[one]) for one in names if one in variables}
        # Core takes null as left out, and would go on to another user, company, endpoint or Vault.
        chosen = given if name in direct else next(reversed(said.values()), "")
        if name in NEVER_NULL and chosen is None:
            options[name] = ""  # which the package refuses
            continue
        # Of NO YAML makes false, and of 1.10 it makes 1.1.
        wrong = (bool, float) if name in IDENTITY else bool
        if about["type"] == "str" and any(isinstance(value, wrong) for value in (given, *said.values())):
            raise UsageError(f"The option {name} must be a string: put it into quotes.", hint=_HINT)
        try:
            value, origin = constants.config.get_config_value_and_origin(
                name,
                plugin_type=lookup.plugin_type,
                plugin_name=lookup._load_name,  # noqa: SLF001  there is no public way
                variables=said,
                direct=direct,
            )
        except AnsibleError:  # quotes the value
            raise UsageError(f"The option {name} has a value that it cannot take.", hint=_HINT) from None
        empty = value == "" and origin.startswith("env:")  # unset, as the package has it
        if value is not None and origin != "default" and not empty:
            options[name] = value if isinstance(value, bool) else _plain(value)
    return options


def _kinds(kind, field):
    """The kinds of token to ask for, in whose answer that field must be."""
    kinds = KINDS[kind]
    fields = [*(name for one in kinds for name in FIELDS[one]), "token_type", "source", "stale"]
    if field is not None and field not in fields:
        raise UsageError(f"There is no such field, only {', '.join(fields)}.", hint=_HINT)
    return tuple(map(Kind, kinds))


def _identity(term, options):
    """The user and the company of one term. What a term leaves out comes from the options."""
    if not isinstance(term, Mapping) or not term or set(term) - set(IDENTITY):
        raise UsageError("Each term must be a dict of user_id and company_name.", hint=_HINT)
    if any(
        isinstance(one, bool) or not (one is None or isinstance(one, int) or is_string(one))
        for one in term.values()
    ):
        raise UsageError(
            "The user_id and the company_name must be strings: put them into quotes.", hint=_HINT
        )
    return {name: _plain(value) for name, value in {**options, **term}.items() if name in IDENTITY}


def _plain(value):
    """Its text as Python's own string: core's strings carry tags, and the older ones stay what they are in `str()`.

    Null is an empty text, which the package refuses where it must not stand for another value.
    """
    text = "" if value is None else str.__str__(str(value))
    if text.startswith(_OMITTED):
        raise UsageError("Only a task's own options can be omitted.", hint=_HINT)
    return text
