"""The compiled kernels: what they compute, and what happens where they cannot be compiled."""

import platform
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import LayerNorm, functional

from tests.test_backends import made_up
from workbench.backends import open_backend, pair_encoder
from workbench.compiled import CompiledKernels, Panels, compiled_kernels, panels
from workbench.compiling import compiled_library
from workbench.kernels import BFLOAT16, FLOAT32, Form, TorchKernels
from workbench.models import find_model
from workbench.packing import packs
from workbench.recipes import processor_capabilities
from workbench.scoring import load_cross_encoder

LENGTHS = [70, 33, 32, 31, 17, 16, 15, 5, 4, 1]
FLAGS = [(), *([("-march=x86-64-v3",)] if platform.machine() == "x86_64" else [])]  # 256 bits


@pytest.fixture(scope="module", params=FLAGS, ids=["native", "narrow"][: len(FLAGS)])
def kernels(request):
    library = compiled_library(request.param)
    if library is None:
        pytest.skip("there is no C++ compiler here")
    if request.param:
        assert library.lanes() == 8
    return CompiledKernels(library)


@pytest.fixture
def pack():
    """Pairs of `LENGTHS`, with three tokens of no pair between the third and the fourth."""
    lengths = torch.tensor(LENGTHS)
    firsts = lengths.cumsum(0) - lengths
    firsts[3:] += 3
    return SimpleNamespace(firsts=firsts, lengths=lengths, sizes=[sum(LENGTHS) + 3])


