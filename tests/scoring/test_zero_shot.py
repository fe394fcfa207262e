"""A base model before any training: rare words decide, and its head is used where it has one."""

import numpy as np
import pytest
from sentence_transformers import CrossEncoder

from workbench.models import find_model
from workbench.scoring.cross_encoder import RARITY, ZeroShot

TEXTS = ["the red door", "the blue door", "the car", "the sun"]


@pytest.fixture(scope="module")
def base() -> CrossEncoder:
    return CrossEncoder(str(find_model("bundled:all-MiniLM-L6-v2").path), device="cpu")


def test_a_token_weighs_by_the_share_of_texts_with_it(base):
    weights = ZeroShot(base, False, TEXTS).weights
    number = base.tokenizer.convert_tokens_to_ids
    for token, share in (("the", 1), ("door", 1 / 2), ("car", 1 / 4), ("moon", 1 / 8)):
        assert weights[number(token)] == pytest.approx(RARITY / (RARITY + share))
    assert (weights[base.tokenizer.all_special_ids] == 0).all()
    assert (ZeroShot(base, False).weights == 1).all()


def test_words_of_every_text_do_not_decide(base):
    frequent = [f"please tell me {word}" for word in ("cats", "rain", "bread", "music")]
    pairs = [("please tell me cats", "kittens"), ("please tell me cats", "please tell me rain")]
    plain, weighted = ZeroShot(base, False), ZeroShot(base, False, frequent)
    kittens, rain = plain.score(pairs) - weighted.score(pairs)
    assert rain > 0.1 + kittens  # the words in common count less than before


def test_scores_do_not_depend_on_the_batch_and_odd_texts_have_one(base):
    pairs = [("a red door", "a blue door"), ("", "a"), ("x " * 3000, "y"), ("a", "a")]
    scorer = ZeroShot(base, False, TEXTS)
    together, alone = scorer.score(pairs), [scorer.score([pair])[0] for pair in pairs]
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert np.isfinite(together).all()
    assert together[3] == pytest.approx(1, abs=1e-5)
    assert together[1] == 0  # nothing in it
    assert scorer.score([]).shape == (0,)
