"""Sphinx configuration of the slides; they run from files."""

project = "Did it get better?"
extensions = ["myst_parser", "sphinx_revealjs"]
revealjs_style_theme = "white"
revealjs_static_path = ["_static"]
revealjs_css_files = ["slides.css"]
revealjs_script_conf = {"hash": True, "controls": True, "slideNumber": True}
