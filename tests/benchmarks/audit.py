"""How long notebook 1's audit takes and how much memory it needs.

    python -m tests.benchmarks.audit [PAIRS.csv LISTS.jsonl]

Without files it makes up pairs and lists of the reference size: 97,230 pairs and 1,047 lists of 30.
It prints figures and asserts nothing: times depend on the machine and on what else runs there.
"""

import os
import sys
import time

from tests.benchmarks.ranking import made_up
from tests.benchmarks.sides import highest
from workbench.data.list_files import read_candidates
from workbench.data.pairs import read_pairs
from workbench.models import BUNDLED_MODEL, find_model, load_tokenizer
from workbench.vocabulary.inspection import inspect_pairs
from workbench.vocabulary.tokens import count_tokens


def main(files):
    pairs, lists = (read_pairs(files[0]).frame, read_candidates(files[1])) if files else made_up()
    tokenizer = load_tokenizer(find_model(BUNDLED_MODEL))
    before = highest() / 2**20
    start = time.perf_counter()
    count_tokens(tokenizer, [*pairs["sentence_0"], *pairs["sentence_1"]])
    once = time.perf_counter() - start
    start = time.perf_counter()
    found = inspect_pairs(pairs, tokenizer, 512, pairs, lists)
    whole = time.perf_counter() - start
    print(f"{len(pairs):,} pairs, {len(lists):,} lists, {os.cpu_count()} cores")
    print(f"the texts through the tokenizer once: {once:6.1f} s")
    print(f"the whole audit:                      {whole:6.1f} s, {whole / once:.1f} times as long")
    print(f"peak memory: {highest() / 2**20:.0f} MB, of which {before:.0f} MB before it began")
    print("verdict:", found["verdict"]["colour"], found["ceiling"])


if __name__ == "__main__":
    main(sys.argv[1:])
