"""README and docs/ say what the code does. Run this file to write their generated tables and the man pages again."""

import ast
import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import fill

import click
import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parents[1]))  # where this file is run, and not collected

from support.man_pages import man_pages
from support.pages import COLLECTION, PAGES, ROOT, block, blocks, policy, read
from support.sources import trees

from vault_plugin import cli
from vault_plugin.errors import KlearstackVaultError
from vault_plugin.network.sockets import within
from vault_plugin.network.tls import Tls
from vault_plugin.protocols.kubernetes import VERSIONS
from vault_plugin.protocols.terraform import OPTIONAL
from vault_plugin.settings import Settings
from vault_plugin.timing.deadline import Deadline

MANUAL = ROOT / "docs" / "man"
REPOSITORY = "https://github.com/klearstack/klearstack-vault"
# Exit codes that are no error's.
OTHER_CODES = {
    0: "success",
    2: "`sync --detailed-exitcode`: a token was, or would be, minted, copied or pruned",
    3: "`status --exit-code`: a token is about to expire (`--warn`), and none is missing",
    4: "`status --exit-code`: a token is missing or has expired, or nothing is stored",
    5: "`sync`, `delete`: some identities failed or were not tried; the others are done",
    130: "interrupted (Ctrl-C); 128 + n: ended by signal n, or `exec`'s command was",
}
RETRYABLE = {5}  # of these


def settings_table() -> str:
    rows = ["| flag | environment variable | default | meaning |", "|---|---|---|---|"]
    for setting, origin in Settings.origins.items():
        flag = f"`--{setting.replace('_', '-')}`" if origin.flag else ""
        default = "required" if origin.required else ""
        if isinstance(origin.default, float):
            default = f"`{origin.default:g}`"
        elif setting == "lock_dir":
            default = "`/tmp/klearstack-vault-UID`"
        elif origin.default not in (None, False):
            default = f"`{origin.default}`"
        variables = ", ".join(f"`{name}`" for name in origin.env)
        rows.append(f"| {flag} | {variables} | {default} | {origin.help}{choices(origin.choices)} |")
    return "\n".join(rows)


def choices(names: tuple[str, ...]) -> str:
    return f" One of {', '.join(f'`{name}`' for name in names)}." if names else ""


def errors() -> Iterator[type[KlearstackVaultError]]:
    """Each class of errors that has a meaning of its own, by exit code."""
    commands()  # or their modules, some of which have errors, might not be loaded
    found = [KlearstackVaultError]
    for kind in found:
        found += kind.__subclasses__()
    yield from sorted((kind for kind in found if "meaning" in vars(kind)), key=lambda kind: kind.exit_code)


def exit_codes_table() -> str:
    rows = [
        (kind.exit_code, f"`{kind.code}`", kind.meaning, "yes" if kind("").retryable else "no")
        for kind in errors()
    ]
    rows += [(code, "", meaning, "yes" if code in RETRYABLE else "") for code, meaning in OTHER_CODES.items()]
    head = ["| exit code | `code` in JSON | meaning | retry? |", "|---|---|---|---|"]
    return "\n".join(
        head + [f"| {' | '.join(map(str, row))} |" for row in sorted(rows, key=lambda row: row[0])]
    )


def exit_codes() -> dict[int, list[str]]:
    """What each exit code means, as the man pages say it."""
    found = {code: [meaning] for code, meaning in OTHER_CODES.items()}
    for kind in errors():
        found.setdefault(kind.exit_code, []).append(kind.meaning)
    return dict(sorted(found.items()))


def commands() -> dict[str, click.Command]:
    """All commands that users may call, by their names."""
    context = click.Context(cli.cli)
    found = {name: cli.cli.get_command(context, name) for name in cli.cli.list_commands(context)}
    return {name: command for name, command in found.items() if command is not None and not command.hidden}


def options_table(name: str) -> str:
    """The options of a command, but for those of settings.md."""
    rows = ["| option | meaning |", "|---|---|"]
    for param in commands()[name].params:
        if not isinstance(param, click.Option) or type(param).__name__ == "SettingOption":
            continue
        value = "" if param.is_flag or param.count or not param.metavar else f" {param.metavar}"
        names = tuple(map(str, getattr(param.type, "choices", ())))
        value_of = f"{param.default:g}" if isinstance(param.default, float) else param.default
        default = f" Default: `{value_of}`." if param.show_default and value_of is not None else ""
        text = " ".join(f"{param.help}{choices(names)}{default}".replace("|", "\\|").split())
        rows.append(f"| `{', '.join(param.opts)}{value}` | {text} |")
    return "\n".join(rows)


