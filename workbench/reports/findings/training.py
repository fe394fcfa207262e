"""Findings of notebooks 2 and 3: what a training did, and what its loss can and cannot tell."""

import pandas as pd

from workbench.files import percent
from workbench.reports.findings import Record, code, count, sentences
from workbench.training.recipe import MIN_DEV, Recipe

RISE = 1.02  # of the dev loss above its lowest value, that is worth a word
MIN_DEV_PAIRS = 200  # a rise on fewer may be chance
LEARNED = 0.8  # correlation after a warm-up that worked; seen: 0.85 and 0.94, otherwise about 0.5


def loss(log: pd.DataFrame) -> str:
    """How the loss compares with that of a constant answer, and what a loss curve cannot tell."""
    parts = [_level(stage, rows) for stage, rows in log.dropna(subset=["loss"]).groupby("stage")]
    rows = _newest(log).dropna(subset=["dev_loss"])
    if len(rows) > 1:
        least, last = rows.loc[rows["dev_loss"].idxmin()], rows.iloc[-1]
        lowest = f"The dev loss was lowest at step {int(least['step']):,} ({least['dev_loss']:.4f})"
        now = f"{lowest} and is {last['dev_loss']:.4f} now;"
        if last["dev_loss"] <= RISE * least["dev_loss"]:
            parts.append(f"{lowest}.")
        elif last["epoch"] <= 1:
            parts.append(f"{now} no pair has been seen twice so far.")
        elif last["dev_pairs"] < MIN_DEV_PAIRS:
            pairs = count(int(last["dev_pairs"]), "dev pair")
            parts.append(f"{now} {pairs} are too few to say why.")
        else:
            parts.append(f"{lowest} and rose after it: the model has begun to memorise.")
    return sentences(
        *parts,
        "**What this curve cannot tell:** whether the model ranks better than counting shared "
        "characters. The loss falls once the model learns how rare positives are, and further "
        "with easy random negatives. Only notebook 4 answers that.",
    )


def _newest(log: pd.DataFrame) -> pd.DataFrame:
    """The rows of the stage that was logged last."""
    return log[log["stage"] == log["stage"].iloc[-1]] if len(log) else log


