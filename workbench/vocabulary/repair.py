"""A vocabulary that covers the data: new tokens for a WordPiece tokenizer, learned from texts."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from workbench.data.texts import Float32Array
from workbench.models import BERT_PARTS, ModelError, tokenizer_parts
from workbench.vocabulary.dictionary import (
    ATTRIBUTION,
    HAN,
    Dictionary,
    letters_of,
    read_dictionary,
    words_in,
)
from workbench.vocabulary.tokens import chunks, count_tokens

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder
    from tokenizers import Tokenizer

REPAIRS = ("unused", "extend", "words")
UNUSED = re.compile(r"\[unused\d+\]")
MAX_RUN = 100  # characters that WordPiece takes at once; a longer run is cut there
WINDOW = 4  # tokens on each side that count as company
STOP_WORD = re.compile(
    "a|an|the|to|of|in|on|at|by|for|with|from|and|or|be|is|as|one|s|oneself|sb|sth|esp|etc|used"
    "|also|lit|fig|fml|coll|abbr"
)


def middle(matrix: Float32Array) -> tuple[Float32Array, float]:
    """The mean row, and the mean distance of rows from it."""
    centre = matrix.mean(axis=0)
    return centre, float(np.linalg.norm(matrix - centre, axis=1).mean())


def directions(count: int, width: int, seed: int) -> np.ndarray:
    """Random vectors of length one, shape (count, width)."""
    drawn = np.random.default_rng(seed).standard_normal((count, width))
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def random_rows(matrix: Float32Array, count: int, seed: int = 42) -> Float32Array:
    """Random directions around the mean of the old rows, as far from it as these are on average.

    `matrix` has the old embeddings, shape (tokens, width); the result has shape (count, width).
    """
    centre, distance = middle(matrix)
    return (centre + distance * directions(count, matrix.shape[1], seed)).astype(np.float32)


def spectral_rows(
    matrix: Float32Array,
    tokenizer: "Tokenizer",
    texts: Iterable[str],
    ids: Sequence[int],
    seed: int = 42,
) -> Float32Array:
    """Vectors from the company that tokens keep in the texts, rotated into the old space.

    Positive pointwise mutual information within a window is factorised (Levy and Goldberg, 2014);
    the factors of the known tokens give the rotation onto their embeddings (Schoenemann, 1966). A
    token that the texts do not hold starts at random.

    `matrix` has the old embeddings, shape (tokens, width); its rows with the numbers `ids` of new
    tokens of the repaired tokenizer, in ascending order, are ignored. The result has shape (ids,
    width).
    """
    rows = random_rows(matrix, len(ids), seed)
    used, vectors = _company(tokenizer, texts, matrix.shape[1], seed)
    is_new = np.isin(used, ids)
    known = ~is_new & (used < len(matrix))
    if not known.any() or not is_new.any():
        return rows
    centre, distance = middle(matrix)
    left, _, right = np.linalg.svd(vectors[known].T @ (matrix[used[known]] - centre))
    turned = vectors[is_new] @ (left @ right)[:, : matrix.shape[1]]
    rows[np.searchsorted(ids, used[is_new])] = centre + distance * turned
    return rows


def _company(
    tokenizer: "Tokenizer", texts: Iterable[str], width: int, seed: int
) -> tuple[np.ndarray, Float32Array]:
    """Token numbers that occur, and for each a vector of length one, shape (tokens, width)."""
    from scipy.sparse import coo_array, csr_array
    from sklearn.utils.extmath import randomized_svd

    left, right, weight = [], [], []
    for chunk in chunks(texts):
        for encoding in tokenizer.encode_batch_fast(chunk, add_special_tokens=False):
            ids = np.asarray(encoding.ids)
            for gap in range(1, min(WINDOW, len(ids) - 1) + 1):
                left.append(ids[:-gap])
                right.append(ids[gap:])
                weight.append(np.full(len(ids) - gap, 1 / gap, dtype=np.float32))
    if not left:
        return np.empty(0, dtype=int), np.empty((0, width), dtype=np.float32)
    used, places = np.unique(np.concatenate(left + right), return_inverse=True)
    pairs = tuple(places.reshape(2, -1))
    counts = coo_array((np.concatenate(weight), pairs), shape=(len(used),) * 2).tocsr()
    together = (counts + counts.T).tocoo()
    total = np.asarray(together.sum(axis=1)).ravel()
    smooth = total**0.75 / (total**0.75).sum()  # or else rare company would weigh too much
    row, column = together.coords
    information = np.log(together.data / total[row] / smooth[column])
    positive = csr_array((np.maximum(information, 0), (row, column)), shape=together.shape)
    rank = min(width, len(used) - 1)
    factors, values, _ = randomized_svd(positive, rank, random_state=seed)
    vectors = np.zeros((len(used), width), dtype=np.float32)
    vectors[:, :rank] = factors * np.sqrt(values)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True) + 1e-9
    return used, vectors


def gloss_rows(
    matrix: Float32Array,
    tokenizer: "Tokenizer",
    units: Sequence[str],
    dictionary: Dictionary,
    seed: int = 42,
    own_share: float = 0.5,
) -> Float32Array:
    """Vectors of words and characters from the base's embeddings of their glosses.

    A sense is the mean of its tokens without stop words, a word the mean of its senses, the n-th
    with weight 1/n. To that comes a random direction for each character, so that words with common
    characters stay alike and different words with one gloss stay apart. A word without a gloss
    starts at the mean of the matrix, with the direction of its characters alone. This is in the
    family of WECHSEL (Minixhofer et al., NAACL 2022) and trans-tokenization (Remy et al., 2024).

    `matrix` has the old embeddings, shape (tokens, width), and the result shape (units, width).
    `own_share` is the length of that direction in mean distances of the old rows from their mean.
    """
    centre, distance = middle(matrix)
    characters = sorted({character for unit in units for character in unit})
    drawn = directions(len(characters), matrix.shape[1], seed)
    direction = dict(zip(characters, drawn, strict=True))
    rows = np.empty((len(units), matrix.shape[1]), dtype=np.float32)
    for place, unit in enumerate(units):
        own = np.mean([direction[character] for character in unit], axis=0)
        own *= distance / np.linalg.norm(own)
        meaning = _meaning(matrix, tokenizer, dictionary.get(unit, ()))
        rows[place] = centre + own if meaning is None else meaning + own_share * own
    return rows


def _meaning(
    matrix: Float32Array, tokenizer: "Tokenizer", senses: Sequence[str]
) -> Float32Array | None:
    vectors, weights = [], []
    for rank, sense in enumerate(senses, 1):
        words = [word for word in sense.split() if not STOP_WORD.fullmatch(word.lower())]
        ids = tokenizer.encode(" ".join(words) or sense, add_special_tokens=False).ids
        if ids:
            vectors.append(matrix[ids].mean(axis=0))
            weights.append(1 / rank)
    return np.average(vectors, axis=0, weights=weights) if vectors else None


@dataclass(frozen=True)
class Repair:
    """A tokenizer that can read what the base model's could not, see `repair_vocabulary`."""

    tokenizer: "Tokenizer"
    added: tuple[str, ...]  # the new tokens, the most frequent first
    ids: tuple[int, ...]  # their numbers, which are their rows in the embedding matrix
    left_out: dict[str, int]  # tokens for which there was no slot, with their counts
    letters: str  # what the words of `words` are written in, see `letters_of`
    glosses: Dictionary  # of these, as the tokenizer reads them