def query_keys() -> str:
    """The keys that Terraform's query may have, in lines of at most 120 characters."""
    return fill(", ".join(f"`{name}`" for name in OPTIONAL) + ".", 120, break_on_hyphens=False)


TABLES: dict[str, dict[str, Callable[[], str]]] = {
    "docs/settings.md": {"settings": settings_table},
    "docs/errors.md": {"exit codes": exit_codes_table},
    "docs/commands.md": {
        f"options of {name}": (lambda name=name: options_table(name))  # type: ignore[misc]
        for name in ("get", "exec", "status", "delete", "doctor", "simulate")
    },
    "examples/terraform/README.md": {"keys of the query": query_keys},
    "docs/helpers.md": {"options of helper": lambda: options_table("helper")},
    "docs/manifests.md": {
        f"options of {name}": (lambda name=name: options_table(name))  # type: ignore[misc]
        for name in ("sync", "watch")
    },
}


def with_tables(page: str) -> str:
    """The page with its tables as the code has them."""
    text = read(page)
    for name, table in TABLES[page].items():
        head, start, rest = text.partition(f"<!-- {name}: generated by tests/unit/test_docs.py -->\n")
        _, end, tail = rest.partition(f"<!-- /{name} -->")
        assert start
        assert end, f"{page} has no place for the {name}"
        text = f"{head}{start}{table()}\n{end}{tail}"
    return text


def manual() -> dict[str, str]:
    """The man pages by file name."""
    return man_pages(commands(), exit_codes())


def test_the_man_pages_are_those_of_the_code() -> None:
    assert {path.name: path.read_text(encoding="utf-8") for path in MANUAL.iterdir()} == manual()


def test_the_tables_of_a_page_are_those_of_the_code() -> None:
    for page in TABLES:
        assert with_tables(page) == read(page), page


def test_the_table_of_exit_codes_has_each_code_of_the_code() -> None:
    table = exit_codes_table()
    shown = set(map(int, re.findall(r"^\| (\d+) ", table, re.MULTILINE)))
    assert shown == {kind.exit_code for kind in errors()} | OTHER_CODES.keys()
    assert len({kind.code for kind in errors()}) == len(list(errors())) == 24
    assert len(re.findall(r"\| yes \|$", table, re.MULTILINE)) == 5 + len(RETRYABLE)


def test_the_readme_has_at_most_1000_words() -> None:
    assert len(read("README.md").split()) <= 1000


def test_the_readme_calls_the_two_commands_as_they_are() -> None:
    lines = read("README.md").splitlines()
    assert "python -m pip install '.[demo]' && klearstack-vault demo" in lines
    assert "python -m pip install '.[test]' && python -m pytest" in lines  # .ci/run looks for it


def test_the_recipe_for_kubectl_names_the_cluster() -> None:
    page = "docs/helpers.md"
    kubeconfig = yaml.safe_load(block(page, "# kubeconfig"))
    plugin = kubeconfig["users"][0]["user"]["exec"]
    assert (plugin["command"], plugin["args"]) == ("klearstack-vault", ["helper", "exec-credential"])
    assert (plugin["provideClusterInfo"], plugin["interactiveMode"]) == (True, "Never")
    assert plugin["apiVersion"] in VERSIONS


def test_the_policy_is_everywhere_the_same() -> None:
    scripts = [
        (ROOT / "examples" / name / "vault-setup.sh").read_text(encoding="utf-8")
        for name in ("ci", "kubernetes", "systemd")
    ]
    texts = [read("README.md"), read("docs/storage.md"), *scripts]
    assert len(set(map(policy, texts))) == 1


def test_the_project_has_one_address() -> None:
    urls = tomllib.loads(read("pyproject.toml"))["project"]["urls"]
    assert {url.removeprefix(REPOSITORY).partition("/")[0] for url in urls.values()} == {""}
    galaxy = yaml.safe_load(read(f"{COLLECTION}/galaxy.yml"))
    assert (galaxy["repository"], galaxy["issues"]) == (urls["Source"], urls["Issues"])


