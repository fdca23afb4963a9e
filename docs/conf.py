"""The documentation: Markdown through myst-parser, built with every warning an error."""

from importlib.metadata import version as installed_version

project = "mbframework"
author = "The mbframework authors"
project_copyright = author
release = version = installed_version("mbframework")

extensions = ["myst_parser"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
nitpicky = True

html_theme = "furo"
html_title = f"mbframework {release}"
