"""Just enough of two CI systems' runners to run what stands in an example: real shells, and the rules on what jobs see.

What they don't know fails. Both are also who signs the ID tokens that Vault asks about.
"""

import re
import secrets
import subprocess
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

from support.cli import World, kept
from support.oidc import Platform

VAULT_SETUP = Path(__file__).parents[2] / "examples/ci/vault-setup.sh"
IDENTITIES = [
    "Acme/26",
    "Acme/27",
    "Acme/28",
    "Acme/29",
    "Globex/26",
    "Globex/30",
]  # of the example manifests


@dataclass
class Job:
    """A job that ran. `log` is what the CI system shows of it, `said` what it wrote."""

    code: int
    said: str
    log: str


def shell(
    command: list[str], environ: Mapping[str, str], cwd: Path, *, check: bool = False
) -> tuple[int, str]:
    """Its exit code, and all that it wrote."""
    done = subprocess.run(
        command,
        env={**kept(), **environ},
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=120,
    )
    assert not check or done.returncode == 0, done.stdout
    return done.returncode, done.stdout


def stored(world: World) -> list[str]:
    """Which of these have a good access token in Vault."""
    return [one for one in IDENTITIES if world.vault.read(world.mount, f"klearstack/{one}/access")]


class GitHub(Platform):
    """GitHub's OpenID provider, and its runner."""

    def __init__(self) -> None:
        super().__init__()
        self.request_token = secrets.token_hex(20)
        self.grants = True  # ID tokens to jobs
        self.faults: list[str] = []  # of the next answers to requests for an ID token
        self.claims = {
            "repository_id": "123",
            "ref_protected": "true",
            "sub": "repo:acme/uploads:ref:refs/heads/main",
        }

    def fault(self, path: str) -> str:
        return self.faults.pop(0) if self.faults and urlsplit(path).path == "/id-token" else ""

    def document(self, path: str, authorization: str | None) -> dict[str, Any] | None:
        url = urlsplit(path)
        asked_by_a_job = authorization == f"Bearer {self.request_token}"
        if url.path == "/id-token" and asked_by_a_job and self.grants:
            (audience,) = parse_qs(url.query).get("audience", ["https://github.com/acme"])
            return {"count": 1, "value": self.issue(iss=self.url, aud=audience, **self.claims)}
        return super().document(path, authorization)

    @property
    def requests(self) -> dict[str, str]:
        """The variables by which a job requests an ID token."""
        return {
            "ACTIONS_ID_TOKEN_REQUEST_URL": f"{self.url}/id-token?api-version=2",
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN": self.request_token,
        }

    def run(
        self,
        workflow: Path,
        name: str,
        environ: Mapping[str, str],
        repository: Path,
        variables: Mapping[str, str],
        hidden: Mapping[str, str],
    ) -> Job:
        """One job of a workflow, in a checkout of the repository, which has these variables and these secrets."""
        whole = yaml.safe_load(workflow.read_text(encoding="utf-8"))
        job = whole["jobs"][name]
        assert job.keys() <= {"permissions", "runs-on", "steps", "timeout-minutes"}  # no outputs, no needs
        context = {"vars": variables, "secrets": hidden}
        temp = repository.parent / f"runner-{name}"
        temp.mkdir(parents=True, exist_ok=True)
        environ = dict(environ) | {"GITHUB_ACTIONS": "true", "SSL_CERT_FILE": str(self.ca_file)}
        if (job.get("permissions") or whole["permissions"]).get("id-token") == "write":
            environ |= self.requests
        shown = _filled(whole["env"], context)
        code, said, log = 0, "", ""
        for number, step in enumerate(job["steps"]):
            if "uses" in step:
                assert step["uses"].partition("@")[0] in {"actions/checkout", "actions/setup-python"}
                continue
            assert step.keys() <= {"name", "env", "run"}
            script, exported = temp / f"{number}.sh", temp / f"{number}.GITHUB_ENV"
            script.write_text(step["run"], encoding="utf-8")
            exported.write_text("")
            assert whole["defaults"]["run"]["shell"] == "bash"
            command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)]
            own = shown | _filled(step.get("env", {}), context)
            code, text = shell(command, environ | own | {"GITHUB_ENV": str(exported)}, repository)
            said += text
            # The runner writes the script and all these variables into the log before it runs the step.
            log += "\n".join(
                [step["run"], "env:", *(f"  {name}: {value}" for name, value in own.items()), text]
            )
            if code:
                break
            shown |= _assignments(exported)
        masks = [
            line for secret in hidden.values() for line in (secret, *secret.splitlines()) if line.strip()
        ]
        return Job(code, said, _as_shown(log, masks))


