import json
import shutil

import numpy as np
import pytest
import torch

from tests.benchmarks.kinds import WAYS, possible
from tests.benchmarks.tiny import KINDS, write_tiny_kind, write_tiny_reranker
from tests.conftest import CHARACTERS, labelled
from workbench.data.lists import CandidateList
from workbench.engine.bert import unsupported
from workbench.machine import torch_threads
from workbench.models import ModelError, find_model, load_tokenizer
from workbench.ranking.evaluation import evaluate
from workbench.reports import findings
from workbench.scoring import backends
from workbench.scoring.backends import (
    BATCH_SIZE,
    BackendError,
    check,
    choose_backend,
    inverted_share,
    open_backend,
    pair_encoder,
)
from workbench.scoring.cross_encoder import ModelScorer, load_cross_encoder
from workbench.scoring.export import export_model

FAST = ["torch-float32", "torch-bfloat16"]
FURTHEST = {"torch-float32": 1e-4, "torch-bfloat16": 0.1}  # in standard deviations


def made_up(count, seed=0, longest=30):
    rng = np.random.default_rng(seed)
    texts = [
        "".join(rng.choice(list(CHARACTERS + "ab 1？"), n))
        for n in rng.integers(1, longest, 2 * count)
    ]
    return list(zip(texts[:count], texts[count:], strict=True))


@pytest.fixture(scope="module", params=[True, False], ids=["typed", "untyped"])
def model(request, vector_model):
    """A small model that tells texts apart, its logits of mean 0 and deviation 1."""
    found = load_cross_encoder(find_model(str(vector_model)), 64)
    if request.param:
        found.tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    with torch.no_grad():
        logits, head = ModelScorer(found).score(made_up(400)), found.model.classifier
        head.weight /= float(logits.std())
        head.bias -= float(logits.mean() / logits.std())
    return found


@pytest.fixture(scope="module")
def pairs():
    return list(dict.fromkeys(made_up(400)))


@pytest.fixture(scope="module")
def exact(model, pairs):
    return open_backend("predict", model)(pairs)


@pytest.mark.parametrize("name", FAST)
def test_a_fast_backend_gives_the_logits_of_the_library(name, model, pairs, exact):
    found = open_backend(name, model)(pairs)
    assert found.dtype == np.float32
    assert np.std(exact) == pytest.approx(1, abs=0.2)  # else the next line would say nothing
    assert found == pytest.approx(exact, abs=FURTHEST[name])
    assert len(set(found.tolist())) >= 0.99 * len(set(exact.tolist()))  # no ties by rounding


@pytest.mark.parametrize("name", FAST)
def test_two_threads_give_the_same_and_the_number_of_threads_is_left_alone(name, model, pairs):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = open_backend(name, model)(pairs)
        torch.set_num_threads(2)
        together = open_backend(name, model)(pairs)
        assert torch.get_num_threads() == 2
        with torch_threads(1) as threads:
            assert (threads, torch.get_num_threads()) == (2, 1)
    finally:
        torch.set_num_threads(before)
    assert together == pytest.approx(alone, abs=3e-5)  # other packs: sums in another order


@pytest.mark.parametrize("name", FAST)
def test_a_model_may_have_a_single_layer(name, vector_model, pairs):
    single = load_cross_encoder(find_model(str(vector_model)), 64)
    del single.model.bert.encoder.layer[1:]
    exact = open_backend("predict", single)(pairs)
    found = open_backend(name, single)(pairs)
    assert np.abs(found - exact).max() < FURTHEST[name] * exact.std()


def test_predict_pads_by_tokens_not_by_characters(model, monkeypatch):
    few_tokens = [(f"{'x' * (40 + n)} 我", "钱") for n in range(BATCH_SIZE)]
    many_tokens = [("我的钱" * 3, "我" * (1 + n % 9)) for n in range(BATCH_SIZE)]
    mixed = [pair for both in zip(few_tokens, many_tokens, strict=True) for pair in both]
    plain = model.predict(mixed, activation_fn=torch.nn.Identity())
    batches, predict = [], model.predict

    def refuse(_):
        raise ModelError("it needs a fast tokenizer")

    def noted(batch, **options):
        batches.append(pair_encoder(model).encode(batch).lengths)
        return predict(batch, **options)

    monkeypatch.setattr(model, "predict", noted)
    assert open_backend("predict", model)(mixed) == pytest.approx(plain, abs=1e-5)
    assert [len(lengths) for lengths in batches] == [BATCH_SIZE, BATCH_SIZE]
    assert batches[0].min() >= batches[1].max()
    monkeypatch.setattr(backends, "pair_encoder", refuse)  # as of a slow tokenizer: by characters
    assert open_backend("predict", model)(mixed) == pytest.approx(plain, abs=1e-5)
    assert batches[2].max() < batches[3].min()
    assert open_backend("predict", model)([]).shape == (0,)


