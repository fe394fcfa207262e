"""Products in 8-bit integers: what is rounded, by how much, and what is refused."""

import copy
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional

from tests.test_backends import made_up
from workbench.__main__ import main
from workbench.backends import BackendError, choose_backend, open_backend, pair_encoder
from workbench.compiled import CompiledKernels
from workbench.compiled_products import CompiledFeedForward, CompiledProduct
from workbench.compiling import compiled_library
from workbench.exported import EXPORTED
from workbench.int8 import (
    PRODUCTS,
    Int8Error,
    _rounded,
    _second_order,
    open_int8,
    require,
    round_model,
    write_int8,
)
from workbench.kernels import TorchKernels
from workbench.models import find_model
from workbench.rounded import RoundedProduct, rounded_feed_forward, rounded_product
from workbench.scoring import ModelScorer, load_cross_encoder


@pytest.fixture(scope="module", autouse=True)
def required():
    try:
        require()
    except Int8Error as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module", params=["torch", "compiled"])
def kernels(request):
    """Who multiplies: oneDNN in torch, or ours."""
    if request.param == "torch":
        return TorchKernels()
    library = compiled_library()
    if library is None or torch.uint8 not in CompiledKernels(library).multiplies:
        pytest.skip("products of 8-bit integers are not ours here")
    return CompiledKernels(library)


@pytest.fixture(scope="module")
def exported(vector_model, tmp_path_factory):
    """A copy of the model for vectors, exported by the command."""
    folder = tmp_path_factory.mktemp("int8") / "model"
    shutil.copytree(vector_model, folder)
    assert main(["export", str(folder), "--to", "torch-int8", "--max-length", "64"]) == 0
    return folder


def test_the_logits_are_nearly_those_of_float32_and_not_the_same(exported):
    pairs, location = made_up(300), find_model(str(exported))
    exact = ModelScorer.load(location, 64).score(pairs)
    rounded = ModelScorer.load(location, 64, backend="torch-int8").score(pairs)
    assert 0.98 < np.corrcoef(rounded, exact)[0, 1] < 0.9999999
    assert np.abs(rounded - exact).max() < exact.std()


def test_auto_looks_at_it_where_it_was_exported(exported, tmp_path):
    model = load_cross_encoder(find_model(str(exported)), 64)
    checked = [
        {one["backend"] for one in choose_backend(model, made_up(60), folder=folder)[1]["checks"]}
        for folder in (exported, tmp_path)
    ]
    assert checked[0] - checked[1] == {"torch-int8"}


def test_a_product_is_that_of_the_rounded_numbers(kernels):
    rng = torch.Generator().manual_seed(0)
    inputs = torch.randn(500, 32, generator=rng) * torch.linspace(0.1, 9, 32)
    weight, bias = torch.randn(48, 32, generator=rng), torch.randn(48, generator=rng)
    part = _rounded(inputs, weight, bias, 0)
    product, zero, step = (
        rounded_product(part, torch.float32, kernels),
        part["zero"].double(),
        part["step"].double(),
    )
    assert isinstance(product, CompiledProduct) == isinstance(kernels, CompiledKernels)
    given = product.form(inputs)
    assert given.dtype == torch.uint8
    assert given.max() == 255  # the bounds are those of the inputs
    back = (given.double() - zero) * step * part["narrowing"]
    assert (back - inputs).abs().max() <= 0.51 * step * part["narrowing"].max()
    narrowed = part["weight"].double() * part["scale"].double()[:, None]
    expected = (given.double() - zero) * step @ narrowed.T + bias
    assert float((product(given) - expected).abs().max()) < 1e-3
    plain = inputs @ weight.T + bias
    assert float((expected - plain).std() / plain.std()) < 0.02


def test_what_is_out_of_bounds_is_cut_off(kernels):
    inputs = torch.linspace(-1, 3, 1600).reshape(100, 16)
    part = _rounded(inputs, torch.eye(16), torch.zeros(16), 0)
    product = rounded_product(part, torch.float32, kernels)
    found = product(product.form(torch.tensor([[50.0, -50.0] * 8])))
    assert found[0].tolist() == pytest.approx([3, -1] * 8, abs=0.05)