def repair_vocabulary(
    tokenizer: "Tokenizer",
    texts: Iterable[str],
    how: str,
    dictionary: str = "",
    counts: pd.DataFrame | None = None,
) -> Repair:
    """A tokenizer with tokens for what the texts need and the vocabulary lacks.

    The result is an ordinary WordPiece tokenizer. A text without an unknown token keeps its
    encoding (with `words`: outside runs of Chinese characters), since WordPiece prefers the longer
    token and the new ones are single characters.

    Args:
        tokenizer: the base model's.
        texts: training texts only; distinct ones are counted once.
        how: `unused` renames the `[unused###]` tokens, so that the model keeps its size and shape,
            and takes the most frequent tokens if there are too few of them; `extend` appends;
            `words` appends the dictionary's words in the texts, and their characters.
        dictionary: for `words`, see `read_dictionary`.
        counts: what `count_tokens` gave for these texts, if known.

    Raises:
        ModelError: the tokenizer is none that can be repaired, or there is no dictionary for it.
    """
    if how not in REPAIRS:
        raise ModelError(f"vocabulary {how!r} is none of keep, {', '.join(REPAIRS)}")
    texts, state = list(dict.fromkeys(texts)), json.loads(tokenizer.to_str())
    needed, more = BERT_PARTS[:1], ""
    if how == "words":
        needed, more = BERT_PARTS, " with BERT's normalizer and pre-tokenizer"
    kinds = tokenizer_parts(state)[: len(needed)]
    if kinds != needed:
        raise ModelError(
            f"vocabulary {how!r}: this base model's tokenizer is {' with '.join(map(str, kinds))}, "
            f"and only a WordPiece vocabulary{more} can be repaired; use vocabulary 'keep', or "
            "another base model"
        )
    vocabulary: dict[str, int] = state["model"]["vocab"]
    missing: Counter[str] = Counter()
    if how == "words":
        tokens, letters, glosses = _read_words(state, texts, read_dictionary(dictionary))
    else:
        counts = count_tokens(tokenizer, texts) if counts is None else counts
        missing = missing_tokens(tokenizer, counts["pieces"].reindex(texts).explode().dropna())
        tokens = sorted(missing, key=lambda token: (-missing[token], token))
        letters, glosses = "", {}
    if how == "unused":
        slots = sorted(filter(UNUSED.fullmatch, vocabulary), key=vocabulary.__getitem__)
        ids = [vocabulary.pop(slot) for slot in slots[: len(tokens)]]
    else:
        first = max(vocabulary.values()) + 1
        ids = list(range(first, first + len(tokens)))
    added, left_out = tokens[: len(ids)], {token: missing[token] for token in tokens[len(ids) :]}
    vocabulary.update(zip(added, ids, strict=True))
    repaired = type(tokenizer).from_str(json.dumps(state))
    return Repair(repaired, tuple(added), tuple(ids), left_out, letters, glosses)


