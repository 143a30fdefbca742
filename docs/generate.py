"""Write what the pages take from the code: tables of settings and models, the command line, and the tutorials' output.

    python docs/generate.py                       the reference pages; a test compares them with the code
    python docs/generate.py --outputs             the tutorials' output as well: every command is run as written
    python docs/generate.py --outputs own-shop    that of one tutorial

A page has the generated part between ``<!-- generated: NAME -->`` and ``<!-- end -->``. A listing of commands whose
output the page shows is followed by ``<!-- output -->``, or ``<!-- output: last 5 lines -->``, and a block of text.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).parent
REFERENCE = tuple(f"reference/{name}.md" for name in ("settings", "models", "command-line"))
TUTORIALS = {name: f"tutorials/{name}.md" for name in ("first-run", "own-shop", "texts-to-embeddings")}

_LISTING = re.compile(
    r"(?:<!-- not run: (?P<reason>[^>]*?) -->\n)?"
    r"^```(?P<language>bash|python)\n(?P<text>.*?)^```$"
    # Prose may stand between, but no other listing.
    r"(?:(?:(?!^```).)*?(?P<mark><!-- output(?:: last (?P<last>\d+) lines)? -->)\n```text\n(?P<output>.*?)^```$)?",
    flags=re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Listing:
    """Commands or Python of a page.

    Attributes:
        language: ``bash`` or ``python``.
        text: its lines.
        reason: why nobody runs it; None where it is run.
        output: what the page shows below it; None where it shows nothing.
    """

    language: str
    text: str
    reason: str | None
    output: str | None

    def commands(self) -> list[str]:
        """Return the commands of a shell listing, each in one line."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def listings(page: str) -> Iterator[Listing]:
    """Yield the listings of a page's text, in order."""
    for found in _LISTING.finditer(page):
        yield Listing(found["language"], found["text"], found["reason"], found["output"])


# ---------------------------------------------------------------------- from the code


def settings_table() -> str:
    """Return the table of every declared setting."""
    from recbole_rlmrec.verbs._settings_table import markdown_table

    return markdown_table()


def models_table() -> str:
    """Return a table of the models that the package has itself: a backbone, its endings, and what it is."""
    from recbole_rlmrec.model import registry

    models = registry.names()
    endings = sorted({name.removeprefix(base) for base in models for name in models if name.startswith(f"{base}_")})
    bases = [name for name in models if not name.endswith(tuple(endings))]
    rows = ["| class | with an ending | what it is |", "|---|---|---|"]
    for base in bases:
        with_ending = [f"`{base}{ending}`" for ending in endings if base + ending in models]
        about = (registry.get_model(base).__doc__ or "").strip().partition("\n")[0]
        rows.append(f"| `{base}` | {', '.join(with_ending)} | {about} |")
    return "\n".join(rows)


def recbole_models_table() -> str:
    """Return a table of RecBole's general recommenders: which alignments each can have, and why not."""
    from recbole_rlmrec.model import registry
    from recbole_rlmrec.model.backbone.recbole_models import RECBOLE_MODELS

    titles = (ending.removeprefix("_RLMRec").removeprefix("_") for ending in registry.ALIGNMENTS)
    rows = [f"| model | {' | '.join(titles)} | note |", f"|{'---|' * (len(registry.ALIGNMENTS) + 2)}"]
    # Those that can have most alignments come first.
    for name, support in sorted(RECBOLE_MODELS.items(), key=lambda each: -len(registry.endings_of(each[0]))):
        possible = registry.endings_of(name)
        cells = " | ".join("yes" if ending in possible else "no" for ending in registry.ALIGNMENTS)
        rows.append(f"| `{name}` | {cells} | {support.remarks} |")
    return "\n".join(rows)


