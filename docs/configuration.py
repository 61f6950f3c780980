"""The reference of the configuration, from the declarations of its keys."""

from __future__ import annotations

import re
from itertools import groupby

from detectron2.config import get_cfg
from pppc.config.defaults import KEYS, SECTIONS, add_pppc_config, by_key

HERE = "<!-- the tables -->"


def tables() -> str:
    """A table for each section, what the section is about above it."""
    cfg = get_cfg()
    add_pppc_config(cfg)
    values = dict(by_key(cfg))
    sections = list(dict.fromkeys(_section(name) for name in KEYS))
    names = sorted(KEYS.keys() & values.keys(), key=list(KEYS).index)
    page = []
    for section, keys in groupby(
        sorted(names, key=lambda name: sections.index(_section(name))), _section
    ):
        page += [f"## {section or 'Of the run'}", ""]
        if section in SECTIONS:
            page += [_plain(SECTIONS[section]), ""]
        page += ["| key | default | meaning | values |", "|---|---|---|---|"]
        for name in keys:
            meaning, words = _plain(KEYS[name].meaning), _plain(KEYS[name].rule.words)
            page.append(f"| `{name}` | `{values[name]!r}` | {meaning} | {words} |")
        page.append("")
    return "\n".join(page)


def _section(name: str) -> str:
    return name.rpartition(".")[0]


def _plain(text: str) -> str:
    """Text in which Markdown finds nothing to format."""
    return re.sub(r"([\\`*_|<\[\]$])", r"\\\1", text)


def insert_tables(app, document: str, source: list[str]) -> None:
    """Sphinx's event: a document was read."""
    if HERE in source[0]:
        source[0] = source[0].replace(HERE, tables())