def test_up_gelu_and_down_are_nearly_those_of_float32(kernels):
    rng = torch.Generator().manual_seed(4)
    inputs = torch.randn(600, 32, generator=rng)
    up, down = torch.randn(128, 32, generator=rng) / 5, torch.randn(32, 128, generator=rng)
    bias = torch.randn(32, generator=rng)
    up[5] *= 20  # a channel that is not rounded
    inner = functional.gelu(inputs @ up.T)
    exact = inner @ down.T + bias
    parts = _rounded(inputs, up, torch.zeros(128), 0), _rounded(inner, down, bias, 16)
    fed_forward = rounded_feed_forward(*parts, torch.float32, kernels)
    assert 5 in parts[1]["wide"]
    found = fed_forward(fed_forward.form(inputs))
    assert float((found - exact).std() / exact.std()) < 0.015


def test_numbers_that_fill_no_vector_are_left_to_the_library(kernels):
    inputs = torch.linspace(-1, 3, 200).reshape(10, 20)
    part = _rounded(inputs, torch.eye(20), torch.zeros(20), 0)
    product = rounded_product(part, torch.float32, kernels)
    assert type(product) is RoundedProduct
    assert (product(product.form(inputs)) - inputs).abs().max() < 0.05


def test_bounds_and_narrowing_are_those_that_err_least():
    rng = torch.Generator().manual_seed(2)
    inputs, weight = torch.randn(2000, 32, generator=rng), torch.randn(16, 32, generator=rng)
    inputs[0, 3] = 5.5  # once, a little beyond what is met otherwise
    inputs[:, 7] *= 40
    tried = {}
    for power in (0.6, 0.7, 0.8, 0.9, 1.0):
        for part in (1.0, 0.95, 0.9, 0.85, 0.8):
            narrowing = inputs.abs().amax(0) ** power / weight.abs().amax(0) ** (1 - power)
            low, high = (inputs / narrowing).min(), (inputs / narrowing).max()
            step = (high - low) * part / 255
            zero = (-low * part / step).round()
            given = ((inputs / narrowing / step + zero).round().clamp(0, 255) - zero) * step
            scale = (weight * narrowing).abs().amax(1, keepdim=True) / 127
            error = given @ (weight * narrowing / scale).round().T * scale[:, 0]
            tried[power, part] = float((error - inputs @ weight.T).square().mean()), step
    found = _rounded(inputs, weight, torch.zeros(16), 0)["step"]
    assert float(found) == pytest.approx(float(min(tried.values())[1]), rel=1e-4)
    assert len({round(float(step), 6) for _, step in tried.values()}) > 5


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("quick", [True, False])
def test_attention_is_in_bfloat16_only_where_that_is_quick(compiled, quick, exported, monkeypatch):
    if not compiled:
        monkeypatch.setattr("workbench.compiled.compiled_library", lambda: None)
    monkeypatch.setattr("workbench.int8.processor_quick_in_bfloat16", lambda: quick)
    model = load_cross_encoder(find_model(str(exported)), 64)
    pairs = pair_encoder(model).encode(made_up(200))
    opened = open_int8(model.model, exported)
    expected = {torch.bfloat16 if quick else torch.float32}
    assert {layer.joint.result for layer in opened.layers} == expected
    if not compiled:
        assert {opened.kernels.dtype} == expected
    elif compiled_library() is not None:
        ours = torch.uint8 in opened.kernels.multiplies
        assert {isinstance(layer.fed_forward, CompiledFeedForward) for layer in opened.layers} == {
            ours
        }
    exact = ModelScorer(model).score(made_up(200))
    assert np.corrcoef(opened.score(pairs), exact)[0, 1] > 0.98


