"""The reference of the configuration: keys from defaults.py's comments, values from checks.py's rules."""

from __future__ import annotations

import ast
import re
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from detectron2.config import get_cfg
from pppc.config import add_pppc_config
from pppc.config.checks import flat, rules

DEFAULTS = Path(__file__).parents[1] / "projects/PPPC/pppc/config/defaults.py"
HERE = "<!-- the tables -->"


class Written(NamedTuple):
    """What defaults.py has of a key or a section."""

    default: str  # as it is written there; "" for a key that has Detectron2's
    meaning: str


def written() -> dict[str, Written]:
    """Everything that defaults.py sets, with the comment above it, then what its docstring names."""
    source = DEFAULTS.read_text()
    lines, tree = source.splitlines(), ast.parse(source)
    found = {}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Attribute):
            continue
        comment = []
        for line in reversed(lines[: node.lineno - 1]):
            if not line.lstrip().startswith("# "):
                break
            comment.insert(0, line.strip(" #"))
        name = ast.unparse(node.targets[0]).removeprefix("cfg.")
        found[name] = Written(ast.get_source_segment(source, node.value), " ".join(comment))
    entry = r"^    ([A-Z][\w.]+)\s+(\S.*(?:\n {20,}.*)*)"
    for name, text in re.findall(entry, ast.get_docstring(tree), re.MULTILINE):
        found[name] = Written("", " ".join(text.split()))
    return found


def tables() -> str:
    """A table for each section, the comment on the section above it."""
    cfg = get_cfg()
    add_pppc_config(cfg)
    values, texts = dict(flat(cfg)), written()
    allowed = rules()
    place = list(texts)
    sections = [name.rpartition(".")[0] for name in place]
    keys = [name for name in place if name in allowed and name in values]
    keys.sort(key=lambda name: (sections.index(name.rpartition(".")[0]), place.index(name)))
    page = []
    for section, names in groupby(keys, lambda name: name.rpartition(".")[0]):
        page += [f"## {section or 'Of the run'}", ""]
        if section in texts:
            page += [_plain(texts[section].meaning), ""]
        page += ["| key | default | meaning | values |", "|---|---|---|---|"]
        for name in names:
            default = texts[name].default or repr(values[name])
            meaning, words = _plain(texts[name].meaning), _plain(allowed[name].words)
            page.append(f"| `{name}` | `{default}` | {meaning} | {words} |")
        page.append("")
    return "\n".join(page)


def _plain(text: str) -> str:
    """Text in which Markdown finds nothing to format."""
    return re.sub(r"([\\`*_|<\[\]$])", r"\\\1", text)


def insert_tables(app, document: str, source: list[str]) -> None:
    """Sphinx's event: a document was read."""
    if HERE in source[0]:
        source[0] = source[0].replace(HERE, tables())
