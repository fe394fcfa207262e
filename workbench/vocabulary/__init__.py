"""What a tokenizer can read, and its repair."""

from workbench.files import lazy_names

__getattr__, __dir__ = lazy_names(
    __name__,
    dictionary="with_gloss",
    inspection="contradictory_rows inspect_pairs known_bases pair_tokens read_by_bases sample_rows "
    "save_inspection",
)
