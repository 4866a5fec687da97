"""Real ansible-core, each version in a virtual environment of its own, into which our wheel was installed."""

import base64
import json
import re
import subprocess
import sys
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from support.cli import World
from support.environments import environment, wheel
from support.once import made_once

ROOT = Path(__file__).parents[2]
# The first and the last Python that each version's controller runs on.
_PYTHONS = {
    "2.16": ((3, 10), (3, 12)),
    "2.18": ((3, 11), (3, 13)),
    "2.19": ((3, 11), (3, 13)),
    "2.20": ((3, 12), (3, 14)),
}
CORES = [core for core, (first, last) in _PYTHONS.items() if first <= sys.version_info[:2] <= last]
TOKEN = "klearstack.vault.token"  # the lookup and the task
# Thousands of objects that Ansible loads are looked through at each turn of the garbage collector, which frees none of
# them, and a fork has to copy what is looked through.
_SELDOM = "import gc\ngc.set_threshold(50_000, 50, 50)\n"
# A fork inherits what its parent has loaded: all that asks the endpoint and Vault, and the lookup.
_EARLY = f"""\
{_SELDOM}
import importlib, os, pkgutil, sys
import hvac, requests, vault_plugin

for part in "app", "endpoint", "locks", "network", "output", "vault":
    whole = importlib.import_module("vault_plugin." + part)
    for module in pkgutil.walk_packages(getattr(whole, "__path__", []), whole.__name__ + "."):
        importlib.import_module(module.name)

def load_the_lookup():
    if loader := sys.modules.get("ansible.plugins.loader"):
        loader.lookup_loader.get({TOKEN!r})

os.register_at_fork(before=load_the_lookup)
"""
Tasks = Sequence[Mapping[str, Any]]
# What a test of several asks of one play: it yields its tasks, then gets what they registered, and the whole play.
Scene = Generator[Tasks, tuple[list[Any], subprocess.CompletedProcess[str]], None]


