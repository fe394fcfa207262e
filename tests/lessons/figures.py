"""Every figure that the prose of the lessons quotes, computed from the sample and the recording.

`python -m tests.lessons.figures` writes `notebooks/lessons/expected.json`; a test compares.
"""

import re
from collections import Counter

import numpy as np
import pandas as pd

import workbench as wb
from workbench.data.overlap import characters, jaccard
from workbench.data.splits import text_groups
from workbench.files import project_root, write_json
from workbench.lessons.recording import distinct_texts, lessons_folder, recorded, tokenizer
from workbench.ranking import metrics, uncertainty


def mean_ndcg(score, lists, ties="expected"):
    """nDCG@10 of each list under `score(query, candidate)`."""
    scores = [[score(one.query, text) for text in one.candidates] for one in lists]
    return metrics.rank_metrics(scores, [one.relevance for one in lists], ties)["ndcg@10"]


class Random:
    """Scores that depend on the seed alone."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)

    def __call__(self, first, second):
        return self.rng.random()


def entropy(p):
    return float(-p * np.log(p) - (1 - p) * np.log(1 - p))


def file_order(lists):
    """nDCG@10 of equal scores under a stable sort: the positives first, and as shuffled."""

    def of(gain):
        return metrics.ndcg(metrics.rank(-np.arange(len(gain)), gain))

    first = np.mean([of(np.sort(one.relevance)[::-1]) for one in lists])
    return float(first), float(np.mean([of(one.relevance) for one in lists]))


def lesson_1(run):
    lists = run.lists
    luck = [mean_ndcg(Random(seed), lists).mean() for seed in range(50)]
    first, shuffled = file_order(lists)
    places = [float(1 / np.log2(place + 1)) for place in (2, 10)]
    return {
        "lists": f"{len(lists)}",
        "candidates": f"{len(lists[0].candidates)}",
        "constant_first": f"{first:.3f}",
        "constant_shuffled": f"{shuffled:.3f}",
        "constant_expected": f"{np.mean(mean_ndcg(lambda a, b: 0, lists)):.3f}",
        "jaccard": f"{np.mean(mean_ndcg(overlap, lists)):.3f}",
        "model": f"{model_ndcg(run).mean():.3f}",
        "second_place": f"{places[0]:.3f}",
        "tenth_place": f"{places[1]:.3f}",
        "luck_mean": f"{np.mean(luck):.3f}",
        "luck_sd": f"{np.std(luck, ddof=1):.3f}",
        "luck_best": f"{np.max(luck):.3f}",
    }


def overlap(first, second):
    return jaccard(characters(first), characters(second))


def model_ndcg(run):
    return metrics.rank_metrics(run.list_logits, [one.relevance for one in run.lists])["ndcg@10"]


def by_row(pairs, seed):
    order, size = np.random.default_rng(seed).permutation(len(pairs)), len(pairs) // 5
    return pairs.iloc[order[size:]], pairs.iloc[order[:size]]


def memory_auc(train, test):
    label = [*train["label"], *train["label"]]
    means = pd.Series(label, [*train["sentence_0"], *train["sentence_1"]]).groupby(level=0).mean()
    sides = [test[c].map(means).fillna(train["label"].mean()) for c in ("sentence_0", "sentence_1")]
    return metrics.pair_metrics(np.mean(sides, axis=0), test["label"])["roc_auc"]


def lesson_2(run):
    leaks, memory = [], []
    for seed in range(6):
        train, test = by_row(run.pairs, seed)
        known = {*train["sentence_0"], *train["sentence_1"]}
        leaks.append((test["sentence_0"].isin(known) | test["sentence_1"].isin(known)).mean())
        memory.append(memory_auc(train, test))
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


def token_list(text):
    return tuple(tokenizer().encode(text, add_special_tokens=False).tokens)


def lesson_3(run):
    texts = distinct_texts()
    tokens = {text: token_list(text) for text in texts}
    everything = [token for text in texts for token in tokens[text]]
    shared = Counter(tokens.values())
    collapsed = sum(count for count in shared.values() if count > 1)
    vocabulary = tokenizer().get_vocab()
    chinese = [token for token in vocabulary if re.fullmatch("[\u4e00-\u9fff]", token)]
    inner = [token for token in vocabulary if re.fullmatch("##[\u4e00-\u9fff]", token)]

    def seen(first, second, drop=()):
        return jaccard(*(frozenset(tokens_of(text)) - set(drop) for text in (first, second)))

    def tokens_of(text):
        return tokens.get(text) or token_list(text)

    classes = [
        (tokens_of(a), tokens_of(b))
        for a, b in zip(run.pairs["sentence_0"], run.pairs["sentence_1"], strict=True)
    ]
    labels = run.pairs["label"].groupby(pd.Index(classes, tupleize_cols=False))
    usual = labels.agg(lambda label: max(label.sum(), len(label) - label.sum())).sum()
    glasses = mean_ndcg(seen, run.lists).mean()
    known = mean_ndcg(lambda a, b: seen(a, b, ["[UNK]"]), run.lists).mean()
    return {
        "texts": f"{len(texts):,}",
        "unk_share": f"{100 * everything.count('[UNK]') / len(everything):.1f} %",
        "texts_with_unk": f"{100 * np.mean(['[UNK]' in t for t in tokens.values()]):.1f} %",
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


def constant_log(p, lines, size, runs, seed):
    """Logs of a model that says p to every pair: mean losses, shape (runs, lines)."""
    labels = np.random.default_rng(seed).binomial(size, p, (runs, lines)) / size
    return -labels * np.log(p) - (1 - labels) * np.log(1 - p)


def lesson_5(run):
    p = float(run.train["label"].mean())
    loss = run.log["loss"].dropna().to_numpy()
    line = run.batch * int(run.log.dropna(subset="loss")["step"].diff().median())
    logs = constant_log(p, len(loss), line, 2000, 0)
    low, high = np.percentile(logs, [5, 95])
    measured = (project_root() / "docs/measurements.md").read_text(encoding="utf-8")
    rows = re.findall(r"\| `(keep|extend)` \| \**(0\.\d+)\** \[.*?\| (0\.\d+) \|", measured)
    regression = re.search(r"n-gram regression, same pairs\* \| \*(0\.\d+)", measured)
    dev = run.dev["label"]
    return {
        "train_pairs": f"{len(run.train):,}",
        "train_rate": f"{p:.3f}",
        "base_rate_loss": f"{entropy(p):.3f}",
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
    gains = [one.relevance for one in run.lists]
    found = {}
    for name, scorer in {
        "tfidf": wb.scoring.TfidfCosine(texts),
        "bm25": wb.scoring.Bm25(candidates),
        "jaccard": wb.scoring.CharacterJaccard(),
    }.items():
        scores = [scorer.score(one.pairs()) for one in run.lists]
        found[name] = metrics.rank_metrics(scores, gains)["ndcg@10"]
    groups = wb.data.query_groups(run.lists)
    gap = uncertainty.bootstrap_mean(found["tfidf"] - found["jaccard"], groups=groups)
    gaps = np.column_stack([found["tfidf"] - found["bm25"], found["tfidf"] - found["jaccard"]])
    p = [uncertainty.randomisation_test(column[:, None], groups)[0] for column in gaps.T]
    return {
        "tfidf": f"{found['tfidf'].mean():.3f}",
        "bm25": f"{found['bm25'].mean():.3f}",
        "tfidf_minus_jaccard": f"{gap.mean:.3f} [{gap.low:.3f}, {gap.high:.3f}]",
        "p_bm25": f"{p[0]:.2f}",
        "p_jaccard": f"{p[1]:.4f}",
        "p_floor": f"{1 / 10_001:.4f}",
        "p_floor_seven": f"{uncertainty.holm([1 / 10_001] * 7).max():.4f}",
    }


def lesson_7(run):
    positive = run.test["label"].to_numpy() >= 0.5
    dev = run.dev["label"].to_numpy() >= 0.5
    probability = uncertainty.sigmoid(run.test_logits)
    rate = float(run.train["label"].mean())
    constant = metrics.calibration(np.full(len(positive), rate), positive)[0]
    score, _, error = metrics.calibration(probability, positive)
    cut = metrics.fit_threshold(run.dev_logits, dev)
    rng, drawn = np.random.default_rng(0), []
    for _ in range(500):
        rows = rng.integers(0, len(dev), len(dev))
        fitted = metrics.fit_threshold(run.dev_logits[rows], dev[rows])
        drawn.append(
            np.nan if np.isnan(fitted) else np.mean((run.test_logits >= fitted) == positive)
        )
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
        "threshold_accuracy": f"{np.mean((run.test_logits >= cut) == positive):.3f}",
        "threshold_low": f"{low:.2f}",
        "threshold_high": f"{high:.2f}",
    }


def lesson_8(run):
    def missing(*splits):
        texts = {text for one in splits for text in [*one["sentence_0"], *one["sentence_1"]]}
        return sum(token_list(c) == ("[UNK]",) for c in set("".join(texts)) if not c.isspace())

    groups = wb.data.query_groups(run.lists)
    repaired = metrics.rank_metrics(run.repaired_logits, [one.relevance for one in run.lists])
    gap = (repaired["ndcg@10"] - mean_ndcg(overlap, run.lists))[:, None]
    lead = uncertainty.compare(["jaccard"], gap, groups, 10_000, 42)["jaccard"]
    claims = {1: "it ranks better", 0: "no difference was shown", -1: "it ranks worse"}
    return {
        "missing_train": f"{missing(run.train)}",
        "missing_all": f"{missing(run.train, run.dev, run.test)}",
        "repaired": f"{repaired['ndcg@10'].mean():.3f}",
        "repaired_minus_jaccard": uncertainty.format_estimate(lead),
        "repaired_claim": claims[uncertainty.direction(lead["low"], lead["high"], lead["p"])],
    }


def figures():
    run = recorded()
    parts = (lesson_1, lesson_2, lesson_3, lesson_5, lesson_6, lesson_7, lesson_8)
    return {name: value for part in parts for name, value in part(run).items()}


if __name__ == "__main__":
    write_json(lessons_folder() / "expected.json", figures())
