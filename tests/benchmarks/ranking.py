"""How long the lexical ladder and the statistics take, and what they measure.

    python -m tests.benchmarks.ranking [TRAIN.csv LISTS.jsonl]

Without files it makes up pairs and lists of the reference size: 97,230 pairs and 1,047 lists of 30.
It prints figures and asserts nothing: times depend on the machine and on what else runs there.
"""

import os
import sys
import time

import numpy as np
import pandas as pd

from workbench.data.build_lists import query_groups
from workbench.data.list_files import read_candidates
from workbench.data.lists import CandidateList, shuffled
from workbench.ranking.evaluation import evaluate
from workbench.ranking.uncertainty import LEVEL, bootstrap_draws, randomisation_test
from workbench.scoring.baselines import (
    Bm25,
    CandidateOrder,
    CharacterJaccard,
    NgramRegression,
    RandomScorer,
    TfidfCosine,
)

PAIRS, QUERIES, SIZE, RESAMPLES = 97_230, 1_047, 30, 10_000


def made_up(seed=1):
    """Pairs and lists of the reference size; texts of 4 to 20 signs with Zipf's frequencies."""
    rng = np.random.default_rng(seed)
    signs = [chr(0x4E00 + n) for n in range(3000)]
    chance = 1 / np.arange(1, 3001)
    lengths = rng.integers(4, 21, 2 * PAIRS)
    stream = "".join(rng.choice(signs, lengths.sum(), p=chance / chance.sum()))
    ends = np.cumsum(lengths)
    texts = [stream[end - length : end] for end, length in zip(ends, lengths, strict=True)]
    train = pd.DataFrame(
        {
            "sentence_0": texts[:PAIRS],
            "sentence_1": texts[PAIRS:],
            "label": (rng.random(PAIRS) < 0.16).astype(float),
        }
    )
    alike = train["label"] == 1  # positives share half their signs
    first = train["sentence_0"]
    train.loc[alike, "sentence_1"] = (first.str[:6] + train["sentence_1"].str[:4])[alike]
    lists = []
    for number in range(QUERIES):
        others = dict.fromkeys(rng.choice(texts, SIZE + 3).tolist())
        query, right, *wrong = list(others)[: SIZE + 1]
        one = CandidateList(query, (query[:4] + right[:4], *wrong), (1.0,) + (0.0,) * len(wrong))
        lists.append(shuffled(one, seed, number))
    return train, lists


def main(files):
    if files:
        train, lists = pd.read_csv(files[0]), read_candidates(files[1])
    else:
        train, lists = made_up()
    texts = [*train["sentence_0"], *train["sentence_1"]]
    collection = dict.fromkeys(text for one in lists for text in one.candidates)
    pairs = [pair for one in lists for pair in one.pairs()]
    print(
        f"{len(train):,} pairs, {len(lists):,} lists, {len(pairs):,} candidates; "
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    )
    makers = {
        "random": lambda: RandomScorer(42),
        "candidate_order": CandidateOrder,
        "char_jaccard": CharacterJaccard,
        "tfidf_cosine": lambda: TfidfCosine(texts),
        "bm25": lambda: Bm25(collection),
        "ngram_regression": lambda: NgramRegression(42).fit(train),
    }
    scorers, whole = {}, 0.0
    for name, make in makers.items():
        start = time.perf_counter()
        scorers[name] = make()
        made = time.perf_counter()
        scorers[name].score(pairs)
        done = time.perf_counter()
        whole += done - start
        print(f"{name:>18}: made in {made - start:6.2f} s, scored in {done - made:6.2f} s")
    print(f"{'together':>18}: {whole:.1f} s")
    nothing = train.head(0)
    for ties in ("worst", "expected"):
        start = time.perf_counter()
        found = evaluate(scorers, lists, nothing, ties=ties, resamples=RESAMPLES)
        print(f"\nties {ties}: the whole evaluation took {time.perf_counter() - start:.1f} s")
        print(found.table()[["ndcg@10", "mrr@10"]].to_string())
    values = np.column_stack([found.values(name) for name in scorers])
    groups = query_groups(lists)
    start = time.perf_counter()
    np.percentile(bootstrap_draws(values, groups, RESAMPLES), LEVEL, axis=0)
    drawn = time.perf_counter()
    randomisation_test(values[:, :1] - values[:, 1:], groups, RESAMPLES)
    print(
        f"\n{RESAMPLES:,} resamples of {len(lists):,} queries, {len(scorers)} scorers: "
        f"{drawn - start:.2f} s; as many flips: {time.perf_counter() - drawn:.2f} s"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
