"""What can be done with each kind of base model: prints one Markdown table, "yes" or the reason.

    python -m tests.benchmarks.kinds

The models are tiny and random, one of each kind; so the table says what works, not how well.
"""

import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path

import pandas as pd

from tests.benchmarks.tiny import KINDS, write_tiny_kind, write_tiny_reranker
from workbench.data.texts import distinct_texts
from workbench.engine.bert import unsupported
from workbench.models import find_model, load_tokenizer
from workbench.scoring.cross_encoder import ModelScorer, load_cross_encoder
from workbench.scoring.export import export_model
from workbench.training.log import TrainingLog
from workbench.training.recipe import Recipe
from workbench.training.trainer import make_trainer
from workbench.vocabulary.coverage import readability
from workbench.vocabulary.repair import repair_model
from workbench.vocabulary.tokens import count_tokens

PAIRS = pd.DataFrame(
    {
        "sentence_0": ["怎么开通会员", "怎么借钱", "天气如何", "如何退货"] * 4,
        "sentence_1": ["会员如何开通", "今天天气", "天气好吗", "怎么还款"] * 4,
        "label": [1.0, 0.0, 1.0, 0.0] * 4,
    }
)


def audit(location, model):
    counts = count_tokens(load_tokenizer(location), distinct_texts(PAIRS))
    assert 0 <= readability(counts, PAIRS)["unk_share"] <= 1


def train(location, model):
    pairs = [("怎么开通会员", "如何办理")]
    before = ModelScorer(model).score(pairs)
    with tempfile.TemporaryDirectory() as name:
        log, recipe = TrainingLog(Path(name), "kinds"), Recipe(max_steps=2, learning_rate=1e-3)
        trainer = make_trainer(model, Path(name), PAIRS, PAIRS.head(0), recipe, log)
        trainer.args.save_strategy = "no"
        trainer.train()
    assert ModelScorer(model).score(pairs) != before


def quick(location, model):
    if reason := unsupported(model.model):
        raise ValueError(reason)


def repair(location, model):
    repair_model(model, load_tokenizer(location), ["订单", "单号"], "extend", "spectral")


def export(location, model):
    export_model(location)


WAYS = {
    "audit": audit,
    "train": train,
    "quick scoring and training": quick,
    "repair": repair,
    "export": export,
}


def possible(folder):
    """For each of `WAYS`, "yes" or why it is not possible with the model in a folder."""
    location, found = find_model(str(folder)), {}
    model = load_cross_encoder(location, 64)
    for name, way in WAYS.items():
        try:
            with redirect_stdout(sys.stderr):
                way(location, model)
            found[name] = "yes"
        except ValueError as error:
            found[name] = f"no: {error}"
    return found


def main():
    with tempfile.TemporaryDirectory() as place:
        rows = {}
        for kind in KINDS:
            rows[kind] = possible(write_tiny_kind(Path(place) / kind, kind))
        rows["qwen3 (language model)"] = possible(write_tiny_reranker(Path(place) / "qwen3"))
    print("| kind of base |", " | ".join(WAYS), "|")
    print("| --- |" + " --- |" * len(WAYS))
    for kind, found in rows.items():
        print(f"| {kind} |", " | ".join(found.values()), "|")


if __name__ == "__main__":
    main()
