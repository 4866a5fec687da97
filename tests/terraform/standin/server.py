"""Serve a stand-in to Terraform: go-plugin's handshake, then gRPC on a Unix socket.

Unlike tf's own it answers more than ten calls at once, and those that an interrupt ends; it stores no key.
It speaks no TLS: Terraform is to be run with TF_DISABLE_PLUGIN_TLS=1.
"""

import os
import select
import signal
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from socket import socket
from types import ModuleType
from typing import Any

import grpc

from . import programs

_AT_ONCE = 64  # calls; Terraform makes ten unless told otherwise
_GLANCE = 1.0  # seconds between two looks whether the launcher still lives


def serve(provider: ModuleType, launcher: socket) -> None:
    """Be this provider until Terraform says goodbye, or has ended the launcher at the other end."""
    if "PLUGIN_CLIENT_CERT" in os.environ:
        sys.exit("A stand-in speaks no TLS: set TF_DISABLE_PLUGIN_TLS=1.")
    # Ctrl-C reaches the whole group; what follows from it is Terraform's to say. Programs get the default back.
    signal.signal(signal.SIGINT, lambda number, frame: None)
    over = threading.Event()

    def shut_down(request: bytes, context: Any) -> bytes:
        over.set()
        return b""

    goodbye = {"Shutdown": grpc.unary_unary_rpc_method_handler(shut_down)}
    controller = grpc.method_handlers_generic_handler("plugin.GRPCController", goodbye)
    server = grpc.server(ThreadPoolExecutor(_AT_ONCE), handlers=(controller,))
    provider.add_to(server)
    with tempfile.TemporaryDirectory(prefix="provider-") as folder:
        server.add_insecure_port(f"unix:{folder}/socket")
        server.start()
        sys.stdout.write(f"1|6|unix|{folder}/socket|grpc|\n")
        sys.stdout.flush()
        while not over.wait(_GLANCE) and launcher not in select.select([launcher], [], [], 0)[0]:
            pass
        programs.stop()
        server.stop(_GLANCE).wait()
