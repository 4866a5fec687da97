"""Serve a stand-in to Terraform: go-plugin's handshake, then the plugin protocol by gRPC on a Unix socket.

It speaks no TLS: Terraform is to be run with TF_DISABLE_PLUGIN_TLS=1.
"""

import json
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import import_module
from typing import Any

import grpc
import msgpack
import tfplugin6_pb2
from google.protobuf.message_factory import GetMessageClass

from . import programs
from .provider import Provider, ProviderError, Resource, Schema, Source

_PROTOCOL = tfplugin6_pb2.DESCRIPTOR.services_by_name["Provider"]
_UNKNOWN = msgpack.ExtType(0, b"\0")
_AT_ONCE = 64  # calls; Terraform makes ten unless told otherwise
_GLANCE = 1.0  # seconds between two looks whether Terraform still lives

Fields = dict[str, Any]  # of a response


def _calls(provider: Provider) -> Mapping[str, Callable[[Any], Fields]]:
    """What answers the calls of the protocol, where there is something to do."""
    return {
        "GetProviderSchema": partial(_schemas, provider),
        "ConfigureProvider": partial(_configure, provider),
        "StopProvider": _stop,
        "ReadDataSource": partial(_read_source, provider.data, "state"),
        "OpenEphemeralResource": partial(_read_source, provider.ephemeral, "result"),
        "ValidateResourceConfig": partial(_check, provider.resources),
        "UpgradeResourceState": _upgrade,
        "ReadResource": partial(_read, provider.resources),
        "PlanResourceChange": partial(_plan, provider.resources),
        "ApplyResourceChange": partial(_apply, provider.resources),
    }


def _schemas(provider: Provider, request: Any) -> Fields:
    kinds: dict[str, Mapping[str, Source | Resource]] = {
        "data_source_schemas": provider.data,
        "ephemeral_resource_schemas": provider.ephemeral,
        "resource_schemas": provider.resources,
    }
    schemas = {
        field: {name: tfplugin6_pb2.Schema(block=_block(kind.schema)) for name, kind in named.items()}
        for field, named in kinds.items()
    }
    return {"provider": {"block": _block(provider.schema)}, **schemas}


def _configure(provider: Provider, request: Any) -> Fields:
    provider.configure(_decoded(request.config))
    return {}


def _stop(request: Any) -> Fields:
    programs.stop()
    return {}


def _read_source(sources: Mapping[str, Source], field: str, request: Any) -> Fields:
    config = _decoded(request.config)
    return {field: _encoded(config | sources[request.type_name].read(config))}


def _check(resources: Mapping[str, Resource], request: Any) -> Fields:
    resources[request.type_name].check(_decoded(request.config))
    return {}


def _upgrade(request: Any) -> Fields:
    return {"state": {"json": request.raw_state.json}}


def _read(resources: Mapping[str, Resource], request: Any) -> Fields:
    return {"state": _encoded(resources[request.type_name].read(_decoded(request.config)))}


def _plan(resources: Mapping[str, Resource], request: Any) -> Fields:
    resource, prior = resources[request.type_name], _decoded(request.prior_state)

    def those(flag: str) -> list[str]:
        return [name for name, text in resource.schema.items() if flag in text]

    planned = _decoded(request.next_state) | dict.fromkeys(those("write_only"))
    changes = those("computed") if prior is None else resource.changes if planned != prior else ()
    replaced_by = [name for name in resource.replaced_by if prior and prior[name] != planned[name]]
    return {
        "planned_state": _encoded(planned | dict.fromkeys(changes, _UNKNOWN)),
        "requires_replace": [_path(name) for name in replaced_by],
    }


def _apply(resources: Mapping[str, Resource], request: Any) -> Fields:
    resource, planned = resources[request.type_name], _decoded(request.next_state)
    if planned is None:
        resource.delete(_decoded(request.prior_state))
        return {"new_state": _encoded(None)}
    return {"new_state": _encoded(resource.write(planned, _decoded(request.config)))}


def _block(schema: Schema) -> Fields:
    attributes, blocks = [], []
    for name, about in schema.items():
        if isinstance(about, Mapping):
            blocks.append({"type_name": name, "block": _block(about), "nesting": "LIST"})
            continue
        type_, *flags = about.split()
        outer, _, inner = type_.rstrip(")").partition("(")
        encoded = json.dumps([outer, inner] if inner else outer).encode()
        attributes.append({"name": name, "type": encoded} | dict.fromkeys(flags, True))
    return {"attributes": attributes, "block_types": blocks}


def _decoded(value: Any) -> Any:
    return msgpack.unpackb(value.msgpack)


def _encoded(values: object) -> Fields:
    return {"msgpack": msgpack.packb(values)}


def _path(argument: str) -> Fields:
    return {"steps": [{"attribute_name": argument}] if argument else []}


def _answer(call: Callable[[Any], Fields], response: Any, request: Any, context: Any) -> Any:
    try:
        return response(**call(request))
    except ProviderError as error:
        shown = {"severity": "ERROR", "summary": error.summary, "detail": error.detail}
        return response(diagnostics=[shown | {"attribute": _path(error.argument)}])


def _handlers(provider: Provider) -> Any:
    calls, handlers = _calls(provider), {}
    for method in _PROTOCOL.methods:
        request, response = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
        answer = partial(_answer, calls.get(method.name, lambda request: {}), response)
        handlers[method.name] = grpc.unary_unary_rpc_method_handler(
            answer, request.FromString, response.SerializeToString
        )
    return grpc.method_handlers_generic_handler(_PROTOCOL.full_name, handlers)


def serve(name: str) -> None:
    """Be the provider of this name until Terraform says goodbye, or is gone."""
    if "PLUGIN_CLIENT_CERT" in os.environ:
        sys.exit("A stand-in speaks no TLS: set TF_DISABLE_PLUGIN_TLS=1.")
    # Ctrl-C reaches the whole group; what follows from it is Terraform's to say. Programs get the default back.
    signal.signal(signal.SIGINT, lambda number, frame: None)
    terraform, over = os.getppid(), threading.Event()

    def shut_down(request: bytes, context: Any) -> bytes:
        over.set()
        return b""

    goodbye = {"Shutdown": grpc.unary_unary_rpc_method_handler(shut_down)}
    controller = grpc.method_handlers_generic_handler("plugin.GRPCController", goodbye)
    provider: Provider = import_module(f".{name}", __package__).provider()
    server = grpc.server(ThreadPoolExecutor(_AT_ONCE), handlers=(_handlers(provider), controller))
    with tempfile.TemporaryDirectory(prefix="provider-") as folder:
        server.add_insecure_port(f"unix:{folder}/socket")
        server.start()
        sys.stdout.write(f"1|6|unix|{folder}/socket|grpc|\n")
        sys.stdout.flush()
        while not over.wait(_GLANCE) and os.getppid() == terraform:
            pass
        programs.stop()
        server.stop(_GLANCE).wait()
