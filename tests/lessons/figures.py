"""Every figure that the prose of the lessons quotes, computed from the sample and the recording.

`python -m tests.lessons.figures` writes `notebooks/lessons/expected.json`; a test compares.
"""

import re
from collections import Counter
from functools import cache

import numpy as np
import pandas as pd
from scipy.special import expit

import workbench as wb
from workbench.data.texts import jaccard, text_groups, text_pairs
from workbench.files import project_root, write_json
from workbench.lessons.checking import find
from workbench.lessons.recording import distinct_texts, lessons_folder, recorded, tokenizer
from workbench.ranking import metrics, uncertainty


def ndcg(scores, lists):
    """nDCG@10 of each list."""
    return metrics.rank_metrics(scores, [one.relevance for one in lists])["ndcg@10"]


def mean_ndcg(score, lists):
    """nDCG@10 of each list under `score(query, candidate)`."""
    return ndcg([[score(one.query, text) for text in one.candidates] for one in lists], lists)


def right(number):
    """The right answer to an exercise."""
    return find(number).right


def lesson_1(run):
    lists = run.lists
    draws = [np.random.default_rng(seed) for seed in range(50)]
    luck = [mean_ndcg(lambda *_, rng=rng: rng.random(), lists).mean() for rng in draws]
    falling = [-np.arange(len(one.relevance)) for one in lists]  # a stable sort of equal scores
    sorted_gains = [np.sort(one.relevance)[::-1] for one in lists]
    return {
        "lists": f"{len(lists)}",
        "candidates": f"{len(lists[0].candidates)}",
        "constant_first": f"{metrics.rank_metrics(falling, sorted_gains)['ndcg@10'].mean():.3f}",
        "constant_shuffled": f"{ndcg(falling, lists).mean():.3f}",
        "constant_expected": f"{np.mean(mean_ndcg(lambda a, b: 0, lists)):.3f}",
        "jaccard": f"{mean_ndcg(right('1.4'), lists).mean():.3f}",
        "model": f"{ndcg(run.list_logits, lists).mean():.3f}",
        "second_place": f"{1 / np.log2(3):.3f}",
        "tenth_place": f"{1 / np.log2(11):.3f}",
        "luck_mean": f"{np.mean(luck):.3f}",
        "luck_sd": f"{np.std(luck, ddof=1):.3f}",
        "luck_best": f"{np.max(luck):.3f}",
    }


def by_row(pairs, seed):
    order, size = np.random.default_rng(seed).permutation(len(pairs)), len(pairs) // 5
    return pairs.iloc[order[size:]], pairs.iloc[order[:size]]


def memory_auc(train, test):
    return metrics.pair_metrics(right("2.3")(train, test), test["label"])["roc_auc"]


def lesson_2(run):
    splits = [by_row(run.pairs, seed) for seed in range(6)]
    leaks = [right("2.1")(*split) for split in splits]
    memory = [memory_auc(*split) for split in splits]
    groups = text_groups(run.pairs)
    return {
        "pairs": f"{len(run.pairs):,}",
        "leak": f"{100 * leaks[0]:.1f} %",
        "leak_low": f"{100 * min(leaks):.1f} %",
        "leak_high": f"{100 * max(leaks):.1f} %",
        "groups": f"{groups.max() + 1}",
        "largest_group": f"{np.bincount(groups).max()}",
        "memory_auc": f"{np.mean(memory):.2f}",
        "memory_flipped": f"{1 - np.mean(memory):.2f}",
        "memory_auc_groups": f"{memory_auc(run.train, run.test):.2f}",
    }


@cache
def token_list(text):
    return tuple(tokenizer().encode(text, add_special_tokens=False).tokens)