def test_a_score_does_not_depend_on_what_else_is_scored(model, pairs):
    run = open_backend("torch-float32", model)
    assert run(pairs[:1])[0] == pytest.approx(run(pairs)[0], abs=1e-4)


def test_inverted_share_by_hand():
    exact = np.array([1, 2, 3, 4], dtype=np.float32)
    assert inverted_share(exact, exact * 7) == 0
    assert inverted_share(exact, -exact) == 1
    assert inverted_share(exact, np.array([2, 1, 3, 4], np.float32)) == pytest.approx(1 / 6)
    assert inverted_share(exact, np.array([1, 1, 3, 4], np.float32)) == pytest.approx(1 / 6)
    assert inverted_share(np.ones(3, np.float32), exact[:3]) == 0  # nothing was told apart


@pytest.mark.parametrize(
    ("spoil", "passes"),
    [
        (lambda s: s + 1e-3, True),
        (lambda s: np.round(s * 20) / 20, False),  # coarse logits: ties
        (lambda s: s + 1.0, False),  # the same order, but other probabilities
        (lambda s: -s, False),
        (lambda s: s * np.nan, False),
    ],
)
def test_the_check_fires_only_where_order_or_probability_is_lost(spoil, passes, pairs, exact):
    found = check("spoiled", exact, lambda _: spoil(exact), pairs)
    assert found.passed is passes
    assert ("passes" if passes else "fails") in str(found)
    assert np.isfinite([found.swapped, found.shifted, found.logits]).all()  # so JSON can hold it


def test_auto_takes_the_fastest_that_passes_and_says_so(model, pairs, exact, monkeypatch):
    real = open_backend

    def spoiled(name, *rest):
        run = real(name, *rest)
        return (lambda pairs: -run(pairs)) if name == "torch-float32" else run

    monkeypatch.setattr("workbench.scoring.backends.open_backend", spoiled)
    run, record = choose_backend(model, pairs[:256])
    found = {one["backend"]: one for one in record["checks"]}
    assert set(found) == {"predict", *FAST}
    assert not found["torch-float32"]["passed"]
    assert found["predict"]["swapped"] == 0
    good = [one for one in record["checks"] if one["passed"]]
    assert record["backend"] == max(good, key=lambda one: one["pairs_per_second"])["backend"]
    assert run(pairs) == pytest.approx(exact, abs=0.1)


def test_auto_decides_when_there_are_pairs_enough_and_scores_equal_pairs_once(
    model, pairs, exact, monkeypatch
):
    scorer = ModelScorer(model, backend="auto")
    monkeypatch.setattr("workbench.scoring.cross_encoder.MIN_PAIRS_TO_CHECK", 299)
    few = scorer.score(pairs[:100])
    assert scorer.backend_record == {"backend": "predict", "asked": "auto"}
    assert few == pytest.approx(exact[:100], abs=1e-4)
    asked = []
    monkeypatch.setattr(
        "workbench.scoring.backends.choose_backend",
        lambda model, first, folder: (
            lambda distinct: asked.append(len(distinct)) or np.arange(len(distinct)),
            {"backend": "made up", "asked": "auto", "pairs": len(first)},
        ),
    )
    found = scorer.score([*pairs[:300], *pairs[:300][::-1]])
    assert scorer.backend_record == {"backend": "made up", "asked": "auto", "pairs": 256}
    assert found.tolist() == [*range(300), *range(300)[::-1]]
    assert asked == [300]


def test_the_evaluation_records_the_backends_and_a_sentence_tells(model, pairs, monkeypatch):
    monkeypatch.setattr("workbench.scoring.cross_encoder.MIN_PAIRS_TO_CHECK", 256)
    lists = [CandidateList("a", tuple(b for _, b in pairs[:300]), (1.0,) + (0.0,) * 299)]
    scorers = {"model": ModelScorer(model, backend="auto"), "base": ModelScorer(model)}
    metrics = evaluate(scorers, lists, labelled().astype({"label": float}), resamples=100).metrics
    assert metrics["backends"]["base"] == {"backend": "predict", "asked": "predict"}
    assert metrics["backends"]["model"]["pairs"] == 256
    text = findings.backends(metrics)
    assert f"`model` was run by **{metrics['backends']['model']['backend']}**" in text
    assert findings.backends({}) == "No model was run."


