"""Sphinx configuration of the pages: nothing on them is loaded from elsewhere."""

from sphinx.search.zh import SearchChinese

from workbench import __version__

SearchChinese.language_name = "English"  # Sphinx 9.0 calls the stemmer by it: EnglishStemmer

project = "Reranker Workbench"
copyright = "the Reranker Workbench authors, Apache-2.0"
release = __version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx-mathjax-offline"]
html_theme = "sphinx_book_theme"
html_title = "Reranker Workbench"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_search_language = "zh"  # cuts Chinese into words by jieba, and English as usual
html_context = {"default_mode": "auto"}  # light or dark, as the reader has it
html_show_sphinx = False
html_copy_source = False
html_theme_options = {"show_toc_level": 2, "use_download_button": False, "navigation_depth": 2}
nb_execution_mode = "off"  # the notebooks come executed
nb_merge_streams = True
nb_ipywidgets_js = {}
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
autodoc_typehints = "none"
autodoc_member_order = "bysource"
exclude_patterns = ["jupyter_execute", "slides"]
suppress_warnings = ["mystnb.unknown_mime_type", "myst.header", "misc.highlighting_failure"]