@dataclass(frozen=True)
class Ansible:
    """One version of ansible-core, and a folder for what a test writes."""

    core: str
    programs: Path  # the venv's bin
    folder: Path

    def environ(self, world: World) -> dict[str, str]:
        """What leads to the endpoint and the Vault of that world, and keeps Ansible's own talk down."""
        return world.environ | {
            "ANSIBLE_FORKS": "5",
            "ANSIBLE_INVENTORY_ENABLED": "ini,yaml",  # loads no others
            "ANSIBLE_LOCALHOST_WARNING": "False",
            "ANSIBLE_INVENTORY_UNPARSED_WARNING": "False",
            "ANSIBLE_NOCOLOR": "True",
            "HOME": str(self.folder),
            "PATH": f"{self.programs}:{world.environ['PATH']}",
        }

    def play(
        self,
        world: World,
        tasks: Tasks,
        *arguments: str,
        hosts: int = 0,
        env: Mapping[str, str | None] | None = None,
        check: bool = True,
        then: Mapping[str, Any] | None = None,
        **play: Any,
    ) -> subprocess.CompletedProcess[str]:
        """`ansible-playbook` over one play with these tasks, on localhost or on that many hosts that are local.

        A variable that is None is taken out of the environment. With `check` it asserts success. `then` is what a second
        play has in place of the first one's.
        """
        names = [f"host{number}" for number in range(hosts)] or ["localhost"]
        playbook, inventory = self.folder / "playbook.yml", self.folder / "inventory"
        whole = {"hosts": "all", "gather_facts": False, "tasks": list(tasks), **play}
        playbook.write_text(
            json.dumps([whole, *([{**whole, **then}] if then else [])]), encoding="utf-8"
        )  # JSON is YAML
        interpreter = f"ansible_python_interpreter={self.programs}/python"
        inventory.write_text(
            "".join(f"{name} ansible_connection=local {interpreter}\n" for name in names), encoding="utf-8"
        )
        environ = {**self.environ(world), **(env or {})}
        done = self.run("ansible-playbook", "-i", str(inventory), str(playbook), *arguments, env=environ)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def results(self, world: World, tasks: Tasks, *arguments: str, **how: Any) -> list[Any]:
        """What each of these tasks registers on localhost, failed or not."""
        return registered(self.play(world, registering(tasks), *arguments, **how))

    def early(self, then: str = "") -> dict[str, str]:
        """What makes Python load at its start what else each of many forks would load, and run more."""
        folder = self.folder / "early"
        folder.mkdir(exist_ok=True)
        (folder / "sitecustomize.py").write_text(f"{_EARLY}{then}", encoding="utf-8")
        return {"PYTHONPATH": str(folder)}

    def together(
        self,
        world: World,
        *scenes: Scene,
        flags: Sequence[str] = (),
        env: Mapping[str, str | None] | None = None,
        **how: Any,
    ) -> None:
        """One play for all these scenes, since most of its time goes by before its first task."""
        asked = [list(next(scene)) for scene in scenes]
        tasks = registering([task for tasks in asked for task in tasks])
        done = self.play(world, tasks, *flags, env={**self.early(), **(env or {})}, **how)
        results = iter(registered(done))
        for scene, tasks in zip(scenes, asked, strict=True):
            with pytest.raises(StopIteration):  # after its asserts
                scene.send((list(islice(results, len(tasks))), done))

    def assert_minted_once(self, world: World, *, forks: int) -> None:
        """50 hosts, so many at once, ask for two identities of which nothing is stored."""
        source = shown(lookup("field='source'"))
        tasks = [source, token(user_id=27), token()]
        done = self.play(world, tasks, "--forks", str(forks), hosts=50, env=self.early())
        assert world.endpoint.mints == 2
        assert (done.stdout.count('"msg": "endpoint"'), done.stdout.count('"msg": "vault"')) == (1, 49)
        assert len(re.findall(r"ok=3 +changed=1 ", done.stdout)) == 1
        assert len(re.findall(r"ok=3 +changed=0 ", done.stdout)) == 49

    def assert_examples_run(self, world: World, *, turned: bool = False) -> None:
        """The examples one after the other, where nothing is stored: the first one mints, the second one reads."""
        examples = ROOT / "examples/ansible"
        plays = sorted(str(play) for play in examples.glob("with-*.yml"))
        assert len(plays) == 2
        turn = -1 if turned != (self.core == CORES[0]) else 1  # each is the first one on some version
        arguments = ("-i", str(examples / "inventory.yml"), "-v", *plays[::turn])
        done = self.run("ansible-playbook", *arguments, env=self.environ(world), cwd=examples)
        assert done.returncode == 0, done.stdout + done.stderr
        assert world.endpoint.mints == 1
        assert done.stdout.count("unreachable=0    failed=0") == 2 * 3
        assert world.endpoint.requests == 1 + 2 * 3  # the mint, and each host's call in both plays
        assert not [jwt for jwt in world.endpoint.issued if jwt in done.stdout + done.stderr]

    def run(
        self, program: str, *arguments: str, env: Mapping[str, str | None], cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """One of the programs that came with this ansible-core."""
        return subprocess.run(
            [str(self.programs / program), *arguments],
            env={name: value for name, value in env.items() if value is not None},
            cwd=cwd or self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )


def lookup(arguments: str = "") -> str:
    """An expression."""
    return f"lookup('{TOKEN}'{arguments and ', '}{arguments})"


def shown(expression: str, **keywords: Any) -> dict[str, Any]:
    """A task that shows what an expression comes to."""
    return {"ansible.builtin.debug": {"msg": f"{{{{ {expression} }}}}"}, **keywords}


def token(**options: Any) -> dict[str, Any]:
    """Our task."""
    return {TOKEN: options}


def at(world: World, tasks: Tasks, **settings: str) -> Tasks:
    """The same tasks, led by variables to that world's endpoint and mount, and by further settings."""
    settings = {"url": world.endpoint.url, "mount": world.mount, **settings}
    variables = {f"ansible_klearstack_{name}": value for name, value in settings.items()}
    return [{**task, "vars": {**variables, **task.get("vars", {})}} for task in tasks]


def registering(tasks: Tasks) -> Tasks:
    """The same tasks, which may fail, and one that shows `registered` what they register, also what they hide."""
    names = [task.get("register", f"result{number}") for number, task in enumerate(tasks)]
    kept = [
        {"register": name, "ignore_errors": True, **task} for name, task in zip(names, tasks, strict=True)
    ]
    return [*kept, shown(f"'RESULTS ' ~ [{', '.join(names)}] | to_json | b64encode")]


def registered(done: subprocess.CompletedProcess[str]) -> list[Any]:
    (found,) = re.findall('"msg": "RESULTS (.*)"', done.stdout)
    answers: list[Any] = json.loads(base64.b64decode(found))
    return answers


def built_wheel(factory: pytest.TempPathFactory) -> Path:
    """Our wheel, built from this checkout once per run."""

    (built,) = made_once(factory, "wheel", lambda folder: wheel(ROOT, folder)).glob("*.whl")
    return built


def installed(core: str, factory: pytest.TempPathFactory, folder: Path) -> Ansible:
    """That version with our wheel, which is made once per run, and a folder for what the test writes."""
    packages = (f"ansible-core=={core}.*", str(built_wheel(factory)))

    def make(venv: Path) -> None:
        environment(venv, *packages)
        (site,) = venv.glob("lib/python*/site-packages")
        (site / "sitecustomize.py").write_text(_SELDOM, encoding="utf-8")

    venv = made_once(factory, f"ansible-core-{core}", make)
    return Ansible(core, venv / "bin", folder)
