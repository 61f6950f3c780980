"""The site of the documents, built by `make docs` into output/docs.

Building it and reading it take no network: pages load no fonts or scripts from elsewhere, and formulas
become MathML, which browsers draw by themselves. (Links to papers and data sets need it, of course.)
"""

import sys
from pathlib import Path

from docutils.nodes import SkipNode
from latex2mathml.converter import convert

sys.path.insert(0, str(Path(__file__).parent))
import configuration

project = "PPPC on Detectron2"
copyright = "the authors of PPPC on Detectron2"
html_theme = "furo"
html_title = project
html_copy_source = False
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["study"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
napoleon_use_ivar = True  # fields of tuples and data classes are described once
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": True, "no-value": True}
# A reference to a function of this project that is not there stops the build. Other projects' pages
# are not at hand, and types in signatures are theirs for the most part.
nitpicky = True
nitpick_ignore_regex = [("py:class", ".*"), ("py:.*", r"detectron2\..*")]
suppress_warnings = ["ref.python"]  # names of attributes that two classes have
html_math_renderer = "mathml"


def draw_formula(translator, node) -> None:
    display = "inline" if node.tagname == "math" else "block"
    translator.body.append(convert(node.astext(), display=display))
    raise SkipNode


def setup(app) -> None:
    app.add_html_math_renderer("mathml", (draw_formula, None), (draw_formula, None))
    app.connect("source-read", configuration.insert_tables)