def _as_shown(said: str, masks: list[str]) -> str:
    """The log, in which values are masked: these, and each from the line on that says so."""
    masks, log = list(masks), ""
    for line in said.splitlines(keepends=True):
        command, _, value = line.rstrip("\n").partition("::add-mask::")
        if value and not command:
            masks.append(value)
            continue
        for mask in sorted(masks, key=len, reverse=True):
            line = line.replace(mask, "***")  # noqa: PLW2901
        log += line
    return log


def _filled(texts: Mapping[str, str], context: Mapping[str, Any]) -> dict[str, str]:
    def look_up(found: re.Match[str]) -> str:
        value: Any = context
        for name in found[1].split("."):
            value = value[name]
        assert isinstance(value, str)
        return value

    return {name: re.sub(r"\$\{\{ ([a-zA-Z_.]+) \}\}", look_up, text) for name, text in texts.items()}


def _assignments(file: Path) -> dict[str, str]:
    """What is in GITHUB_ENV, in either of the two forms."""
    lines, found = iter(file.read_text(encoding="utf-8").splitlines()), {}
    for line in lines:
        name, equals, value = line.partition("=")
        if equals and "<<" not in name:
            found[name] = value
        else:
            name, _, delimiter = line.partition("<<")
            found[name] = "\n".join(iter(lambda: next(lines), delimiter))
    return found


class GitLab(Platform):
    """GitLab's OpenID provider, and its runner."""

    def __init__(self) -> None:
        super().__init__()
        self.claims = {
            "project_id": "7",
            "ref_protected": "true",
            "sub": "project_path:acme/uploads:ref_type:branch",
        }

    def run(
        self,
        pipeline: Path,
        name: str,
        environ: Mapping[str, str],
        repository: Path,
        between: Callable[[], None] = lambda: None,
    ) -> list[Job]:
        """All copies of a job side by side, each with the retries that it asks for; `between` happens before these."""
        whole = yaml.safe_load(pipeline.read_text(encoding="utf-8"))
        job = whole[name]
        job = _merged(whole[job["extends"]], job)
        assert job.keys() <= {
            "before_script", "extends", "id_tokens", "image", "parallel", "retry", "rules", "script", "stage", "variables"
        }  # fmt: skip
        total = job.get("parallel", 1)
        environ = {**environ, **job["variables"]} | {"GITLAB_CI": "true", "CI_NODE_TOTAL": str(total)}
        script = "\n".join(["set -eo pipefail", *job["before_script"], *job["script"]])
        retry = job.get("retry", {"max": 0, "exit_codes": []})

        def run_copy(index: int) -> Job:
            node = {"CI_NODE_INDEX": str(index)} if total > 1 else {}
            for attempt in range(retry["max"] + 1):
                tokens = {
                    variable: self.issue(iss=self.url, **(asked | self.claims))
                    for variable, asked in job["id_tokens"].items()
                }
                code, said = shell(["bash", "-c", script], environ | node | tokens, repository)
                if code not in retry["exit_codes"] or attempt == retry["max"]:
                    break
                between()
            return Job(code, said, said)

        with ThreadPoolExecutor(total) as pool:
            return list(pool.map(run_copy, range(1, total + 1)))


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """GitLab's `extends`: mappings merge, all else is replaced."""
    merged = below | above
    for key in below.keys() & above.keys():
        if isinstance(below[key], dict) and isinstance(above[key], dict):
            merged[key] = _merged(below[key], above[key])
    return merged
