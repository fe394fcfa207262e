"""What a model folder holds, read from its configs and the headers of its weights.

No weight is loaded, and nothing that a config names is imported.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CONFIGS = (  # what the libraries read
    "config.json", "modules.json", "config_sentence_transformers.json", "sentence_*_config.json",
    "tokenizer_config.json", "special_tokens_map.json", "*processor_config.json",
    "generation_config.json", "router_config.json", "adapter_config.json",
)  # fmt: skip
NOT_CODE = ("_name_or_path", "name_or_path", "auto_map", "custom_pipelines")  # never imported
FILE_ENDINGS = (".bin", ".jinja", ".json", ".model", ".safetensors", ".txt")
DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")
CODE_ALLOWED = re.compile(
    r"torch\.(float|bfloat|int)\d+"
    r"|torch\.nn\.(modules\.(activation|linear)\.)?"
    r"(Sigmoid|Identity|Tanh|ReLU|GELU|SiLU|LeakyReLU)"
    r"|sentence_transformers\.(models|(base|sentence_transformer|cross_encoder)\.modules)"
    r"(\.[a-z_]+)?\."
    r"(Transformer|Pooling|Normalize|Dense|Dropout|LayerNorm|LogitScore|WeightedLayerPooling)"
)
LAYER = re.compile(r"(?:^|\.)(?:layer|layers|h)\.(\d+)\.(.+)")

EMBEDDINGS = "word_embeddings.weight"
HEADS = ("classifier.weight", "classifier.out_proj.weight", "score.weight")


def weight_shapes(files: list[Path]) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor, by name, of one or several `.safetensors` files.

    Raises:
        ValueError: a file is damaged or cut short.
    """
    from safetensors import SafetensorError, safe_open

    shapes: dict[str, tuple[int, ...]] = {}
    for file in files:
        try:
            with safe_open(file, framework="numpy") as weights:
                names = weights.keys()
                shapes |= {name: tuple(weights.get_slice(name).get_shape()) for name in names}
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{file.name} is damaged or cut short ({error})") from error
    return shapes


def misfit(folder: Path) -> str:
    """Why the weights in a model folder cannot be used as a reranker; empty if they can.

    A model without a head is fine: it gets one with a single output.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError("it holds no object")
    except (ValueError, OSError, RecursionError) as error:
        return f"config.json is not readable ({error})"
    try:
        if code := code_named(folder):
            return code
        shapes = weight_shapes(sorted(folder.glob("*.safetensors")))
    except ValueError as error:
        return str(error)
    if missing := layers_missing(shapes, config):
        return missing
    heads = {name: shape for name, shape in shapes.items() if name in HEADS}
    for name, shape in heads.items():
        if shape[0] != 1:
            return (
                f"it has {shape[0]} labels ({name} is {shape[0]} x {shape[-1]}), but a reranker "
                "gives one score a pair: choose a model trained with one label"
            )
    for name, shape in shapes.items():
        wanted = (config.get("vocab_size"), config.get("hidden_size"))
        if name.endswith(EMBEDDINGS) and None not in wanted and shape != wanted:
            return (
                f"{name} is {shape[0]} x {shape[1]}, but config.json says {wanted[0]} x "
                f"{wanted[1]}: weights and config belong to different models"
            )
    return ""


def layers_missing(shapes: dict[str, tuple[int, ...]], config: dict[str, Any]) -> str:
    """How the layers in the weights differ from those that the config names; empty if they agree.

    A library would fill what is missing with random numbers.
    """
    layers: defaultdict[int, set[str]] = defaultdict(set)
    for name in shapes:
        if found := LAYER.search(name):
            layers[int(found[1])].add(found[2])
    named = config.get("num_hidden_layers", config.get("n_layers"))
    if not layers or not isinstance(named, int):
        return ""
    if set(layers) != set(range(named)):
        return (
            f"config.json says {named:,} layers, but the weights hold {len(layers)}: weights and "
            "config belong to different models"
        )
    whole = max(layers.values(), key=len)
    for number, parts in sorted(layers.items()):
        if lacking := sorted(whole - parts):
            return f"the weights of layer {number} lack {lacking[0]}, which other layers have"
    return ""


def code_named(folder: Path) -> str:
    """What in a model's configs names code that is not known to be harmless; empty if nothing.

    The library imports and calls what some keys name (`activation_fn`, the `type` of a module),
    whatever `trust_remote_code` says. So any value that reads like the path of a Python object must
    be one of those that rerankers use.

    Raises:
        ValueError: a config cannot be read.
    """
    files = {file for pattern in CONFIGS for file in folder.rglob(pattern)}
    for file in sorted(files):
        shown = file.relative_to(folder)
        try:
            config = json.loads(file.read_text(encoding="utf-8"))
            for key, value in _strings("", config):
                if key in NOT_CODE or value.endswith(FILE_ENDINGS):
                    continue
                kernel = "attn_implementation" in key and "/" in value
                if kernel or (DOTTED.fullmatch(value) and not CODE_ALLOWED.fullmatch(value)):
                    return (
                        f"{shown} names {value[:200]!r} as {key!r}, which would be imported and "
                        "run as code; remove it, if you trust the rest of the folder"
                    )
        except (ValueError, OSError, RecursionError) as error:
            raise ValueError(f"{shown} is not readable ({str(error)[:200]})") from error
    return ""


def _strings(key: str, value: Any) -> Iterator[tuple[str, str]]:
    """Every text in a config, with the key that it stands under."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _strings(name, inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(key, inner)
