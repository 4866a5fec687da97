"""A stand-in for hashicorp/external: the data source `external`, built on the PyPI package `tf`."""

import json
import shutil
from typing import Any

from tf.gen.tfplugin_pb2_grpc import add_ProviderServicer_to_server
from tf.iface import DataSource, Provider
from tf.provider import ProviderServicer
from tf.schema import Attribute, Schema
from tf.types import List, Map, String

from . import programs
from .provider import ProviderError, Values, go_json

_GO_TYPES = {bool: "bool", int: "number", float: "number", list: "array", dict: "object", str: "string"}


def _read(config: Values) -> Values:
    program = [item for item in config["program"] if item]
    if not program:
        raise ProviderError("External Program Missing", "All items of program are empty.", "program")
    path = shutil.which(program[0])
    if path is None:
        why = f"Program: {program[0]}\nError: executable file not found in $PATH"
        raise ProviderError("External Program Lookup Failed", why, "program")
    query = {key: value for key, value in (config["query"] or {}).items() if value is not None}
    failed = "External Program Execution Failed"
    try:
        ended = programs.run(path, program[1:], go_json(query), config["working_dir"])
    except OSError as error:
        raise ProviderError(failed, f"Program: {path}\nState: {error}", "program") from None
    if ended.status:
        said = "The program was executed, however it returned no additional error messaging."
        said = f"Error Message: {ended.stderr}" if ended.stderr else said
        raise ProviderError(failed, f"Program: {path}\n{said}\nState: {ended.state}", "program")
    try:
        return {"id": "-", "result": _strings(ended.stdout)}
    except ValueError as error:
        why = "Program output must be a JSON encoded map of string keys and string values."
        why += f"\n\nProgram: {path}\nResult Error: {error}"
        raise ProviderError("Unexpected External Program Results", why, "program") from None


def _strings(text: str) -> dict[str, str] | None:
    """What Go's json.Unmarshal makes of it for a map[string]string. Raises ValueError."""
    try:
        answer = json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        character = text[error.pos : error.pos + 1]
        after = " after top-level value" if error.msg == "Extra data" else " looking for beginning of value"
        what = f"invalid character {character!r}{after}" if character else "unexpected end of JSON input"
        raise ValueError(what) from None
    if answer is None:
        return None
    _is(answer, dict, "map[string]string")
    return {key: _is("" if value is None else value, str, "string") for key, value in answer.items()}


def _is(value: Any, type_: type, name: str) -> Any:
    if isinstance(value, type_):
        return value
    raise ValueError(f"json: cannot unmarshal {_GO_TYPES[type(value)]} into Go value of type {name}")


def _no_constant(name: str) -> None:
    raise ValueError(f"invalid character {name[0]!r} looking for beginning of value")


class _DataSource(DataSource):  # type: ignore[misc]
    def __init__(self, provider: Provider) -> None:
        pass

    @classmethod
    def get_name(cls) -> str:
        return "external"

    @classmethod
    def get_schema(cls) -> Schema:
        return Schema(
            [
                Attribute("program", List(String()), required=True),
                Attribute("working_dir", String(), optional=True),
                Attribute("query", Map(String()), optional=True),
                Attribute("result", Map(String()), computed=True),
                Attribute("id", String(), computed=True),
            ]
        )

    def read(self, ctx: Any, config: Values) -> Values | None:
        try:
            return config | _read(config)
        except ProviderError as error:
            ctx.diagnostics.add_error(*error.args)
            return None


class _Provider(Provider):  # type: ignore[misc]
    def full_name(self) -> str:
        return "stand-in for hashicorp/external"

    def get_model_prefix(self) -> str:
        return ""

    def get_provider_schema(self, diags: Any) -> Schema:
        return Schema()

    def validate_config(self, diags: Any, config: Values) -> None:
        pass

    def configure_provider(self, diags: Any, config: Values) -> None:
        pass

    def get_data_sources(self) -> list[type[DataSource]]:
        return [_DataSource]

    def get_resources(self) -> list[Any]:
        return []


class _Servicer(ProviderServicer):  # type: ignore[misc]
    def StopProvider(self, request: Any, context: Any) -> Any:  # noqa: N802
        programs.stop()
        return super().StopProvider(request, context)


def add_to(server: Any) -> None:
    add_ProviderServicer_to_server(_Servicer(_Provider()), server)
