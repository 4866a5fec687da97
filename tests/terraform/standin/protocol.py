"""Terraform's plugin protocol for what `tf` doesn't know: ephemeral resources and write-only arguments.

The messages are tf's, of an older version of the protocol: fields of a newer one are put in as they are sent.
"""

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import grpc
from google.protobuf.wrappers_pb2 import BytesValue
from tf.gen import tfplugin_pb2
from tf.types import Unknown
from tf.utils import Diagnostic, read_dynamic_value, to_dynamic_value

from . import programs
from .provider import Provider, ProviderError, Resource, Schema, Source

_WRITE_ONLY = b"\x58\x01"  # field 11 of an attribute, a boolean

Fields = dict[str, Any]  # of a response; `newer` are those that tf doesn't know


def add(provider: Provider, server: Any) -> None:
    """Let the server answer Terraform's calls by this provider."""
    calls: Mapping[str, Callable[[Any], Fields]] = {
        "GetProviderSchema": partial(_schemas, provider),
        "ValidateProviderConfig": _nothing,
        "ConfigureProvider": partial(_configure, provider),
        "StopProvider": _stop,
        "ValidateEphemeralResourceConfig": _nothing,
        "OpenEphemeralResource": partial(_open, provider.ephemeral),
        "CloseEphemeralResource": _nothing,
        "ValidateResourceConfig": partial(_check, provider.resources),
        "UpgradeResourceState": _upgrade,
        "ReadResource": partial(_read, provider.resources),
        "PlanResourceChange": partial(_plan, provider.resources),
        "ApplyResourceChange": partial(_apply, provider.resources),
    }
    handlers = {}
    for name, call in calls.items():
        # What tf doesn't know, the calls of ephemeral resources, starts with the same fields as this.
        messages = getattr(tfplugin_pb2, name, tfplugin_pb2.ValidateDataResourceConfig)
        answer = partial(_answer, call, messages.Response)
        handlers[name] = grpc.unary_unary_rpc_method_handler(answer, messages.Request.FromString)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("tfplugin6.Provider", handlers)])


def _answer(call: Callable[[Any], Fields], response: Any, request: Any, context: Any) -> Any:
    try:
        fields = call(request)
    except ProviderError as error:
        fields = {"diagnostics": [Diagnostic.error(*error.args).to_pb()]}
    newer = fields.pop("newer", b"")
    return response(**fields).SerializeToString() + newer


def _field(number: int, content: bytes) -> bytes:
    """A field as it is sent: the first of this message of protobuf's own, by another number."""
    sent: bytes = BytesValue(value=content).SerializeToString()
    return bytes([number << 3 | 2]) + sent[1:]


def _nothing(request: Any) -> Fields:
    return {}


def _schemas(provider: Provider, request: Any) -> Fields:
    resources = {name: _schema(resource.schema) for name, resource in provider.resources.items()}
    newer = b""
    for name, source in provider.ephemeral.items():
        newer += _field(8, _field(1, name.encode()) + _field(2, _schema(source.schema).SerializeToString()))
    return {"provider": _schema(provider.schema), "resource_schemas": resources, "newer": newer}


def _configure(provider: Provider, request: Any) -> Fields:
    provider.configure(read_dynamic_value(request.config))
    return {}


def _stop(request: Any) -> Fields:
    programs.stop()
    return {}


def _open(sources: Mapping[str, Source], request: Any) -> Fields:
    config = read_dynamic_value(request.config)
    opened = to_dynamic_value(config | sources[request.type_name].read(config))
    return {"newer": _field(3, opened.SerializeToString())}


def _check(resources: Mapping[str, Resource], request: Any) -> Fields:
    resources[request.type_name].check(read_dynamic_value(request.config))
    return {}


def _upgrade(request: Any) -> Fields:
    return {"upgraded_state": {"json": request.raw_state.json}}


def _read(resources: Mapping[str, Resource], request: Any) -> Fields:
    state = read_dynamic_value(request.current_state)
    return {"new_state": to_dynamic_value(resources[request.type_name].read(state))}


def _plan(resources: Mapping[str, Resource], request: Any) -> Fields:
    resource, prior = resources[request.type_name], read_dynamic_value(request.prior_state)

    def those(flag: str) -> list[str]:
        return [name for name, text in resource.schema.items() if flag in text]

    planned = read_dynamic_value(request.proposed_new_state) | dict.fromkeys(those("write_only"))
    changes = those("computed") if prior is None else resource.changes if planned != prior else ()
    replaced_by = [name for name in resource.replaced_by if prior and prior[name] != planned[name]]
    return {
        "planned_state": to_dynamic_value(planned | dict.fromkeys(changes, Unknown)),
        "requires_replace": [{"steps": [{"attribute_name": name}]} for name in replaced_by],
    }


def _apply(resources: Mapping[str, Resource], request: Any) -> Fields:
    resource, planned = resources[request.type_name], read_dynamic_value(request.planned_state)
    prior = read_dynamic_value(request.prior_state)
    if planned is None:
        resource.delete(prior)
        return {}
    return {"new_state": to_dynamic_value(resource.write(prior, planned, read_dynamic_value(request.config)))}


def _schema(schema: Schema) -> Any:
    return tfplugin_pb2.Schema(block=_block(schema))


def _block(schema: Schema) -> Fields:
    attributes, blocks = [], []
    for name, about in schema.items():
        if isinstance(about, Mapping):
            blocks.append({"type_name": name, "block": _block(about), "nesting": "LIST"})
            continue
        type_, *flags = about.split()
        outer, _, inner = type_.rstrip(")").partition("(")
        encoded = json.dumps([outer, inner] if inner else outer).encode()
        known = dict.fromkeys({*flags} - {"write_only"}, True)
        attribute = tfplugin_pb2.Schema.Attribute(name=name, type=encoded, **known)
        if "write_only" in flags:
            attribute.MergeFromString(_WRITE_ONLY)
        attributes.append(attribute)
    return {"attributes": attributes, "block_types": blocks}