def lesson_3(run):
    texts = distinct_texts()
    tokens = [token_list(text) for text in texts]
    shared = Counter(tokens)
    collapsed = right("3.2")(None, texts)
    vocabulary = tokenizer().get_vocab()
    chinese = [token for token in vocabulary if re.fullmatch("[\u4e00-\u9fff]", token)]
    inner = [token for token in vocabulary if re.fullmatch("##[\u4e00-\u9fff]", token)]

    def seen(first, second, drop=()):
        return jaccard(*(frozenset(token_list(text)) - set(drop) for text in (first, second)))

    classes = [(token_list(a), token_list(b)) for a, b in text_pairs(run.pairs)]
    labels = run.pairs["label"].groupby(pd.Index(classes, tupleize_cols=False))
    usual = labels.agg(lambda label: max(label.sum(), len(label) - label.sum())).sum()
    glasses = mean_ndcg(seen, run.lists).mean()
    known = mean_ndcg(lambda a, b: seen(a, b, ["[UNK]"]), run.lists).mean()
    return {
        "texts": f"{len(texts):,}",
        "unk_share": f"{100 * right('3.1')(None, texts):.1f} %",
        "texts_with_unk": f"{100 * np.mean(['[UNK]' in t for t in tokens]):.1f} %",
        "collapsed": f"{collapsed}",
        "collapsed_share": f"{100 * collapsed / len(texts):.1f} %",
        "collapsed_groups": f"{sum(count > 1 for count in shared.values())}",
        "chinese_tokens": f"{len(chinese)}",
        "inner_tokens": f"{len(inner)}",
        "ceiling_accuracy": f"{usual / len(classes):.4f}",
        "majority_all": f"{1 - run.pairs['label'].mean():.2f}",
        "glasses": f"{glasses:.3f}",
        "glasses_known": f"{known:.3f}",
    }


def lesson_5(run):
    p = float(run.train["label"].mean())
    loss = run.log["loss"].dropna().to_numpy()
    line = run.batch * int(run.log.dropna(subset="loss")["step"].diff().median())
    logs = right("5.2")(np.random.default_rng(0), p, (2000, len(loss)), line)
    low, high = np.percentile(logs, [5, 95])
    measured = (project_root() / "docs/measurements.md").read_text(encoding="utf-8")
    rows = re.findall(r"\| `(keep|extend)` \| \**(0\.\d+)\** \[.*?\| (0\.\d+) \|", measured)
    regression = re.search(r"n-gram regression, same pairs\* \| \*(0\.\d+)", measured)
    dev = run.dev["label"]
    return {
        "train_pairs": f"{len(run.train):,}",
        "train_rate": f"{p:.3f}",
        "base_rate_loss": f"{right('4.3')(run.train['label']):.3f}",
        "coin_loss": f"{np.log(2):.3f}",
        "first_loss": f"{loss[0]:.3f}",
        "last_loss": f"{loss[-1]:.3f}",
        "mean_loss": f"{loss.mean():.3f}",
        "log_lines": f"{len(loss)}",
        "line_pairs": f"{line}",
        "batch": f"{run.batch}",
        "steps": f"{run.log['step'].max()}",
        "regression_ndcg": regression[1],
        "constant_sd": f"{logs.std():.3f}",
        "constant_low": f"{low:.2f}",
        "constant_high": f"{high:.2f}",
        "constant_falls": f"{100 * np.mean(logs[:, -1] < logs[:, 0]):.0f} %",
        "log_above": f"{np.sum(loss > high)}",
        "log_below": f"{np.sum(loss < low)}",
        "log_inside": f"{np.sum((loss >= low) & (loss <= high))}",
        "dev_pairs": f"{len(dev)}",
        "dev_positives": f"{int(dev.sum())}",
        "dev_rate": f"{dev.mean():.3f}",
        **{f"{name}_ndcg": ndcg for name, ndcg, _ in rows},
        **{f"{name}_loss": value for name, _, value in rows},
    }


