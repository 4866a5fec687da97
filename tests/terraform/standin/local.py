"""A stand-in for hashicorp/local: the ephemeral resource `local_command`."""

import shutil
from typing import Any

from . import programs, protocol
from .provider import Provider, ProviderError, Source, Values


def _open(config: Values) -> Values:
    path = shutil.which(config["command"])
    if path is None:
        why = f"Command: {config['command']}\nError: executable file not found in $PATH"
        raise ProviderError("Command Lookup Failed", why, "command")
    arguments = [item for item in config["arguments"] or () if item is not None]
    command, failed = " ".join([path, *arguments]), "Command Execution Failed"
    try:
        ended = programs.run(path, arguments, config["stdin"], config["working_directory"])
    except OSError as error:
        raise ProviderError(failed, f"Command: {command}\nState: {error}", "command") from None
    if ended.status and not config["allow_non_zero_exit_code"]:
        why = f"Command: {command}\nCommand Error: {ended.stderr}\nState: {ended.state}"
        raise ProviderError(failed, why, "command")
    return {"exit_code": ended.status, "stdout": ended.stdout or None, "stderr": ended.stderr or None}


def add_to(server: Any) -> None:
    schema = {
        "command": "string required",
        "arguments": "list(string) optional",
        "stdin": "string optional",
        "working_directory": "string optional",
        "allow_non_zero_exit_code": "bool optional",
        "exit_code": "number computed",
        "stdout": "string computed",
        "stderr": "string computed",
    }
    protocol.add(Provider(ephemeral={"local_command": Source(schema, _open)}), server)
