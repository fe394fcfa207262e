"""A cross-encoder of two small layers, for tests and benchmarks of everything around a model."""

import shutil
from pathlib import Path

CHARACTERS = "怎么开通关闭会员借钱还款手机天气如何办理你好吗的了我不能可以什查询退货"

KINDS = ("bert", "electra", "albert", "roberta", "xlm-roberta", "deberta-v2", "modernbert")


def write_tiny_model(folder, width=16, inner=32):
    """Write a BERT with random weights and a small WordPiece vocabulary; the folder."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    folder = Path(folder)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokens = [*special, *dict.fromkeys(CHARACTERS + "？。，abcdefghijklmnopqrstuvwxyz0123456789")]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=64,
    )
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=width,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=inner,
        max_position_embeddings=128,
        num_labels=1,
    )
    BertForSequenceClassification(config).save_pretrained(folder, safe_serialization=True)
    fast.save_pretrained(folder)
    return folder


def pickled(source, folder, content=None, zipped=True):
    """A copy of a model whose weights torch has pickled, or other content in their place."""
    import torch
    from safetensors.torch import load_file

    shutil.copytree(source, folder)
    weights = folder / "model.safetensors"
    content = load_file(weights) if content is None else content
    torch.save(content, folder / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    weights.unlink()
    return folder


def write_tiny_kind(folder, kind):
    """Write a sharp random model of one of `KINDS`, with its own tokenizer; positions for 128."""
    import torch
    import transformers
    from tokenizers import pre_tokenizers

    signs = [*dict.fromkeys(CHARACTERS + "？。，abcdefghijklmnopqrstuvwxyz0123456789")]
    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    small |= {"intermediate_size": 32, "num_labels": 1, "max_position_embeddings": 128}
    if kind in ("xlm-roberta", "albert", "deberta-v2"):  # Unigram
        special = {
            "xlm-roberta": ["<s>", "<pad>", "</s>", "<unk>"],
            "albert": ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"],
            "deberta-v2": ["[PAD]", "[CLS]", "[SEP]", "[UNK]"],
        }[kind]
        name = {"xlm-roberta": "XLMRoberta", "albert": "Albert", "deberta-v2": "DebertaV2"}[kind]
        scored = [*((token, 0.0) for token in special), ("▁", -1.0)]
        scored += [*((sign, -2.0) for sign in signs), ("<mask>", 0.0)]
        tokenizer = getattr(transformers, f"{name}Tokenizer")(vocab=scored)
    elif kind in ("roberta", "modernbert"):  # bytes
        marks = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
        tokens = [*marks, *sorted(pre_tokenizers.ByteLevel.alphabet())]
        places = {token: number for number, token in enumerate(tokens)}
        tokenizer = transformers.RobertaTokenizer(vocab=places, merges=[])
        if kind == "modernbert":
            roles = zip(("cls", "pad", "sep", "unk", "mask"), marks, strict=True)
            tokenizer = transformers.PreTrainedTokenizerFast(
                tokenizer_object=tokenizer.backend_tokenizer,
                **{f"{role}_token": mark for role, mark in roles},
            )
    else:  # WordPiece
        tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *signs]
        places = {token: number for number, token in enumerate(tokens)}
        tokenizer = transformers.BertTokenizer(vocab=places)
    more = {
        "electra": {"embedding_size": 8},
        "albert": {"embedding_size": 8},
        "roberta": {"max_position_embeddings": 130},
        "xlm-roberta": {"max_position_embeddings": 130},
        "deberta-v2": {"relative_attention": True, "position_buckets": 32, "type_vocab_size": 0}
        | {"pos_att_type": ["p2c", "c2p"], "position_biased_input": False},
        "modernbert": {"pad_token_id": 1, "cls_token_id": 0, "sep_token_id": 2}
        | {"bos_token_id": 0, "eos_token_id": 2},
    }.get(kind, {})
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, vocab_size=len(tokenizer), **small | more)
    model = transformers.AutoModelForSequenceClassification.from_config(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight *= 6 if weight.ndim == 2 else 1
    model.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
    return folder


PAIR_TEMPLATE = (
    "{% for one in messages if one.role in ('query', 'document') %}"
    "<|im_start|><{{ one.role }}>: {{ one.content }}<|im_end|>{% endfor %}"
)


def write_tiny_reranker(folder, template=PAIR_TEMPLATE, answers=("yes", "no")):
    """Write a sharp random language model that scores a pair by its next token, as Qwen3 does."""
    import torch
    import transformers
    from tokenizers import pre_tokenizers

    marks = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *marks]
    places = {token: number for number, token in enumerate(tokens)}
    tokenizer = transformers.Qwen2Tokenizer(vocab=places, merges=[])
    tokenizer.add_tokens(marks, special_tokens=True)
    tokenizer.add_tokens(list(answers))
    tokenizer.chat_template = template
    config = transformers.Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        intermediate_size=32,
        max_position_embeddings=128,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight *= 6 if weight.ndim == 2 else 1
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
