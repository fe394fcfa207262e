"""Write the sample of synthetic Chinese query pairs, a ranking test, and what the texts mean.

Run ``python data/generate.py`` to rewrite ``sample_pairs.csv``, ``sample_pairs.lists.jsonl`` and
``sample_pairs.gloss.tsv`` in this folder, or ``python data/generate.py --describe`` to measure what
would be written. The texts come from the hand-written phrasings in ``intents.tsv``; one seed gives
one set of files, byte for byte.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
POSITIVE_SHARE = 0.16
HARD_SHARE = 0.22
COMPONENTS_PER_POSITIVE = 0.86
ATTACHED_SHARE = 0.72  # share of random pairs that reuse a text of a paraphrase component
CANDIDATES = 24  # pairs drawn per row; the one nearest the wanted overlap is kept
# Wanted character overlap, drawn evenly from these ranges. They overlap on purpose, so that
# counting shared characters cannot tell a paraphrase from a hard negative.
POSITIVE_OVERLAP = (0.05, 0.80)
HARD_OVERLAP = (0.20, 0.80)
LIST_SHAPE = 2, 3, 7  # paraphrases, hard negatives and random texts of a query
MAX_TEXT = 60  # generated texts only; the fixed texts set the longest length

# kind -> (template, question form, object moved to the front)
FRAMES: dict[str, list[tuple[str, str, bool]]] = {
    "T": [("{v}", "text", False)],
    "H": [
        ("怎么{v}{o}", "how", False),
        ("{o}怎么{v}", "how", True),
        ("{o}要怎么{v}", "how", True),
        ("{v}{o}的方法", "noun", False),
        ("{v}{o}的步骤", "noun", False),
        ("{v}{o}怎么弄", "manage", False),
        ("想{v}{o}怎么操作", "manage", False),
        ("教我{v}{o}", "ask", False),
    ],
    "C": [
        ("可以{v}{o}吗", "may", False),
        ("{o}可以{v}吗", "may", True),
        ("能不能{v}{o}", "a-not-a", False),
        ("{o}能不能{v}", "a-not-a", True),
        ("{v}{o}行不行", "tag", False),
        ("我想{v}{o}可以吗", "tag", False),
    ],
    "W": [
        ("{v}为什么{o}", "why", False),
        ("为什么{v}{o}", "why", True),
        ("{v}{o}是怎么回事", "matter", False),
        ("{v}{o}的原因", "noun", False),
        ("{v}{o}，什么原因", "noun", False),
    ],
    "M": [
        ("{v}{o}", "command", False),
        ("帮我{v}{o}", "command", False),
        ("{o}帮我{v}", "command", True),
        ("我要{v}{o}", "wish", False),
        ("能帮我{v}{o}吗", "may", False),
    ],
}
QUESTION = re.compile(r"怎|咋|如何|吗|什|啥|多少|多久|哪|能不|几|为何|行不行|会不会|有没有")
OPENED = re.compile(r"你好|您好|请问|麻烦|在吗|不好意思|我又来|跟你说|哎")
Meaning = tuple[int, int, int]  # family, intent, object


class Row(NamedTuple):
    """One pair, with what the CSV leaves out: its kind and how its texts were made."""

    sentence_0: str
    sentence_1: str
    label: int
    kind: str  # "paraphrase", "hard_negative" or "random"
    operations: tuple[str, ...]
    english: tuple[str, str]  # what the two texts mean


class Query(NamedTuple):
    """A query with its candidates; `english` says what each of these texts means."""

    query: str
    positive: list[str]
    negative: list[str]
    english: dict[str, str]


class Family(NamedTuple):
    """Intents that are easily confused with each other, over the same objects."""

    domain: str
    objects: list[list[str]]  # aliases of each object, its usual name first
    intents: list[list[str]]  # phrasings of each intent
    english: tuple[list[str], list[str]]  # what the objects and the intents mean


class Text(NamedTuple):
    """A text, its meaning, and the choices that led to it."""

    text: str
    meaning: Meaning
    domain: str
    phrasing: int = 0
    frame: int = 0
    kind: str = "T"
    alias: str = ""
    surface: frozenset[str] = frozenset()


class Lexicon(NamedTuple):
    """The content of ``intents.tsv``."""

    families: list[Family]
    fixed: dict[str, str]  # with what they mean
    rewrites: dict[str, list[tuple[re.Pattern[str], list[str]]]]


def load_lexicon(path: Path = HERE / "intents.tsv") -> Lexicon:
    """Read the hand-written tables."""
    lexicon = Lexicon([], {}, {})
    domain = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        kind, value, *rest = line.split("\t")
        if kind == "domain":
            domain = value
        elif kind == "objects":
            objects = [names.split("=") for names in value.split(";")]
            meant = "".join(rest).split(";")
            lexicon.families.append(Family(domain, objects, [], (meant, [])))
        elif kind == "intent":
            lexicon.families[-1].intents.append(value.split("/"))
            lexicon.families[-1].english[1].append(rest[0])
        elif kind == "fixed":
            lexicon.fixed.update(zip(value.split("/"), rest[0].split(";"), strict=True))
        else:
            choices = rest[0].split("|")
            lexicon.rewrites.setdefault(kind, []).append((re.compile(value), choices))
    return lexicon


LEXICON = load_lexicon()


def rewrite(kind: str) -> Callable[[str, random.Random], str]:
    """Return the operation that applies one fitting entry of a rewrite table."""

    def apply(text: str, rng: random.Random) -> str:
        fitting = [entry for entry in LEXICON.rewrites[kind] if entry[0].search(text)]
        if not fitting:
            return text
        pattern, choices = rng.choice(fitting)
        return pattern.sub(rng.choice(choices), text, count=1)

    return apply


def add_politeness(text: str, rng: random.Random) -> str:
    """Add a polite opening or thanks."""
    if QUESTION.search(text):
        forms = ["请问{}", "请问一下{}", "麻烦问下{}", "你好，{}", "您好请问{}", "{}，谢谢"]
    else:
        forms = ["你好，{}", "{}，谢谢", "{}，麻烦了", "您好，{}"]
    return rng.choice(forms).format(text)


def add_filler(text: str, rng: random.Random) -> str:
    """Add a sentence-final particle or punctuation mark, or a hesitation in front."""
    if text.endswith("吗"):
        forms = ["{}？", "{}?", "那个，{}"]
    elif text.endswith(("不", "没", "么")):
        forms = ["{}？", "{}?"]
    elif text.endswith(("了", "的", "呀", "啦", "吧", "谢谢")):
        forms = ["{}。", "{}！", "嗯，{}", "那个，{}"]
    elif QUESTION.search(text):
        forms = ["{}？", "{}?", "{}呢", "{}啊", "{}呀？", "那个，{}"]
    else:
        forms = ["{}。", "{}啊", "{}！", "嗯，{}", "那个，{}"]
    if OPENED.match(text):
        forms = [form for form in forms if form.startswith("{}")]
    return rng.choice(forms).format(text)


def add_padding(text: str, rng: random.Random) -> str:
    """Put words in front that ask for nothing."""
    if OPENED.match(text):
        return text
    forms = ["在吗，{}", "不好意思打扰了，{}", "我又来了，{}", "跟你说个事，{}", "哎，{}"]
    return rng.choice(forms).format(text)


SURFACE: dict[str, Callable[[str, random.Random], str]] = {
    "synonym_shared": rewrite("synonym_shared"),
    "synonym_distinct": rewrite("synonym_distinct"),
    "register": rewrite("register"),
    "abbreviation": rewrite("abbreviation"),
    "typo": rewrite("typo"),
    "politeness": add_politeness,
    "padding": add_padding,
    "filler": add_filler,
}
STRUCTURE = ("rewording", "question_form", "topic_fronting")
OPERATIONS = (*STRUCTURE, *SURFACE)


def english(text: Text) -> str:
    """Return what a text means, whatever its wording."""
    family, intent, thing = text.meaning
    if family < 0:
        return LEXICON.fixed[text.text]
    things, intents = LEXICON.families[family].english
    return re.sub(r"\ba (?=[aeiou])", "an ", intents[intent].replace("#", things[thing]))


def jaccard(left: str, right: str) -> float:
    """Return the share of characters that two texts have in common."""
    a, b = set(left), set(right)
    return len(a & b) / len(a | b)


def operations_between(left: Text, right: Text) -> tuple[str, ...]:
    """Name what turns one text of a meaning into the other."""
    found = set(left.surface | right.surface)
    if left.phrasing != right.phrasing:
        found.add("rewording")
    if left.kind == right.kind:
        _, left_form, left_front = FRAMES[left.kind][left.frame]
        _, right_form, right_front = FRAMES[right.kind][right.frame]
        if left_form != right_form:
            found.add("question_form")
        if left_front != right_front:
            found.add("topic_fronting")
    if left.alias != right.alias:
        shared = set(left.alias) & set(right.alias)
        found.add("synonym_shared" if shared else "synonym_distinct")
    return tuple(name for name in OPERATIONS if name in found)


class Writer:
    """Draws texts and pairs, and keeps every text inside one component."""

    def __init__(self, seed: int) -> None:
        """Start with nothing used."""
        self.rng = random.Random(seed)
        self.used: set[str] = set()  # texts of finished components
        self.rows: list[Row] = []

    def realise(self, meaning: Meaning, like: Text | None = None) -> Text:
        """Write one text of a meaning, in the same phrasing and frame as ``like`` if given."""
        rng = self.rng
        family = LEXICON.families[meaning[0]]
        phrasings = family.intents[meaning[1]]
        phrasing = like.phrasing if like else rng.randrange(len(phrasings))
        phrasing = min(phrasing, len(phrasings) - 1)
        kind, body = phrasings[phrasing].split(" ", 1)
        head, split, tail = body.partition("+")
        usable = [i for i, frame in enumerate(FRAMES[kind]) if split or not frame[2]]
        frame = like.frame if like and like.kind == kind else rng.choice(usable)
        names = family.objects[meaning[2]]
        alias = names[0] if rng.random() < 0.6 else rng.choice(names)
        text = FRAMES[kind][frame][0].format(v=head, o=tail).replace("#", alias)
        text, surface = self.decorate(text)
        return Text(text, meaning, family.domain, phrasing, frame, kind, alias, surface)

    def decorate(self, text: str) -> tuple[str, frozenset[str]]:
        """Apply up to three surface operations, in the order of their table."""
        count = self.rng.choice((0, 1, 1, 2, 2, 3))
        wanted = self.rng.sample(list(SURFACE), count)
        applied = []
        for name in SURFACE:
            changed = SURFACE[name](text, self.rng) if name in wanted else text
            if changed != text:
                applied.append(name)
                text = changed
        return text, frozenset(applied)

    def fresh(self, meaning: Meaning, local: Component, like: Text | None = None) -> Text:
        """Write a text that no other component uses and that means one thing only."""
        for _ in range(500):
            text = self.realise(meaning, like)
            known = local.get(text.text)
            clash = known is not None and known.meaning != meaning
            if text.text not in self.used and not clash and len(text.text) <= MAX_TEXT:
                return text
        raise ValueError("the lexicon has no unused text left: ask for fewer pairs")

    def old_or_fresh(self, meaning: Meaning, local: Component) -> Text:
        """Reuse a text of the component half of the time, as query logs repeat texts."""
        known = [text for text in local.values() if text.meaning == meaning]
        if known and self.rng.random() < 0.5:
            return self.rng.choice(known)
        return self.fresh(meaning, local)

    def stranger(self, domain: str, local: Component) -> Text:
        """Write a text of another domain, so that it cannot mean the same by chance."""
        others = [i for i, f in enumerate(LEXICON.families) if f.domain != domain]
        family = self.rng.choice(others)
        intents, objects = LEXICON.families[family].intents, LEXICON.families[family].objects
        meaning = family, self.rng.randrange(len(intents)), self.rng.randrange(len(objects))
        return self.fresh(meaning, local)

    def neighbour(self, meaning: Meaning) -> Meaning:
        """Return a confusable meaning: another intent on the object, or another object."""
        family, intent, thing = meaning
        intents = [i for i in range(len(LEXICON.families[family].intents)) if i != intent]
        things = [i for i in range(len(LEXICON.families[family].objects)) if i != thing]
        if things and self.rng.random() < 0.3:
            return family, intent, self.rng.choice(things)
        return family, self.rng.choice(intents), thing

    def keep(self, label: int, kind: str, left: Text, right: Text, local: Component) -> None:
        """Add a row, with its texts in either order."""
        local.setdefault(left.text, left)
        local.setdefault(right.text, right)
        if self.rng.random() < 0.5:
            left, right = right, left
        operations = operations_between(left, right) if label else ()
        meant = english(left), english(right)
        self.rows.append(Row(left.text, right.text, label, kind, operations, meant))

    def nearest(
        self,
        draw: Callable[[], tuple[Text, Text]],
        overlap: tuple[float, float],
        taken: set[frozenset[str]],
    ) -> tuple[Text, Text]:
        """Draw candidate pairs and return the new one nearest an evenly drawn overlap."""
        target = self.rng.uniform(*overlap)
        drawn: list[tuple[Text, Text]] = []
        while len(drawn) < CANDIDATES:
            left, right = draw()
            key = frozenset((left.text, right.text))
            if len(key) == 2 and key not in taken:
                drawn.append((left, right))
        best = min(drawn, key=lambda pair: abs(jaccard(pair[0].text, pair[1].text) - target))
        taken.add(frozenset(text.text for text in best))
        return best

    def component(self, anchor: Meaning, positives: int, hard: int, strangers: int) -> None:
        """Write the rows around one meaning: paraphrases, hard negatives, random pairs."""
        local: Component = {}
        taken: set[frozenset[str]] = set()

        def paraphrase() -> tuple[Text, Text]:
            return self.old_or_fresh(anchor, local), self.fresh(anchor, local)

        def confusable() -> tuple[Text, Text]:
            left = self.old_or_fresh(anchor, local)
            meaning = self.neighbour(anchor)
            if self.rng.random() < 0.5:
                return left, self.fresh(meaning, local, like=left)
            return left, self.old_or_fresh(meaning, local)

        for _ in range(positives):
            left, right = self.nearest(paraphrase, POSITIVE_OVERLAP, taken)
            self.keep(1, "paraphrase", left, right, local)
        for _ in range(hard):
            left, right = self.nearest(confusable, HARD_OVERLAP, taken)
            self.keep(0, "hard_negative", left, right, local)
        own = list(local.values())
        for _ in range(strangers):
            left = self.rng.choice(own)
            self.keep(0, "random", left, self.stranger(left.domain, local), local)
        self.used.update(local)

    def candidate_list(self, anchor: Meaning) -> Query:
        """Write a query of a meaning, and candidates that do and do not mean the same."""
        query = self.fresh(anchor, {})
        local: Component = {query.text: query}
        taken: set[frozenset[str]] = set()

        def confusable() -> tuple[Text, Text]:
            like = query if self.rng.random() < 0.5 else None
            return query, self.fresh(self.neighbour(anchor), local, like)

        same, hard, strangers = LIST_SHAPE
        draws = [(lambda: (query, self.fresh(anchor, local)), POSITIVE_OVERLAP)] * same
        draws += [(confusable, HARD_OVERLAP)] * hard
        for draw, overlap in draws:
            _, text = self.nearest(draw, overlap, taken)
            local[text.text] = text
        for _ in range(strangers):
            text = self.stranger(query.domain, local)
            local[text.text] = text
        _, *candidates = local
        english_of = {text: english(found) for text, found in local.items()}
        return Query(query.text, candidates[:same], candidates[same:], english_of)

    def bucket(self, anchor: Text | None, count: int) -> None:
        """Write random pairs around one text that takes part in no paraphrase."""
        local: Component = {}
        left = anchor or self.stranger("", local)
        for _ in range(count):
            self.keep(0, "random", left, self.stranger(left.domain, local), local)
        self.used.update(local)


Component = dict[str, Text]


def spread(total: int, boxes: int, least: int, rng: random.Random) -> list[int]:
    """Share a total out over boxes at random, each getting at least ``least``."""
    counts = [least] * boxes
    for _ in range(total - least * boxes):
        counts[rng.randrange(boxes)] += 1
    return counts


def generate(pairs: int = 2000, seed: int = 42) -> list[Row]:
    """Return the rows of the sample, in file order."""
    writer = Writer(seed)
    rng = writer.rng
    positives, hard = round(POSITIVE_SHARE * pairs), round(HARD_SHARE * pairs)
    attached = round(ATTACHED_SHARE * (pairs - positives - hard))
    boxes = max(1, round(COMPONENTS_PER_POSITIVE * positives))
    shares = zip(
        spread(positives, boxes, 1, rng),
        spread(hard, boxes, 0, rng),
        spread(attached, boxes, 0, rng),
        strict=True,
    )
    families = LEXICON.families
    anchors = [(f, o) for f, family in enumerate(families) for o in range(len(family.objects))]
    rng.shuffle(anchors)
    for number, counts in enumerate(shares):
        family, thing = anchors[number % len(anchors)]
        intent = rng.randrange(len(families[family].intents))
        writer.component((family, intent, thing), *counts)
    # The longest and shortest fixed texts come first, so that small samples have them too.
    fixed = sorted(LEXICON.fixed, key=lambda text: -len(text) if len(text) > 30 else len(text))
    waiting = [Text(text, (-1, 0, number), "fixed") for number, text in enumerate(fixed)]
    while len(writer.rows) < pairs:
        anchor = waiting.pop(0) if waiting else None
        writer.bucket(anchor, min(rng.choice((1, 2, 3, 4, 5)), pairs - len(writer.rows)))
    rng.shuffle(writer.rows)
    return writer.rows


def generate_lists(count: int, pairs: Sequence[Row], seed: int = 42) -> list[Query]:
    """Queries with candidates, each of another meaning; none of their texts is in `pairs`.

    Unlike lists that are made from labelled pairs, these have no paraphrase among the negatives:
    what each text means is known.
    """
    writer = Writer(seed)
    used = {bare(text) for row in pairs for text in row[:2]}
    families = LEXICON.families
    anchors = [
        (number, intent, thing)
        for number, family in enumerate(families)
        for intent in range(len(family.intents))
        for thing in range(len(family.objects))
    ]
    writer.rng.shuffle(anchors)
    found: list[Query] = []
    for anchor in anchors:
        if len(found) == count:
            break
        for _ in range(20):
            try:
                made = writer.candidate_list(anchor)
            except ValueError:  # the meaning has too few wordings
                continue
            own = made.english[made.query]
            wrong = any(made.english[text] == own for text in made.negative)
            texts = {bare(text) for text in made.english}
            if len(texts) == len(made.english) and not wrong and used.isdisjoint(texts):
                used |= texts
                found.append(made)
                break
    if len(found) < count:
        raise ValueError("the lexicon has no unused text left: ask for fewer lists")
    return found


def bare(text: str) -> str:
    """A text without punctuation and spaces, by which texts are compared."""
    return re.sub(r"\W", "", text).lower()


def auc(scored: Iterable[tuple[float, int]]) -> float:
    """Return the area under the ROC curve from the rank sum, ties sharing their mean rank."""
    ordered = sorted(scored)
    ties = Counter(score for score, _ in ordered)
    positives = sum(label for _, label in ordered)
    rank_sum, below = 0.0, 0
    for score in sorted(ties):
        hits = sum(label for _, label in ordered[below : below + ties[score]])
        rank_sum += hits * (below + (ties[score] + 1) / 2)
        below += ties[score]
    negatives = len(ordered) - positives
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


def components(rows: Sequence[Row]) -> list[list[Row]]:
    """Group rows whose texts are connected, largest group first."""
    parent: dict[str, str] = {}

    def root(text: str) -> str:
        parent.setdefault(text, text)
        while parent[text] != text:
            text = parent[text]
        return text

    for row in rows:
        parent[root(row.sentence_0)] = root(row.sentence_1)
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(root(row.sentence_0), []).append(row)
    return sorted(groups.values(), key=len, reverse=True)


def describe(rows: Sequence[Row]) -> str:
    """Return the measured figures of a sample, one a line."""
    texts = Counter(text for row in rows for text in row[:2])
    lengths = [len(text) for row in rows for text in row[:2]]
    overlap = {row: jaccard(row.sentence_0, row.sentence_1) for row in rows}
    by_kind = {k: [overlap[r] for r in rows if r.kind == k] for k in sorted({r.kind for r in rows})}
    paraphrases = by_kind["paraphrase"]
    close = [(overlap[row], row.label) for row in rows if row.kind != "random"]
    groups = components(rows)
    with_positive = sum(any(row.label for row in group) for group in groups)
    used = Counter(name for row in rows for name in row.operations)
    low = sum(value < 0.3 for value in paraphrases) / len(paraphrases)
    lines = [
        f"pairs: {len(rows)}",
        f"label mean: {sum(row.label for row in rows) / len(rows):.4f}",
        *(
            f"{kind}: {len(v)} pairs, mean Jaccard {sum(v) / len(v):.3f}"
            for kind, v in by_kind.items()
        ),
        f"paraphrases with Jaccard below 0.3: {low:.1%}",
        f"length min / mean / max: {min(lengths)} / {sum(lengths) / len(lengths):.2f} / "
        f"{max(lengths)}",
        f"Jaccard ROC AUC, paraphrases against hard negatives: {auc(close):.3f}",
        f"Jaccard ROC AUC, all pairs: {auc((overlap[row], row.label) for row in rows):.3f}",
        f"families / intents: {len(LEXICON.families)} / "
        f"{sum(len(family.intents) for family in LEXICON.families)}",
        f"distinct texts: {len(texts)}, in two or more pairs: "
        f"{sum(count > 1 for count in texts.values())}, most used: {max(texts.values())} times",
        f"components: {len(groups)}, with a paraphrase: {with_positive}, "
        f"largest: {len(groups[0])} pairs ({len(groups[0]) / len(rows):.2%})",
        "operations: " + ", ".join(f"{name} {used[name]}" for name in OPERATIONS),
    ]
    return "\n".join(lines)


def describe_lists(lists: Sequence[Query]) -> str:
    """Return the measured figures of candidate lists in one line."""
    if not lists:
        return "lists: 0"
    hard = LIST_SHAPE[1]
    same = [jaccard(one.query, text) for one in lists for text in one.positive]
    other = [jaccard(one.query, text) for one in lists for text in one.negative[:hard]]
    area = auc([*((value, 1) for value in same), *((value, 0) for value in other)])
    return (
        f"lists: {len(lists)} of {sum(LIST_SHAPE)} candidates; mean Jaccard of paraphrases "
        f"{sum(same) / len(same):.3f}, of hard negatives {sum(other) / len(other):.3f}; ROC AUC "
        f"between the two: {area:.3f}"
    )


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """Write the three public columns."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Row._fields[:3])
        writer.writerows(row[:3] for row in rows)