def numbers(*shape, seed=0, spread=1.0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * spread


def rounding(width):
    """128 is zero, and 40 steps to one and more to some."""
    return Form(torch.uint8, torch.linspace(40, 60, width), 128.5)


def attended(joint, pack, heads):
    """By the definition in float64, pair after pair."""
    found = torch.zeros(len(joint), joint.shape[1] // 3, dtype=torch.float64)
    for first, length in zip(pack.firsts.tolist(), pack.lengths.tolist(), strict=True):
        own = slice(first, first + length)
        query, key, value = joint[own].double().view(length, 3, heads, -1).permute(1, 2, 0, 3)
        weights = torch.softmax(query @ key.transpose(1, 2), dim=-1)
        found[own] = (weights @ value).transpose(0, 1).reshape(length, -1)
    return found.float()


@pytest.mark.parametrize("size", [16, 32, 48, 64])
def test_attention_is_that_of_the_definition(size, kernels, pack):
    joint = numbers(sum(pack.sizes), 3 * 2 * size, spread=0.9)
    expected = attended(joint, pack, 2)
    found = kernels.attend(joint, pack, 2, FLOAT32)
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() < 5e-6
    form = rounding(2 * size)
    steps = kernels.attend(joint, pack, 2, form).int() - form(expected).int()
    pairs = torch.ones(sum(pack.sizes), dtype=torch.bool)
    pairs[sum(LENGTHS[:3]) : sum(LENGTHS[:3]) + 3] = False  # what is there is of no matter
    assert steps[pairs].abs().max() <= 1  # where a number lies on the edge
    assert (steps[pairs] != 0).float().mean() < 1e-3
    assert found[~pairs].abs().max() == 0


def test_attention_of_rounded_numbers_is_summed_up_in_float32(kernels, pack):
    joint = numbers(sum(pack.sizes), 3 * 64).bfloat16()
    expected = attended(joint, pack, 2)
    found = kernels.attend(joint, pack, 2, BFLOAT16)
    assert found.dtype == torch.bfloat16
    assert (
        torch.equal(found, expected.bfloat16())
        or ((found.float() - expected).abs() <= expected.abs() / 250 + 1e-6).all()
    )
    pairs = kernels.attend(joint, pack, 2, rounding(64))[: LENGTHS[0]].int()
    assert (pairs - rounding(64)(expected)[: LENGTHS[0]].int()).abs().max() <= 1


def test_rows_may_stand_anywhere_and_be_shared(kernels, pack):
    table = numbers(40, 3 * 32)
    place = torch.randint(40, (sum(pack.sizes),), generator=torch.Generator().manual_seed(1))
    found = kernels.attend(table, pack, 2, FLOAT32, place)
    assert torch.equal(found, kernels.attend(table[place], pack, 2, FLOAT32))


def test_large_scores_are_no_trouble_and_nan_stays_with_its_pair(kernels, pack):
    joint = numbers(sum(pack.sizes), 3 * 32, spread=10)
    assert (kernels.attend(joint, pack, 2, FLOAT32) - attended(joint, pack, 2)).abs().max() < 1e-3
    joint[3, 40] = torch.nan
    found = kernels.attend(joint, pack, 2, FLOAT32)
    assert found[: LENGTHS[0]].isnan().any()
    assert not found[LENGTHS[0] :].isnan().any()


def test_mixing_and_normalising_are_as_by_torch(kernels, tiny_model):
    model = load_cross_encoder(find_model(str(tiny_model)), 64)
    padded = next(packs(pair_encoder(model).encode(made_up(60)), 900))
    x = numbers(len(padded.ids), 48)
    for heads in (2, 12, 20):
        asked = numbers(len(padded.rows), heads, 48, seed=heads)
        expected = TorchKernels().mix(asked, x, padded)
        assert (kernels.mix(asked, x, padded) - expected).abs().max() < 1e-5
    norm = LayerNorm(48, eps=1e-6)
    with torch.no_grad():
        norm.weight.copy_(numbers(48, seed=2))
        norm.bias.copy_(numbers(48, seed=3))
    for more in (None, numbers(*x.shape, seed=4), numbers(*x.shape, seed=4).bfloat16()):
        total = x if more is None else x + more
        expected = functional.layer_norm(total, (48,), norm.weight, norm.bias, norm.eps).detach()
        for form in (FLOAT32, BFLOAT16, rounding(48)):
            whole, given = kernels.normalise(x.clone(), more, norm, form)
            assert (whole - expected).abs().max() < 3e-6
            assert given.dtype == form.dtype
            assert torch.equal(given, form(whole))


@pytest.mark.parametrize(("width", "kept"), [(64, 48), (96, 96), (40, 20)])
def test_gelu_is_nearly_that_of_the_definition(width, kept, kernels):
    form = rounding(kept)
    x = torch.linspace(-12, 12, 100 * width).reshape(100, width)
    for given in (x, x.bfloat16()):
        expected = functional.gelu(given.double()).float()
        inner, others = kernels.gelu(given, kept, form)
        assert not len(others.T) or (others - expected[:, kept:]).abs().max() < 2e-4
        steps = inner.int() - form(expected[:, :kept]).int()
        assert steps.abs().max() <= 1
        assert (steps != 0).float().mean() < 0.01
    inner, others = kernels.gelu(torch.tensor([[-300.0, 300.0]]).repeat(1, width // 2), kept, form)
    assert set(inner.flatten().tolist()) == {128, 255}


@pytest.fixture(params=[torch.uint8, torch.bfloat16], ids=["8 bits", "bfloat16"])
def given_as(request, kernels):
    if request.param not in kernels.multiplies:
        pytest.skip("such products are not ours on this processor")
    return request.param


def whole_numbers(low, high, *shape, dtype):
    rng = torch.Generator().manual_seed(sum(shape))
    return torch.randint(low, high, shape, generator=rng, dtype=dtype)


def to_be_multiplied(dtype, rows, inputs, columns):
    """What is given, its weights, what these mean, and by how much float32 may err in a sum."""
    bias = numbers(columns, seed=1)
    if dtype == torch.bfloat16:
        given = numbers(rows, inputs, spread=0.6).bfloat16()
        weight = numbers(columns, inputs, seed=4, spread=0.6).bfloat16()
        exact = given.double() @ weight.double().T + bias
        largest = given.double().abs() @ weight.double().abs().T + bias.abs()
        return given, Panels.of(weight, bias), exact, inputs * 2**-24 * largest
    given = whole_numbers(0, 256, rows, inputs, dtype=torch.uint8)
    weight = whole_numbers(-127, 128, columns, inputs, dtype=torch.int8)
    given[:1], weight[-1] = 255, 127  # the largest sum there is
    scale = numbers(columns).abs() / 1000
    exact = (given.double() @ weight.double().T) * scale + bias
    return given, Panels.of(weight, bias, scale), exact, 2e-7 * exact.abs() + 1e-5


def test_which_processors_have_products_of_ours():
    """Those that say so, but for those with matrix units, which the library knows better."""
    known = processor_capabilities()
    library = compiled_library()
    if library is None or not known:
        pytest.skip("no C++ compiler here, or torch does not say what the processor can do")
    names = {torch.uint8: "avx512_vnni", torch.bfloat16: "avx512_bf16"}
    expected = {dtype for dtype, name in names.items()
                if known.get("avx512_vnni") and known.get(name) and not known.get("amx_int8")
                }  # fmt: skip
    assert CompiledKernels(library).multiplies == expected


@pytest.mark.parametrize("rows", [0, 1, 5, 6, 7, 40])
@pytest.mark.parametrize(("inputs", "columns"), [(16, 16), (48, 64), (1536, 80), (32, 208)])
def test_a_product_is_that_of_the_definition(rows, inputs, columns, given_as, kernels):
    given, weights, exact, near = to_be_multiplied(given_as, rows, inputs, columns)
    found = kernels.multiply(given, weights, torch.float32)
    assert ((found - exact).abs() <= near).all()
    rounded = kernels.multiply(given, weights, torch.bfloat16)
    assert torch.equal(rounded, found.bfloat16())
    wide, wide_weight = numbers(rows, 24, seed=2), numbers(columns, 24, seed=3)
    both = exact + wide.double() @ wide_weight.double().T
    found = kernels.multiply(given, weights, torch.float32, wide, panels(wide_weight))
    sums = exact.abs() + wide.abs().double() @ wide_weight.abs().double().T
    assert ((found - both).abs() <= near + 24 * 2**-24 * sums).all()  # one after another


def test_weights_of_another_size_are_refused(given_as, kernels):
    given, weights, *_ = to_be_multiplied(given_as, 6, 32, 16)
    with pytest.raises(ValueError, match=r"weights of \d+ bytes for \(6, 16\) torch"):
        kernels.multiply(given[:, :16].contiguous(), weights, torch.float32)


@pytest.mark.parametrize(("columns", "kept"), [(64, 48), (96, 96), (144, 112)])
def test_gelu_of_a_product_is_gelu_and_a_product(columns, kept, given_as, kernels):
    given, weights, *_ = to_be_multiplied(given_as, 27, 32, columns)
    if weights.scale is not None:
        weights = weights._replace(scale=weights.scale / 100)
    form = rounding(kept) if given_as == torch.uint8 else BFLOAT16
    inner, others = kernels.multiply_gelu(given, weights, kept, form)
    product = kernels.multiply(given, weights, torch.float32)
    expected = functional.gelu(product.double()).float()
    assert inner.dtype == form.dtype
    assert others.shape == (27, columns - kept)
    assert not others.numel() or (others - expected[:, kept:]).abs().max() < 3e-4
    if form == BFLOAT16:
        error = (inner.float() - expected[:, :kept]).abs()
        assert (error <= expected[:, :kept].abs() / 250 + 2e-4).all()
    else:
        wanted = kernels.gelu(product, kept, form)[0].int()
        assert len(wanted.unique()) > 50
        assert (inner.int() - wanted).abs().max() <= 1  # at an edge, by another sum
        assert (inner.int() != wanted).float().mean() < 0.001


def test_rounding_to_bfloat16_is_that_of_torch(kernels):
    norm = LayerNorm(16)
    for scale in (1e-30, 1.0, 3e38):
        with torch.no_grad():
            norm.weight.fill_(scale)
        whole, given = kernels.normalise(numbers(500, 16), None, norm, BFLOAT16)
        assert torch.equal(given, whole.bfloat16())
    whole, given = kernels.normalise(torch.full((1, 16), torch.nan), None, norm, BFLOAT16)
    assert given.isnan().all()


def test_what_is_not_in_one_piece_is_refused(kernels):
    with pytest.raises(ValueError, match="no contiguous tensor"):
        kernels.normalise(numbers(16, 32).T, None, LayerNorm(16), FLOAT32)


def test_they_are_for_float32_on_a_processor_and_heads_that_fill_vectors():
    def of(size=32, dtype=torch.float32, device="cpu"):
        config = SimpleNamespace(hidden_size=2 * size, num_attention_heads=2)
        model = SimpleNamespace(config=config, dtype=dtype, device=torch.device(device))
        return compiled_kernels(model) is not None

    assert of() == (compiled_library() is not None)
    assert not of(24)
    assert not of(dtype=torch.float16)
    assert not of(device="meta")


@pytest.fixture
def compile_anew(tmp_path, monkeypatch):
    """The function as it is before it remembers, with an empty cache folder."""
    if compiled_library() is None:
        pytest.skip("there is no C++ compiler here")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("WORKBENCH_COMPILE", raising=False)
    return compiled_library.__wrapped__


def test_a_machine_compiles_once(compile_anew, tmp_path, monkeypatch):
    assert compile_anew() is not None
    assert len(list(tmp_path.glob("cache/reranker-workbench/*"))) == 1

    def run(*_, **__):
        raise AssertionError("compiled again")

    monkeypatch.setattr(subprocess, "run", run)
    assert compile_anew() is not None
    monkeypatch.setenv("CXX", "c++ -DOTHER")
    with pytest.raises(AssertionError, match="again"):
        compile_anew()


@pytest.mark.parametrize(
    ("name", "value"),
    [("WORKBENCH_COMPILE", "0"), ("CXX", "false"), ("CXX", "no-such-compiler"), ("PATH", "")],
)
def test_where_it_cannot_be_compiled_nothing_is_left(
    name, value, compile_anew, tmp_path, monkeypatch
):
    monkeypatch.setenv(name, value)
    assert compile_anew() is None
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_folder_that_cannot_be_written_is_no_error(compile_anew, tmp_path):
    (tmp_path / "cache").write_text("a file, not a folder")
    assert compile_anew() is None


@pytest.mark.parametrize("which", ["folder", "file"])
def test_what_others_could_have_written_is_not_loaded(which, compile_anew, tmp_path):
    assert compile_anew() is not None
    folder = tmp_path / "cache/reranker-workbench"
    (folder if which == "folder" else next(folder.iterdir())).chmod(0o777)
    assert compile_anew() is None


def test_without_a_compiler_the_logits_are_the_same(vector_model, monkeypatch):
    model, pairs = load_cross_encoder(find_model(str(vector_model)), 64), made_up(80)
    if compiled_kernels(model.model) is None:
        pytest.skip("there is no C++ compiler here")
    found = [open_backend("torch-float32", model)(pairs)]
    monkeypatch.setattr("workbench.compiled.compiled_library", lambda: None)
    assert compiled_kernels(model.model) is None
    found.append(open_backend("torch-float32", model)(pairs))
    assert 0 < np.abs(found[0] - found[1]).max() < 1e-5 * found[0].std()
