"""What a tokenizer can read, and its repair."""

from workbench.files import lazy_names

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "dictionary": "with_gloss",
        "inspection": (
            "contradictory_rows inspect_pairs lists_for_ceiling pair_tokens sample_rows "
            "save_inspection"
        ),
    },
)
