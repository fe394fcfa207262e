"""What a model's weights hold, read from the headers of its files; no weight is loaded."""

import json
from pathlib import Path

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
    except (ValueError, OSError) as error:
        return f"config.json is not readable ({error})"
    try:
        shapes = weight_shapes(sorted(folder.glob("*.safetensors")))
    except ValueError as error:
        return str(error)
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