def test_one_backend_scores_lists_and_labelled_pairs(model, pairs, monkeypatch):
    """Few lists and many labelled pairs: decided before the first of them is scored."""
    monkeypatch.setattr("workbench.scoring.cross_encoder.MIN_PAIRS_TO_CHECK", 250)
    rows = labelled(*((*pair, number % 2) for number, pair in enumerate(pairs[:250])))
    lists = [CandidateList("a", ("b", "c"), (1.0, 0.0))]
    asked = []

    def choose(model, first, *rest):
        asked.append(list(first))
        return lambda distinct: np.arange(len(distinct), dtype=np.float32), {"backend": "made up"}

    monkeypatch.setattr("workbench.scoring.backends.choose_backend", choose)
    metrics = evaluate(
        {"model": ModelScorer(model, backend="auto")}, lists, rows, resamples=100
    ).metrics
    assert asked == [[("a", "b"), ("a", "c")]]
    assert metrics["backends"] == {"model": {"backend": "made up"}}


def test_auto_leaves_a_model_whose_scores_are_no_numbers_as_it_is(model, pairs):
    import copy

    broken = copy.deepcopy(model)
    with torch.no_grad():
        broken.model.classifier.bias.fill_(torch.nan)
    run, record = choose_backend(broken, pairs[:20])
    assert record == {"backend": "predict", "asked": "auto", "pairs": 20, "checks": []}
    assert np.isnan(run(pairs[:20])).all()


def test_weights_stored_in_half_precision_are_computed_in_float32(tiny_model, tmp_path, pairs):
    from safetensors.torch import load_file, save_file

    folder = edited(tiny_model, tmp_path / "half", config={"dtype": "bfloat16"})
    weights = load_file(folder / "model.safetensors")
    halved = {name: value.bfloat16() for name, value in weights.items()}
    save_file(halved, folder / "model.safetensors", metadata={"format": "pt"})
    model = load_cross_encoder(find_model(str(folder)), 64)
    assert {weight.dtype for weight in model.model.parameters()} == {torch.float32}
    fast, plain = (open_backend(name, model)(pairs[:50]) for name in ("torch-float32", "predict"))
    assert fast == pytest.approx(plain, abs=1e-4)


def test_what_a_backend_cannot_run_is_refused_by_name(tiny_model, tmp_path):
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    for file in tiny_model.glob("*token*"):
        shutil.copy(file, tmp_path)
    config = DistilBertConfig(
        vocab_size=80, dim=16, n_layers=1, n_heads=2, hidden_dim=32, num_labels=1
    )
    DistilBertForSequenceClassification(config).save_pretrained(tmp_path)
    model = load_cross_encoder(find_model(str(tmp_path)), 64)
    assert "not DistilBert" in unsupported(model.model)
    with pytest.raises(BackendError, match="'torch-int4' is none of auto, predict"):
        ModelScorer(model, backend="torch-int4")
    with pytest.raises(BackendError, match="not DistilBertForSequenceClassification; use 'p"):
        ModelScorer(model, backend="torch-bfloat16")
    run, record = choose_backend(model, made_up(20))
    assert [one["backend"] for one in record["checks"]] == ["predict"]
    assert set(record["left_out"]) == {*FAST, "onnx", "onnx-int8"}
    assert "it runs BERT with one output" in record["left_out"]["torch-bfloat16"]
    assert run(made_up(20)) == pytest.approx(ModelScorer(model).score(made_up(20)), abs=1e-6)


def test_the_engine_says_why_it_cannot_run_a_bert(tiny_model):
    """Two outputs, a decoder, products of another kind, and layers that share their weights."""
    found = load_cross_encoder(find_model(str(tiny_model))).model
    assert unsupported(found) == ""
    for name, value, reason in (("num_labels", 2, "with 2"), ("is_decoder", True, "an encoder")):
        before = getattr(found.config, name)
        setattr(found.config, name, value)
        assert reason in unsupported(found)
        setattr(found.config, name, before)
    layers = found.bert.encoder.layer
    dense, layers[1].output.dense = layers[1].output.dense, layers[0].output.dense
    assert "shared" in unsupported(found)
    layers[1].output.dense = type("Quantized", (torch.nn.Linear,), {})(32, 16)
    assert "quantized or adapted" in unsupported(found)
    layers[1].output.dense = dense
    assert unsupported(found) == ""


