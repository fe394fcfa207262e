"""Where the embeddings of new tokens start: numpy arrays, one row a token."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from workbench.baselines import Float32Array
from workbench.vocabulary import CHUNK

if TYPE_CHECKING:
    from tokenizers import Tokenizer

WINDOW = 4  # tokens to either side that count as company


def random_rows(matrix: Float32Array, count: int, seed: int = 42) -> Float32Array:
    """Directions drawn at random around the mean of the old rows, as far from it as they are.

    Args:
        matrix: the old embeddings, shape (tokens, width).
        count: rows to make.
        seed: of the draws.

    Returns:
        Shape (count, width).
    """
    centre, distance = _place(matrix)
    drawn = np.random.default_rng(seed).standard_normal((count, matrix.shape[1]))
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    return (centre + distance * drawn).astype(np.float32)


def mean_rows(matrix: Float32Array, count: int, seed: int = 42) -> Float32Array:
    """The mean of the old rows, for every new token the same but for a trace of noise."""
    centre, distance = _place(matrix)
    noise = np.random.default_rng(seed).standard_normal((count, matrix.shape[1]))
    return (centre + 0.01 * distance * noise / np.sqrt(matrix.shape[1])).astype(np.float32)


def spectral_rows(
    matrix: Float32Array,
    tokenizer: "Tokenizer",
    texts: Iterable[str],
    ids: Sequence[int],
    seed: int = 42,
) -> Float32Array:
    """Vectors from the company that tokens keep in the texts, turned into the old space.

    Positive pointwise mutual information within a window is factorised (Levy and Goldberg, 2014);
    the factors of the tokens that the model knows already give the rotation onto its embeddings
    (Schoenemann, 1966). A token that the texts do not hold starts at random.

    Args:
        matrix: the old embeddings, shape (tokens, width).
        tokenizer: the repaired one.
        texts: training texts.
        ids: numbers of the new tokens; rows of `matrix` under these numbers are not looked at.
        seed: of the factorisation and of random rows.

    Returns:
        Shape (len(ids), width).
    """
    rows = random_rows(matrix, len(ids), seed)
    used, vectors = _company(tokenizer, texts, matrix.shape[1], seed)
    new = {number: place for place, number in enumerate(ids)}
    is_new = np.array([number in new for number in used], dtype=bool)
    known = ~is_new & (used < len(matrix))
    if not known.any() or not is_new.any():
        return rows
    centre, distance = _place(matrix)
    left, _, right = np.linalg.svd(vectors[known].T @ (matrix[used[known]] - centre))
    turned = vectors[is_new] @ (left @ right)[:, : matrix.shape[1]]
    rows[[new[number] for number in used[is_new]]] = centre + distance * turned
    return rows


def _place(matrix: Float32Array) -> tuple[Float32Array, float]:
    """The mean row, and the mean distance of rows from it."""
    centre = matrix.mean(axis=0)
    return centre, float(np.linalg.norm(matrix - centre, axis=1).mean())


def _company(
    tokenizer: "Tokenizer", texts: Iterable[str], width: int, seed: int
) -> tuple[np.ndarray, Float32Array]:
    """Token numbers that occur, and for each a vector of length one, shape (tokens, width)."""
    from scipy.sparse import coo_array, csr_array
    from sklearn.utils.extmath import randomized_svd

    distinct = list(dict.fromkeys(texts))
    left, right, weight = [], [], []
    for start in range(0, len(distinct), CHUNK):
        chunk = distinct[start : start + CHUNK]
        for encoding in tokenizer.encode_batch_fast(chunk, add_special_tokens=False):
            ids = np.asarray(encoding.ids)
            for gap in range(1, min(WINDOW, len(ids) - 1) + 1):
                left.append(ids[:-gap])
                right.append(ids[gap:])
                weight.append(np.full(len(ids) - gap, 1 / gap, dtype=np.float32))
    if not left:
        return np.empty(0, dtype=int), np.empty((0, width), dtype=np.float32)
    used, places = np.unique(np.concatenate(left + right), return_inverse=True)
    half = len(places) // 2
    counts = coo_array(
        (np.concatenate(weight), (places[:half], places[half:])), shape=(len(used),) * 2
    ).tocsr()
    together = (counts + counts.T).tocoo()
    total = np.asarray(together.sum(axis=1)).ravel()
    smooth = total**0.75 / (total**0.75).sum()  # rare company would weigh too much otherwise
    row, column = together.coords
    information = np.log(together.data / total[row] / smooth[column])
    positive = csr_array((np.maximum(information, 0), (row, column)), shape=together.shape)
    rank = min(width, len(used) - 1)
    factors, values, _ = randomized_svd(positive, rank, random_state=seed)
    vectors = np.zeros((len(used), width), dtype=np.float32)
    vectors[:, :rank] = factors * np.sqrt(values)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True) + 1e-9
    return used, vectors
