"""Scores a file in processes that are killed at seeded places; run by test_score_file.

    python -m tests.scoring.kill_scoring MODEL SOURCE OUT PART_ROWS SEED

The imports are paid for once: every start is a fork, and starts go on until one ends by itself. The
places are before, in the midst of and after every file that is written. Prints what was killed.
"""

import json
import os
import random
import signal
import sys
import traceback
from pathlib import Path

from workbench import files
from workbench.scoring import score_file
from workbench.scoring.score_file import ScoringRequest


def half_a_file(path, text):
    Path(path).with_name(f".{Path(path).name}.x.tmp").write_text(text[:9], encoding="utf-8")


def half_a_part(file):
    file.write(b"PAR1 half")
    file.flush()


def kill_at(place):
    """Count the places of all writes, and die at number `place`."""
    count = 0

    def here(kind, before=lambda: None):
        nonlocal count
        count += 1
        if count == place:
            before()
            os.write(2, kind.encode())
            os.kill(os.getpid(), signal.SIGKILL)

    def around(owner, name, kind, half):
        plain = getattr(owner, name)

        def wrapped(*given, **named):
            here(f"before {kind}")
            here(f"within {kind}", lambda: half(*given))
            value = plain(*given, **named)
            here(f"after {kind}")
            return value

        setattr(owner, name, wrapped)

    around(score_file.pq, "write_table", "part", lambda table, file: half_a_part(file))
    around(files, "write_text", "json", half_a_file)
    around(score_file, "part_table", "table", lambda *given: None)


def main(model, source, out, part_rows, seed):
    request = ScoringRequest(model, source, backend="onnx", max_length=64, part_rows=int(part_rows))
    rng, killed, written = random.Random(int(seed)), [], {}
    while True:
        (reader, writer), place = os.pipe(), rng.randint(1, 12)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.dup2(writer, 2)
                kill_at(place)
                score_file.score_file(request, out)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        os.close(writer)
        _, status = os.waitpid(child, 0)
        with os.fdopen(reader) as note:
            said = note.read()
        now = {file.name: file.stat().st_mtime_ns for file in Path(out).glob("part-*.parquet")}
        assert all(now.get(name) == changed for name, changed in written.items()), "made again"
        written = now
        if not os.WIFSIGNALED(status):
            assert os.WEXITSTATUS(status) == 0, said
            break
        killed.append(said)
    print(json.dumps(killed))


if __name__ == "__main__":
    main(*sys.argv[1:])