def missing_tokens(tokenizer: "Tokenizer", pieces: Iterable[str]) -> Counter[str]:
    """The WordPiece tokens of one character that would make every piece readable, with counts.

    Inside a piece, a character needs the token that continues a word (`##` before it). A Chinese
    character is always a whole piece.
    """
    known = tokenizer.get_vocab()
    missing: Counter[str] = Counter()
    for piece, count in Counter(pieces).items():
        for place, character in enumerate(piece):
            token = character if place == 0 else f"##{character}"
            if token not in known:
                missing[token] += count
    return missing


def _read_words(
    state: dict[str, Any], texts: Sequence[str], dictionary: Dictionary
) -> tuple[list[str], str, Dictionary]:
    """Tokens for the dictionary's words in texts, their letters, and glosses; changes `state`.

    A tokenizer with that state reads runs of letters as words: every word and character gets two
    tokens, for the beginning and for the inside of a run, and WordPiece takes the longest that
    fits. Texts outside such runs are encoded as before. A character that is not known becomes one
    unknown token, its neighbours are read.
    """
    from tokenizers import Tokenizer

    state["normalizer"]["handle_chinese_chars"] = False
    normalize = Tokenizer.from_str(json.dumps(state)).normalizer.normalize_str
    letters, glosses = letters_of(dictionary), dictionary
    if letters != HAN:  # the normalizer takes Hangul apart, but leaves Chinese characters
        read = dict[str, list[str]]()
        for word, senses in dictionary.items():
            read.setdefault(normalize(word), []).extend(senses)
        glosses = read
    letter, normal = f"[{letters}]", [normalize(text) for text in texts]
    words = words_in(normal, glosses, letters)
    vocabulary, prefix = state["model"]["vocab"], state["model"]["continuing_subword_prefix"]
    own = filter(re.compile(letter).fullmatch, vocabulary)
    known = list(dict.fromkeys([*own, *sorted(set(re.findall(letter, "".join(normal))))]))
    tokens = dict.fromkeys(form for unit in (*words, *known) for form in (unit, prefix + unit))
    readable = "".join(map(re.escape, known))
    runs = f"[{readable}]{{1,{MAX_RUN}}}|{letter}" if known else letter
    split = {"type": "Split", "pattern": {"Regex": runs}, "behavior": "Isolated", "invert": False}
    state["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, state["pre_tokenizer"]]}
    return [token for token in tokens if token not in vocabulary], letters, glosses


def check_repair(tokenizer: "Tokenizer", how: str, start: str, dictionary: str = "") -> None:
    """Raise the `ModelError` that `repair_model` would raise with these arguments."""
    repair_vocabulary(tokenizer, [], how, dictionary)
    if start == "dictionary":
        read_dictionary(dictionary)


def repair_model(
    model: "CrossEncoder",
    tokenizer: "Tokenizer",
    texts: Sequence[str],
    how: str,
    start: str = "dictionary",
    dictionary: str = "",
    seed: int = 42,
) -> dict[str, Any]:
    """Repair the vocabulary of a model, in place; what lineage and model card keep is returned.

    New embeddings start `spectral`, `random` or by the `dictionary`. Other arguments, and errors,
    are as for `repair_vocabulary`.
    """
    import torch

    made = repair_vocabulary(tokenizer, texts, how, dictionary)
    glosses = made.glosses
    if start == "dictionary" and how != "words":
        glosses = read_dictionary(dictionary)
    body: Any = model[0].model
    matrix = body.get_input_embeddings().weight.numpy(force=True)
    units = [token.removeprefix("##") for token in made.added]
    record = {
        "vocabulary": how,
        "added_tokens": len(made.added),
        "left_out_tokens": len(made.left_out),
        "left_out_occurrences": sum(made.left_out.values()),
        "new_embeddings": start,
    }
    if glosses:
        record["dictionary"] = dictionary or ATTRIBUTION
        record["tokens_with_gloss"] = sum(bool(glosses.get(unit)) for unit in units)
    if start == "spectral":
        rows = spectral_rows(matrix, made.tokenizer, texts, made.ids, seed)
    elif start == "dictionary":
        rows = gloss_rows(matrix, tokenizer, units, glosses, seed)
    else:
        rows = random_rows(matrix, len(made.ids), seed)
    if not made.added:
        return record
    if (needed := max(made.ids) + 1) > len(matrix):
        body.resize_token_embeddings(needed, mean_resizing=False)
    weight = body.get_input_embeddings().weight
    with torch.no_grad():
        weight[torch.tensor(made.ids)] = torch.as_tensor(rows, dtype=weight.dtype)
    if how == "words":  # the base's own class would put back BERT's pre-tokenizer
        from transformers import PreTrainedTokenizerFast

        old, module = model.tokenizer, model[0]
        module.processor = PreTrainedTokenizerFast(  # type: ignore[assignment]
            tokenizer_object=made.tokenizer,
            model_max_length=old.model_max_length,
            model_input_names=old.model_input_names,
            **old.special_tokens_map,
        )
    else:
        model.tokenizer._tokenizer = made.tokenizer
    return record