def test_the_source_distribution_has_all_pages_and_what_they_link_to() -> None:
    included = tomllib.loads(read("pyproject.toml"))["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    assert [page for page in PAGES if page.partition("/")[0] not in included] == []


def messages() -> str:
    """All texts in the package's code, one after the other."""
    found: list[str] = []
    for tree in trees().values():
        nodes = ast.walk(tree)
        found += [one.value for one in nodes if isinstance(one, ast.Constant) and isinstance(one.value, str)]
    return "\n".join(found)


def test_each_message_of_the_page_on_troubleshooting_is_one_of_the_code() -> None:
    rows = re.findall(r"^\| (`.*?`) \| [^|]+ \| [^|]+ \|$", read("docs/troubleshooting.md"), re.MULTILINE)
    assert len(rows) > 40
    said = [text for row in rows for text in re.findall(r"`([^`]+)`", row)]
    code = messages()
    assert [text for text in said if text not in code] == []


def test_tls_writes_its_keys_where_sslkeylogfile_says_as_security_md_warns(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    with within(Deadline(60)):
        assert Tls(None).context().keylog_filename == str(tmp_path / "keys")
    assert "`SSLKEYLOGFILE`" in read("SECURITY.md")


def anchors(page: str) -> set[str]:
    """What a link may name in a page, as GitHub makes it of the headings."""
    headings = re.findall(
        r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", read(page), flags=re.MULTILINE | re.DOTALL), re.MULTILINE
    )
    named = re.findall(r'<a name="(\w+)">', read(page))
    return {*named, *(re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings)}


def test_each_link_leads_somewhere() -> None:
    for page in PAGES:
        folder = (ROOT / page).parent
        wrong = []
        for link in re.findall(r"\]\(([^)\s]+)\)|<(https:[^>\s]+)>", re.sub(r"`[^`\n]*`", "", read(page))):
            place, _, anchor = "".join(link).replace("\\_", "_").partition("#")
            own = re.fullmatch(rf"{REPOSITORY}(?:/(?:blob|tree)/main/(.*))?", place)
            if place.startswith("https:") and not own:
                continue
            path = ROOT / (own[1] or "README.md") if own else folder / place if place else ROOT / page
            name = str(path.resolve().relative_to(ROOT)) if path.exists() else ""
            if not path.exists() or (anchor and anchor not in anchors(name)):
                wrong.append("".join(link))
        assert wrong == [], page


def test_each_page_of_docs_is_one_click_from_the_readme() -> None:
    linked = set(re.findall(r"\]\((docs/\w+\.md)", read("README.md")))
    assert linked == {page for page in PAGES if page.startswith("docs/")}


def test_each_block_has_a_language_that_some_test_knows() -> None:
    known = {"sh", "yaml", "json", "hcl", "python", "mermaid", "text"}
    assert {one.language for page in PAGES for one in blocks(page)} <= known


def test_each_fence_begins_or_ends_a_block_that_tests_see() -> None:
    for page in PAGES:
        assert len(re.findall(r"```|~~~", read(page))) == 2 * len(list(blocks(page))), page


def test_each_command_and_each_option_of_its_own_is_documented() -> None:
    page, all_pages = read("docs/commands.md"), "".join(map(read, PAGES))
    missing = []
    for name, command in commands().items():
        options = [param.opts[-1] for param in command.params if isinstance(param, click.Option)]
        missing += [name] * (f"`{name}`" not in page)
        missing += [option for option in options if f"`{option}" not in all_pages and option not in page]
    assert missing == []


def test_each_test_that_the_table_of_logins_names_exists() -> None:
    named = re.findall(r"`(test_\w+\.py)::(\w+)`", read("docs/authentication.md"))
    assert len(named) > 15
    files = {path.name: path for path in (ROOT / "tests").rglob("test_*.py") if path.parent.name != "unit"}
    assert [one for file, one in named if f"\ndef {one}(" not in files[file].read_text("utf-8")] == []


def test_each_block_of_yaml_is_yaml() -> None:
    found = [one for page in PAGES for one in blocks(page) if one.language == "yaml"]
    assert found
    for one in found:
        yaml.safe_load(one.text)


if __name__ == "__main__":
    for page in TABLES:
        (ROOT / page).write_text(with_tables(page), encoding="utf-8")
    MANUAL.mkdir(exist_ok=True)
    for name, text in manual().items():
        (MANUAL / name).write_text(text, encoding="utf-8")