def command_line() -> str:
    """Return a section for each verb: what it does, and its options."""
    from recbole_rlmrec.verbs import VERBS
    from recbole_rlmrec.verbs._command import OF_VERBS, filled, text_of

    sections = []
    for name in VERBS:
        verb = VERBS[name]
        if not verb.__name__.startswith("recbole_rlmrec."):  # of another package
            continue
        parser = filled(argparse.ArgumentParser(prog=f"recbole-rlmrec {name}", **OF_VERBS), verb)
        about, _, example = text_of(verb).partition("\nExample:\n")
        lines = [f"## {name}", about.strip()]
        if example:
            lines.append("```bash\n" + "\n".join(re.sub("^    ", "", line) for line in example.splitlines()) + "\n```")
        lines.append("\n".join(["| option | what it is |", "|---|---|", *_options(parser)]))
        sections.append("\n\n".join(lines))
    return "\n\n".join(sections)


def _options(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Yield a row for each option; argparse's own layout differs from Python to Python."""
    formatter = parser._get_formatter()
    for action in parser._actions:
        if "--help" in action.option_strings or action.help == argparse.SUPPRESS:
            continue
        values = action.metavar or ("\\|".join(map(str, action.choices)) if action.choices else action.dest.upper())
        names = [f"`{name}`" for name in action.option_strings] or [f"`{values}`"]
        value = f" {values}" if action.option_strings and action.nargs != 0 else ""
        about = formatter._expand_help(action) if action.help else ""
        if action.required and action.option_strings:
            about += " (required)"
        yield f"| {', '.join(names)}{value} | {about} |".replace("<", "&lt;")


GENERATED: dict[str, Callable[[], str]] = {
    "settings": settings_table,
    "models": models_table,
    "RecBole's models": recbole_models_table,
    "command line": command_line,
}


def with_generated(page: str) -> str:
    """Return a page with its generated parts as the code has them now."""

    def part(found: re.Match[str]) -> str:
        return f"{found[1]}\n\n{GENERATED[found[2]]()}\n\n<!-- end -->"

    return re.sub(r"(<!-- generated: ([^>]+) -->).*?<!-- end -->", part, page, flags=re.DOTALL)


# ---------------------------------------------------------------------- from a run


def with_outputs(page: str, folder: Path) -> str:
    """Return a page with the output of its listings, each run in the folder as it is written.

    Raises:
        subprocess.CalledProcessError: a command failed.
    """

    def block(found: re.Match[str]) -> str:
        if found["reason"] or not found["text"].strip():
            return found[0]
        printed = _run(found["language"], found["text"], folder)
        if not found["mark"]:
            return found[0]
        if found["last"]:
            printed = printed[-int(found["last"]) :]
        head = found[0][: found.start("output") - found.start()]
        return f"{head}" + "\n".join(printed) + "\n```"

    return _LISTING.sub(block, page)


def _run(language: str, text: str, folder: Path) -> list[str]:
    """Return what a listing prints, without bars of progress."""
    words = ["bash", "-euc", text] if language == "bash" else [sys.executable, "-c", text]
    done = subprocess.run(words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        print(done.stdout, file=sys.stderr)
        done.check_returncode()
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line.rpartition("\r")[2]).rstrip() for line in done.stdout.split("\n")]
    return [line for line in lines if line and not re.search(r"\d+%\|.*\|", line)]


def copy_shop(folder: Path) -> None:
    """Copy the made-up shop's tables to where the tutorials have them."""
    shutil.copytree(DOCS / "tutorials/shop", folder / "docs/tutorials/shop")
    shutil.copy(DOCS.parent / "run_recbole_rlmrec.py", folder)


def main() -> None:
    """Write the pages."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--outputs", nargs="*", metavar="TUTORIAL", help="run these tutorials, or all, and write what they print"
    )
    asked = parser.parse_args().outputs
    if asked is not None and (unknown := sorted(set(asked) - set(TUTORIALS))):
        parser.error(f"{', '.join(unknown)}: expected {', '.join(TUTORIALS)}")
    for name in REFERENCE:
        path = DOCS / name
        path.write_text(with_generated(path.read_text(encoding="utf-8")), encoding="utf-8")
    for name in [] if asked is None else asked or TUTORIALS:
        path = DOCS / TUTORIALS[name]
        with tempfile.TemporaryDirectory() as folder:
            copy_shop(Path(folder))
            path.write_text(with_outputs(path.read_text(encoding="utf-8"), Path(folder)), encoding="utf-8")


if __name__ == "__main__":
    main()