def test_columns_that_make_up_for_one_another_err_less_than_each_for_itself():
    rng = torch.Generator().manual_seed(1)
    common = torch.randn(2000, 8, generator=rng)
    inputs = common @ torch.randn(8, 96, generator=rng) + torch.randn(2000, 96, generator=rng) / 9
    weight = torch.randn(16, 96, generator=rng)
    whole, scale = _second_order(weight, inputs)
    alone = (weight / scale[:, None]).round() * scale[:, None]
    exact = inputs @ weight.T
    errors = [float((inputs @ one.T - exact).square().mean())
              for one in (whole * scale[:, None], alone)]  # fmt: skip
    assert errors[0] < errors[1] / 2
    assert whole.abs().max() <= 127


def test_the_last_layer_stays_in_float32(exported):
    model = load_cross_encoder(find_model(str(exported)), 64)
    state = round_model(model.model, pair_encoder(model).encode(made_up(100)))
    last = model.model.config.num_hidden_layers - 1
    kinds = [{name.split(".")[1] for name in state if name.startswith(f"{layer}.")}
             for layer in range(last + 1)]  # fmt: skip
    assert kinds == [set(PRODUCTS)] * last + [set()]
    wide, kept = state["0.down.wide"], state["0.down.kept"]
    assert len(wide) == model.model.config.intermediate_size // 8
    assert sorted([*wide.tolist(), *kept.tolist()]) == list(range(len(wide) + len(kept)))


def test_what_cannot_be_done_is_refused_by_name(exported, tiny_model, tmp_path, capsys):
    plain = find_model(str(tiny_model))
    with pytest.raises(BackendError, match=r"write it: workbench export .* --to torch-int8"):
        ModelScorer.load(plain, backend="torch-int8")
    model = load_cross_encoder(plain, 64)
    with pytest.raises(BackendError, match="this model is in no folder"):
        open_backend("torch-int8", model)
    encoded = pair_encoder(model).encode(made_up(20))
    other = copy.deepcopy(model.model)
    other.config.hidden_act = "relu"
    with pytest.raises(Int8Error, match="and GELU, which this BertForSequenceClassification"):
        write_int8(other, encoded, tmp_path)
    assert not list(tmp_path.iterdir())
    (tmp_path / EXPORTED["torch-int8"]).parent.mkdir()
    (tmp_path / EXPORTED["torch-int8"]).write_bytes(b"half a file")
    with pytest.raises(Int8Error, match="is not of this model"):
        open_int8(model.model, tmp_path)
    assert main(["export", "bundled:all-MiniLM-L6-v2", "--to", "torch-int8"]) == 2
    assert "not in a folder of yours" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "0.joint.weight",
            lambda x: x[:-3],
            r"0\.joint\.weight is torch\.int8 \(93, 32\), not",
        ),
        ("0.joint.weight", lambda x: x.float(), r"0\.joint\.weight is torch\.float32"),
        ("0.up.narrowing", lambda x: x[:5], r"0\.up\.narrowing is torch\.float32 \(5,\)"),
        ("0.down.wide", lambda x: x + 1, r"0\.down\.kept and 0\.down\.wide are not its 128 "),
        ("0.down.kept", lambda x: x.float(), r"0\.down\.kept and 0\.down\.wide are not its 128 "),
        ("0.out.kept", lambda x: x.flip(0), r"0\.out\.kept and 0\.out\.wide are not its 32 col"),
        ("0.up.step", lambda x: x * torch.nan, r"0\.up\.step is not all finite"),
        ("0.up.narrowing", lambda x: -x, r"0\.up\.narrowing is not all above 0"),
        ("0.out.bias", lambda x: x.new_empty(0), r"0\.out\.bias is torch\.float32 \(0,\)"),
    ],
)
def test_what_was_made_of_another_model_is_refused(name, change, message, exported, tmp_path):
    model = load_cross_encoder(find_model(str(exported)), 64).model
    file = tmp_path / EXPORTED["torch-int8"]
    shutil.copytree((exported / EXPORTED["torch-int8"]).parent, file.parent)
    state = load_file(file)
    save_file(state | {name: change(state[name]).contiguous()}, file)
    with pytest.raises(Int8Error, match=f"is not of this model .*{message}"):
        open_int8(model, tmp_path)