def _level(stage: str, rows: pd.DataFrame) -> str:
    """Where the loss is in the second half of a stage, beside that of a constant answer."""
    last, every = rows.iloc[-1], rows["step"].iloc[0]
    half, constant = rows["loss"].iloc[len(rows) // 2 :], last["constant_loss"]
    running = f" (running: step {last['step']:,.0f} of {last['steps']:,.0f})"
    text = (
        f"In {stage} the mean loss of the second half is {half.mean():.4f}"
        f"{running if last['step'] + every <= last['steps'] else ''}; its "
        f"{count(len(half), 'log row')} lie in {half.min():.4f} to {half.max():.4f}."
    )
    if pd.isna(constant) or len(half) < 2:
        return text
    place = f"is {'below' if half.mean() < constant else 'above'}"
    if abs(half.mean() - constant) <= 2 * half.std() / len(half) ** 0.5:
        place = "cannot be told apart, within the noise of these rows, from"
    return (
        f"{text} That {place} the {constant:.4f} of a model that gives every pair the mean label."
    )


def dev(log: pd.DataFrame, record: Record) -> str:
    """How average precision on dev compares with guessing, and which model was saved.

    `record` is that of the newest finished stage; empty if there is none.
    """
    scored = _newest(log).dropna(subset=["dev_pairs"])
    rows = scored.dropna(subset=["dev_ap"])
    if rows.empty and scored["dev_positives"].isin([0, *scored["dev_pairs"]]).any():
        return "All dev pairs are of one class, where average precision says nothing."
    if rows.empty:
        return "No average precision on dev is logged: there is no dev split, or not yet."
    last = rows.iloc[-1]
    return sentences(
        f"At step {last['step']:,} average precision on dev is {last['dev_ap']:.3f}; guessing "
        f"has {last['dev_positives'] / last['dev_pairs']:.3f}, the share of positives among the "
        f"{count(int(last['dev_pairs']), 'dev pair')}. {_best(rows, 'dev_ap')}",
        kept(record),
    )


def dev_ndcg(log: pd.DataFrame) -> str:
    """How a model ranks lists of dev texts; `log` is of the run, with `dev_ndcg` in some row."""
    rows = _newest(log).dropna(subset=["dev_ndcg"])
    if rows.empty:
        return "The newest stage has no nDCG@10 on dev yet."
    last = rows.iloc[-1]
    return (
        f"At step {int(last['step']):,} nDCG@10 on {count(int(last['dev_lists']), 'dev list')} is "
        f"{last['dev_ndcg']:.3f}. {_best(rows, 'dev_ndcg')} These lists are short, to choose a "
        "model by; the test of notebook 4 is another one."
    )


def _best(rows: pd.DataFrame, column: str) -> str:
    best = rows.loc[rows[column].idxmax()]
    return f"The best value so far is {best[column]:.3f}, at step {int(best['step']):,}."


def kept(record: Record) -> str:
    """Which of a stage's models was saved, and why; `record` as in `model/lineage.json`."""
    if "kept" not in record:
        return ""
    found, dev, steps = record["kept"], record["dev"], f"step {record['steps']:,}"
    if record["steps"] < record["planned_steps"]:
        early = "it ended early, because no dev score had been better"
        steps += f" (of {record['planned_steps']:,}: {early})"
    if found["model"] == "best":
        pairs = count(dev["dev_pairs"], "dev pair")
        score = f"average precision on {pairs} ({found.get('dev_ap', 0):.3f})"
        if "dev_ndcg" in found:
            score = f"nDCG@10 on {count(dev['dev_lists'], 'dev list')} ({found['dev_ndcg']:.3f})"
        return (
            f"Saved is the model of step {found['step']:,}, which had the best {score}; training "
            f"went on to {steps}."
        )
    if record["recipe"].get("keep_model") != "best":
        return f"Saved is the last model, of {steps}, as `keep_model: last` asks."
    positives = dev["dev_positives"]
    return (
        f"Saved is the last model, of {steps}: to choose the best takes {MIN_DEV} dev pairs of "
        f"each class, not {positives:,} positive and {dev['dev_pairs'] - positives:,} other ones."
    )


def scores(record: Record) -> str:
    """What `predict` of the saved model gives, and how to get the other; empty if not recorded."""
    if "activation" not in record:
        return ""
    name, other, function = record["activation"], "logits", "Identity"
    gives = f"the `{name}` of the model's logit"
    if name == "Sigmoid":
        gives = "probabilities: the sigmoid of the model's logit"
    if name == "Identity":
        gives, other, function = "logits, not probabilities", "numbers from 0 to 1", "Sigmoid"
    return (
        f"`predict` gives {gives}. For {other}, give it `activation_fn=torch.nn.{function}()`: the "
        "order of the candidates stays the same."
    )


def gradient(log: pd.DataFrame, record: Record) -> str:
    """How often gradients were clipped, and how the rate changed; arguments as for `dev`."""
    rows = log.dropna(subset=["grad_norm"])
    if rows.empty:
        return "No gradient norm is logged yet."
    norm, rate = rows["grad_norm"], rows["learning_rate"]
    limit = record.get("hyperparameters", {}).get("max_grad_norm", 1.0)
    clipped = "it is not clipped"
    if limit:
        above = percent((norm > limit).mean(), 0)
        clipped = f"{above} of them were above {limit:g}, where it is clipped"
    return (
        f"The gradient norm at the logged steps was between {norm.min():.2f} and {norm.max():.2f}; "
        f"{clipped}. "
        f"The learning rate went from {rate.iloc[0]:.2e} to {rate.iloc[-1]:.2e}."
    )


def recipe(asked: Recipe) -> str:
    """What a recipe asks for beyond the reference card."""
    repaired, mined = asked.vocabulary != "keep", asked.hard_negatives
    rate, plural = asked.embedding_learning_rate, "s" * (asked.epochs != 1)
    extras = [
        repaired and f"repair the vocabulary (`{asked.vocabulary}`, {asked.new_embeddings} start)",
        asked.lexical_pairs > 0
        and f"warm up on {asked.lexical_pairs:,} pairs with soft lexical targets",
        mined > 0 and f"add up to {mined} hard negatives for each text of a positive",
        asked.symmetric and "add each positive in the other order",
        not asked.dropout and "train without dropout",
        asked.teacher != "" and f"learn the scores of {code(asked.teacher)}",
        asked.lora_rank > 0
        and f"train LoRA adapters of rank {asked.lora_rank} in place of all weights",
        rate > 0 and f"give token embeddings a learning rate of {rate:g}",
    ]
    wanted = "; ".join(text for text in extras if text)
    plain = (
        f"{asked.epochs:g} epoch{plural} in batches of {asked.batch_size}, learning rate "
        f"{asked.learning_rate:g}, {asked.resolved_precision()}."
    )
    return f"Beyond the labels: {wanted}. Then {plain}" if wanted else f"Labels only: {plain}"


def warm_up(agreement: float | None) -> str:
    """Whether a warm-up has taught a model to compare characters.

    `agreement` is the correlation of its scores with the targets; None where it is not defined.
    """
    if agreement is None:
        return "**All its scores are equal: the warm-up has taught nothing.**"
    shown = f"its scores have a correlation of {agreement:.2f} with the targets"
    if agreement >= LEARNED:
        return f"The model has learned to compare characters: {shown}."
    return (
        f"**The model has not learned to compare characters yet**: {shown}. It learns this late "
        "and then fast; more `lexical_pairs` help, and another `seed` or `new_embeddings` may."
    )


def outcome(record: Record) -> str:
    """What a training did to the vocabulary, and what it learned from."""
    repaired, warmed, seen = record["vocabulary"], record["lexical_warm_up"], record["pairs_seen"]
    added = (f", {n:,} {name.replace('_', ' ')}" for name, n in seen.items() if name != "labelled")
    return sentences(
        "The vocabulary was kept as it is."
        if repaired["vocabulary"] == "keep"
        else f"`{repaired['vocabulary']}` added {count(repaired['added_tokens'], 'token')}; "
        f"{count(repaired['left_out_tokens'], 'character')} found no slot.",
        "dictionary" in repaired and f"Their dictionary: {code(repaired['dictionary'])}.",
        bool(warmed)
        and f"The lexical warm-up took {count(warmed['steps'], 'step')} over "
        f"{count(warmed['pairs'], 'pair')} with soft targets (mean loss "
        f"{warmed['train_loss']:.3f}; it cannot reach 0).",
        bool(warmed) and "agreement" in warmed and warm_up(warmed["agreement"]),
        bool(record.get("not_fast"))
        and "`speed: fast` is for a BERT with the plain loss on a CPU; here, on "
        f"{record['device']}, the library's own trainer was used ({record['not_fast']}).",
        f"Trained on {count(seen['labelled'], 'labelled pair')}{''.join(added)}.",
        kept(record),
        scores(record),
    )