def library_logits(folder, pairs, length=None):
    """What plain code of the library gives."""
    from sentence_transformers import CrossEncoder

    plain = CrossEncoder(str(folder))
    plain.tokenizer.model_max_length = length or plain.tokenizer.model_max_length
    return plain.predict(pairs, activation_fn=torch.nn.Identity())


def cut_at(location, asked=None):
    """The tokens of a pair at which a loaded model cuts."""
    return load_cross_encoder(location, asked).tokenizer.model_max_length


@pytest.mark.parametrize("kind", KINDS)
def test_other_kinds_of_model_are_loaded_scored_and_exported(kind, once, tmp_path):
    """Long pairs too: for RoBERTa and XLM-R the library itself would end in an `IndexError`."""
    folder = tmp_path / kind
    shutil.copytree(once(f"kind-{kind}", lambda made: write_tiny_kind(made, kind)), folder)
    location = find_model(str(folder))
    assert [cut_at(location, asked) for asked in (None, 50, 512)] == [128, 50, 128]
    pairs = made_up(30, longest=150)
    exact = library_logits(folder, pairs, 128)
    assert np.std(exact) > 0
    scorer = ModelScorer.load(location)
    assert scorer.score(pairs) == pytest.approx(exact, abs=1e-6)
    encoded = scorer.model.tokenizer(*pairs[0], truncation=True, max_length=128)["input_ids"]
    assert (
        load_tokenizer(location).encode(*pairs[1]).ids == scorer.model.tokenizer(*pairs[1])[0].ids
    )
    assert len(encoded) <= 128
    pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
    found = possible(folder)
    assert [found[name] for name in ("audit", "train", "export")] == ["yes"] * 3
    wordpiece = kind in ("bert", "electra")
    assert found["repair"] == "yes" if wordpiece else "no: " in found["repair"]
    quick = found["quick scoring and training"]
    assert quick == "yes" if kind == "bert" else f"not {type(scorer.model.model).__name__}" in quick
    found = ModelScorer.load(location, backend="onnx").score(pairs)
    assert found == pytest.approx(exact, abs=1e-5)


@pytest.fixture(scope="module")
def reranker(once):
    """A language model, saved by the library as a reranker."""
    from sentence_transformers import CrossEncoder

    def make(folder):
        CrossEncoder(str(write_tiny_reranker(folder / "plain"))).save_pretrained(str(folder))
        shutil.rmtree(folder / "plain")

    return once("reranker", make)


def test_a_language_model_ranks_by_its_next_token(reranker, tmp_path):
    """Scored as by the library, cut at its positions; each quick way says why it cannot run it."""
    folder = tmp_path / "model"
    shutil.copytree(reranker, folder)
    location = find_model(str(folder))
    assert location.head
    assert [cut_at(location, asked) for asked in (None, 50, 512)] == [128, 50, 128]
    pairs = made_up(20, longest=80)
    scorer = ModelScorer.load(location)
    exact = library_logits(folder, pairs, 128)
    assert np.std(exact) > 0
    assert scorer.score(pairs) == pytest.approx(exact, abs=1e-5)
    assert np.abs(ModelScorer.load(location, 50).score(pairs) - exact).max() > 1e-3
    with pytest.raises(ModelError, match=r"chat template .* with max_length 16 no room for it"):
        ModelScorer.load(location, 16)
    run, record = choose_backend(scorer.model, pairs, folder=folder)
    assert run(pairs) == pytest.approx(exact, abs=1e-5)
    assert set(record["left_out"]) == {*FAST, "onnx", "onnx-int8"}
    assert "not Qwen3ForCausalLM; use 'predict'" in record["left_out"]["torch-float32"]
    assert "through its chat template" in record["left_out"]["onnx"]
    found = possible(folder)
    assert [found[name] for name in ("audit", "train")] == ["yes", "yes"]
    assert all("no: " in found[name] for name in [*WAYS][2:])
    lists = [CandidateList("a", tuple(b for _, b in pairs), (1.0,) + (0.0,) * 19)]
    nothing = labelled().astype({"label": float})
    (row,) = evaluate({"model": scorer}, lists, nothing, resamples=100).metrics["rows"]
    own = library_logits(folder, lists[0].pairs(), 128)
    assert row["map"]["mean"] == pytest.approx(1 / (1 + (own > own[0]).sum()))


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"answers": ("ja", "nein")}, "has no tokens 'yes' and 'no'"),
        ({"template": "{% for one in messages if one.role == 'user' %}x{% endfor %}"}, "template"),
    ],
)
def test_a_language_model_that_is_no_reranker_is_refused_by_name(given, reason, tmp_path):
    folder = write_tiny_reranker(tmp_path / "model", **given)
    with pytest.raises(ModelError, match=f"model cannot be loaded: .*{reason}"):
        load_cross_encoder(find_model(str(folder)))