def lesson_6(run):
    texts = [*run.train["sentence_0"], *run.train["sentence_1"]]
    candidates = [text for one in run.lists for text in one.candidates]
    scorers = [wb.scoring.TfidfCosine(texts), wb.scoring.Bm25(candidates)]
    scorers.append(wb.scoring.CharacterJaccard())
    tfidf, bm25, jaccard = (
        ndcg([scorer.score(one.pairs()) for one in run.lists], run.lists) for scorer in scorers
    )
    groups, gaps = wb.data.query_groups(run.lists), (tfidf - bm25, tfidf - jaccard)
    gap = uncertainty.bootstrap_mean(gaps[1], groups=groups)
    p = [uncertainty.randomisation_test(one[:, None], groups)[0] for one in gaps]
    return {
        "tfidf": f"{tfidf.mean():.3f}",
        "bm25": f"{bm25.mean():.3f}",
        "tfidf_minus_jaccard": f"{gap.mean:.3f} [{gap.low:.3f}, {gap.high:.3f}]",
        "p_bm25": f"{p[0]:.2f}",
        "p_jaccard": f"{p[1]:.4f}",
        "p_floor": f"{1 / 10_001:.4f}",
        "p_floor_seven": f"{uncertainty.holm([1 / 10_001] * 7).max():.4f}",
    }


def lesson_7(run):
    positive = run.test["label"].to_numpy() >= 0.5
    dev = run.dev["label"].to_numpy() >= 0.5
    probability = expit(run.test_logits)
    rate = float(run.train["label"].mean())
    constant = metrics.calibration(np.full(len(positive), rate), positive)[0]
    score, _, error = metrics.calibration(probability, positive)

    def accuracy(rows):
        cut = metrics.fit_threshold(run.dev_logits[rows], dev[rows])
        return np.nan if np.isnan(cut) else np.mean((run.test_logits >= cut) == positive)

    rng = np.random.default_rng(0)
    drawn = [accuracy(rng.integers(0, len(dev), len(dev))) for _ in range(500)]
    low, high = np.nanpercentile(drawn, [5, 95])
    return {
        "test_pairs": f"{len(positive)}",
        "ece": f"{error:.3f}",
        "least_probability": f"{probability.min():.2f}",
        "most_probability": f"{probability.max():.2f}",
        "brier": f"{score:.4f}",
        "brier_constant": f"{constant:.4f}",
        "brier_skill": f"{1 - score / constant:.3f}",
        "majority": f"{1 - positive.mean():.3f}",
        "threshold_accuracy": f"{accuracy(slice(None)):.3f}",
        "threshold_low": f"{low:.2f}",
        "threshold_high": f"{high:.2f}",
    }


def lesson_8(run):
    def missing(*splits):
        texts = {text for one in splits for text in [*one["sentence_0"], *one["sentence_1"]]}
        return len(right("8.1")(tokenizer(), texts))

    groups = wb.data.query_groups(run.lists)
    repaired = ndcg(run.repaired_logits, run.lists)
    gap = (repaired - mean_ndcg(right("1.4"), run.lists))[:, None]
    lead = uncertainty.compare(["jaccard"], gap, groups, 10_000, 42)["jaccard"]
    claims = {1: "it ranks better", 0: "no difference was shown", -1: "it ranks worse"}
    return {
        "missing_train": f"{missing(run.train)}",
        "missing_all": f"{missing(run.train, run.dev, run.test)}",
        "repaired": f"{repaired.mean():.3f}",
        "repaired_minus_jaccard": uncertainty.format_estimate(lead),
        "repaired_claim": claims[uncertainty.direction(lead["low"], lead["high"], lead["p"])],
    }


def figures():
    run = recorded()
    parts = (lesson_1, lesson_2, lesson_3, lesson_5, lesson_6, lesson_7, lesson_8)
    return {name: value for part in parts for name, value in part(run).items()}


if __name__ == "__main__":
    write_json(lessons_folder() / "expected.json", figures())
