"""The real `terraform`, with the real providers where their registry answers and with stand-ins where it doesn't."""

import json
import os
import secrets
import shlex
import subprocess
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from support.cli import kept
from support.environments import environment

_STANDIN = Path(__file__).parents[1] / "terraform/standin"
# Which versions the tests and the examples take, and which one the stand-in claims to be.
_PROVIDERS = {
    "external": ("~> 2.3", "2.3.5"),
    "local": (">= 2.7.0", "2.7.0"),
    "vault": ("~> 5.0", "5.11.0"),
}
_MIRROR = "mirror"  # of the stand-ins
_STARTER = "STANDIN_STARTER"  # where the launchers call
_DOWNLOADED_WITHIN = 300  # seconds; where no registry answers it is over at once


@dataclass(frozen=True)
class Terraform:
    """The binary, in an environment that holds nothing of its user's."""

    binary: str
    environ: Mapping[str, str]
    real: bool  # the providers; else they are stand-ins

    def run(
        self,
        *arguments: str,
        cwd: Path,
        env: Mapping[str, str] | None = None,
        check: bool = True,
        timeout: float = 120,
    ) -> subprocess.CompletedProcess[str]:
        """`terraform` with these arguments and these further variables. With `check` it asserts success."""
        done = subprocess.run(
            [self.binary, *arguments],
            cwd=cwd,
            env={**self.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done


def prepare(binary: str, folder: Path) -> None:
    """Fill the folder with what Terraform's `init` needs to find the providers external, local and vault."""
    config = _config(folder)
    config.touch()
    providers = _downloaded(_tool(binary, folder, real=True), folder)
    if providers is None:
        providers = _stand_ins(_tool(binary, folder, real=False), folder)
    mirror = f'filesystem_mirror {{\n    path = "{providers}"\n  }}'
    config.write_text(f"provider_installation {{\n  {mirror}\n}}\n", encoding="utf-8")


@contextmanager
def prepared(binary: str, folder: Path) -> Iterator[Terraform]:
    """Terraform with the folder that `prepare` has filled, for the length of a `with` block."""
    if not (folder / _MIRROR).exists():
        yield _tool(binary, folder, real=True)
        return
    tool, address = _tool(binary, folder, real=False), folder / f"starter-{secrets.token_hex(4)}"
    # In a group of its own: a Ctrl-C is for whoever runs the tests. It ends when its standard input does.
    with subprocess.Popen(
        _starter(folder, address),
        env=tool.environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        process_group=0,
    ) as starter:
        assert starter.stdout
        assert starter.stdout.readline() == b"ready\n"
        yield replace(tool, environ={**tool.environ, _STARTER: str(address)})


def _config(folder: Path) -> Path:
    return folder / "terraform.tfrc"


def _tool(binary: str, folder: Path, *, real: bool) -> Terraform:
    environ = kept() | {
        "CHECKPOINT_DISABLE": "1",
        "GOGC": "400",  # runs are short, and few of them need what a garbage collection frees
        "HOME": str(folder),
        # The command under test comes first.
        "PATH": os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]]),
        "TF_CLI_ARGS": "-no-color",
        "TF_CLI_CONFIG_FILE": str(_config(folder)),
        "TF_INPUT": "0",
        "TF_IN_AUTOMATION": "1",
        "TMPDIR": str(folder),  # the providers' sockets
    }
    if not real:  # TLS between Terraform and its providers is what the stand-ins don't speak
        environ["TF_DISABLE_PLUGIN_TLS"] = "1"
    return Terraform(binary, environ, real)


def _downloaded(tool: Terraform, folder: Path) -> Path | None:
    """Where the real providers are, laid out like a mirror; None if no registry answers."""
    wanted = {
        name: {"source": f"hashicorp/{name}", "version": version} for name, (version, _) in _PROVIDERS.items()
    }
    configuration = {"terraform": {"required_providers": wanted}}
    (folder / "main.tf.json").write_text(json.dumps(configuration), encoding="utf-8")
    # The way out may be a proxy of the user's.
    env = {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
    env |= {"TF_REGISTRY_CLIENT_TIMEOUT": "5", "TF_REGISTRY_DISCOVERY_RETRY": "0"}
    try:
        done = tool.run("init", cwd=folder, env=env, check=False, timeout=_DOWNLOADED_WITHIN)
    except subprocess.TimeoutExpired:
        return None
    return folder / ".terraform/providers" if done.returncode == 0 else None


def _stand_ins(tool: Terraform, folder: Path) -> Path:
    """Where the stand-ins are, laid out like a mirror. They run in a virtual environment of their own."""
    mirror = folder / _MIRROR
    environment(folder / "venv", f"--requirement={_STANDIN}/requirements.txt")
    platform = json.loads(tool.run("version", "-json", cwd=folder).stdout)["platform"]
    for name, (_, version) in _PROVIDERS.items():
        place = mirror / "registry.terraform.io/hashicorp" / name / version / platform
        place.mkdir(parents=True)
        launcher = place / f"terraform-provider-{name}_v{version}"
        command = shlex.join([_python(folder), "-IS", str(_STANDIN / "launcher.py")])
        # A Ctrl-C reaches the whole group; what follows from it is Terraform's to say.
        launcher.write_text(
            f'#!/bin/sh\ntrap "" INT\nexec {command} "${_STARTER}" {name}\n', encoding="utf-8"
        )
        launcher.chmod(0o755)
    # It ends at once, and leaves its modules compiled to those that the workers start.
    first, nothing = _starter(folder, folder / "first"), subprocess.DEVNULL
    subprocess.run(first, stdin=nothing, stdout=nothing, check=True, timeout=60)
    return mirror


def _python(folder: Path) -> str:
    return str(folder / "venv/bin/python")


def _starter(folder: Path, address: Path) -> list[str]:
    """The program that makes stand-ins; -I: no package of the tests, whatever the environment says."""
    start = f"import sys; sys.path.append({str(_STANDIN.parent)!r}); "
    return [_python(folder), "-Ic", start + f"from standin import starter; starter.main({str(address)!r})"]