def edited(source, folder, **files):
    """A copy of a model folder with other values in its JSON files."""
    shutil.copytree(source, folder)
    for name, values in files.items():
        path = folder / f"{name}.json"
        before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        path.write_text(json.dumps(before | values), encoding="utf-8")
    return folder


LEFT = {"model_max_length": 24, "truncation_side": "left"}
LENGTHS = {
    "its own": (64, {}),
    "the tokenizer's": (20, {"tokenizer_config": {"model_max_length": 20}}),
    "none stated": (128, {"tokenizer_config": {"model_max_length": 10**30}}),
    "more than positions": (128, {"tokenizer_config": {"model_max_length": 512}}),
    "an old config": (64, {"sentence_bert_config": {"max_seq_length": 24, "do_lower_case": False}}),
    "cut on the left": (24, {"tokenizer_config": LEFT}),
}


@pytest.mark.parametrize(("length", "files"), LENGTHS.values(), ids=LENGTHS)
def test_pairs_are_cut_where_the_library_cuts_them(length, files, sharp_model, tmp_path):
    folder, pairs = edited(sharp_model, tmp_path / "model", **files), made_up(60, longest=90)
    location = find_model(str(folder))
    assert cut_at(location) == length
    exact = library_logits(folder, pairs, length if length == 128 else None)
    scorer = ModelScorer.load(location, 512)  # a larger number than its own changes nothing
    for run in (scorer.score, open_backend("torch-float32", scorer.model)):
        assert run(pairs) == pytest.approx(exact, abs=1e-4)
    shorter = ModelScorer.load(location, 10).score(pairs)
    assert shorter == pytest.approx(library_logits(folder, pairs, 10), abs=1e-6)
    assert np.abs(shorter - exact).max() > 1e-3
    assert load_cross_encoder(location, 512).tokenizer.model_max_length == 128  # to be trained


def test_a_length_saved_by_the_library_is_kept(tiny_model, tmp_path):
    """A cross-encoder saved by the library states its length in a file of the library's own."""
    from sentence_transformers import CrossEncoder

    folder = tmp_path / "saved"
    CrossEncoder(str(tiny_model), max_length=50).save(str(folder))
    assert cut_at(find_model(str(folder))) == 50
    other = edited(folder, tmp_path / "other", sentence_bert_config={"max_seq_length": 24})
    assert CrossEncoder(str(other)).tokenizer.model_max_length == 24
    assert cut_at(find_model(str(other))) == 24


def test_one_tokenizer_reads_the_texts_everywhere(once, tmp_path):
    """`tokenizer.json` lowercases and the config says not to: the library follows the config."""
    source = once("kind-bert", lambda made: write_tiny_kind(made, "bert"))
    folder = edited(source, tmp_path / "model", tokenizer_config={"do_lower_case": False})
    location = find_model(str(folder))
    model = load_cross_encoder(location)
    assert load_tokenizer(location).encode("AB").tokens == ["[CLS]", "[UNK]", "[SEP]"]
    assert model.tokenizer.tokenize("AB") == ["[UNK]"]
    pairs = [("AB", "b"), ("ab", "b"), ("É", "e")]
    fast, plain = (open_backend(name, model)(pairs) for name in ("torch-float32", "predict"))
    assert fast == pytest.approx(plain, abs=1e-6)
    pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
    export_model(location)
    assert ModelScorer.load(location, backend="onnx").score(pairs) == pytest.approx(plain, abs=1e-5)
    (folder / "tokenizer.json").write_text((source / "tokenizer.json").read_text() + "\n")
    with pytest.raises(BackendError, match="has changed since the export"):
        ModelScorer.load(location, backend="onnx")