def write_lists(lists: Sequence[Query], path: Path) -> None:
    """Write each query with its candidates, a JSON object a line."""
    rows = [dict(zip(Query._fields[:3], one, strict=False)) for one in lists]
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    path.write_text("".join(lines), encoding="utf-8", newline="")


def write_glosses(glosses: dict[str, str], path: Path) -> None:
    """Write each text with its meaning in English, sorted."""
    lines = [f"{text}\t{glosses[text]}\n" for text in sorted(glosses)]
    path.write_text("".join(lines), encoding="utf-8", newline="")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description="Write synthetic Chinese query pairs, candidate lists to rank, and what the "
        "texts mean; the other files are named after that of the pairs."
    )
    parser.add_argument("--out", type=Path, default=HERE / "sample_pairs.csv")
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--lists", type=int, default=150)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--describe", action="store_true", help="print figures, write nothing")
    options = parser.parse_args(argv)
    rows = generate(options.pairs, options.seed)
    lists = generate_lists(options.lists, rows, options.seed)
    if options.describe:
        print(f"{describe(rows)}\n{describe_lists(lists)}")
        return
    glosses = {
        text: means for row in rows for text, means in zip(row[:2], row.english, strict=True)
    }
    glosses.update(item for one in lists for item in one.english.items())
    write_csv(rows, options.out)
    write_lists(lists, options.out.with_suffix(".lists.jsonl"))
    write_glosses(glosses, options.out.with_suffix(".gloss.tsv"))


if __name__ == "__main__":
    main()
