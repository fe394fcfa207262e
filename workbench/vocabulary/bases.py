"""Well-known bases for a reranker, and what the tokenizer of each makes of a file of pairs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from workbench.models import ModelError, ModelLocation, find_model, is_hub_name, load_tokenizer
from workbench.vocabulary.coverage import readability
from workbench.vocabulary.repair import training_texts
from workbench.vocabulary.tokens import count_tokens

FILES = ["config.json", "tokenizer*", "special_tokens_map.json", "vocab*", "merges.txt", "*.model"]


def known_bases() -> pd.DataFrame:
    """A row for each base, indexed by its name on the Hub; what is not known is empty.

    The columns are `parameters`, `languages`, `licence`, `tokenizer`, `positions` (tokens of a
    pair), `weights`, `note`, `unverified` (facts that are not on its page) and `source`.

    Example:
        >>> known_bases().loc["BAAI/bge-reranker-base", "licence"]
        'mit'
    """
    text = Path(__file__).with_name("bases.yaml").read_text(encoding="utf-8")
    return pd.DataFrame.from_dict(yaml.safe_load(text), orient="index")


def read_by_bases(
    pairs: pd.DataFrame, names: Sequence[str], download: bool = False
) -> pd.DataFrame:
    """What the tokenizer of each base makes of the texts of labelled pairs.

    Args:
        pairs: columns `sentence_0`, `sentence_1`, `label`.
        names: Hub names, model folders, or runs.
        download: whether to fetch the tokenizers (not the weights) that are not on this machine.

    Returns:
        Indexed by name: `tokens` for each character, the `unknown` share of all tokens, the share
        of distinct texts that become `equal` to another; NaN where `problem` says why.
    """
    texts = training_texts(pairs)
    characters = sum(map(len, texts))
    rows: dict[str, dict[str, Any]] = {}
    for name in names:
        try:
            counts = count_tokens(load_tokenizer(_tokenizer_files(name, download)), texts)
        except (ValueError, OSError) as error:  # no such model, or a damaged one
            rows[name] = {"problem": str(error).removeprefix(f"{name}: ")}
            continue
        found = readability(counts, pairs)
        equal = found["lost_share"] + found["folded_share"]
        tokens = counts["tokens"].sum() / max(1, characters)
        rows[name] = {"tokens": tokens, "unknown": found["unk_share"], "equal": equal}
    columns = ["tokens", "unknown", "equal", "problem"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).fillna({"problem": ""})


def _tokenizer_files(name: str, download: bool) -> ModelLocation:
    """Where a base's tokenizer is; of a base on the Hub, the weights need not be here."""
    from huggingface_hub import errors, snapshot_download

    if not is_hub_name(name):
        return find_model(name)
    try:
        folder = snapshot_download(name, allow_patterns=FILES, local_files_only=not download)
    except errors.LocalEntryNotFoundError:
        reason = "not on disk, and the Hub cannot be reached" if download else "not on disk"
        raise ModelError(reason) from None
    except (OSError, ValueError) as error:  # no such model, or a failing server
        raise ModelError(f"cannot be fetched: {str(error).splitlines()[0][:200]}") from None
    return ModelLocation(name, "hub", Path(folder), "", "", asked=name)
