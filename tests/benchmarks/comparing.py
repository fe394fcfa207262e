"""Run folders of many finished runs, made up, for whatever compares runs."""

import json

import numpy as np
import pandas as pd
import yaml

from workbench.files import write_json, write_text
from workbench.runs.parameters import Parameters


def make_runs(folder, count, queries=300, seeds=4):
    """Write `count` run folders as finished runs leave them, as far as a comparison reads them."""
    rng = np.random.default_rng(0)
    defaults = {name: field.default for name, field in Parameters.model_fields.items()}
    ability = rng.normal(0, 0.05, count // seeds + 1)
    for number in range(count):
        setting, seed = divmod(number, seeds)
        run = folder / f"run-{number:03d}"
        asked = {
            "vocabulary": ("keep", "unused", "extend")[setting % 3],
            "learning_rate": round(1e-5 * (1 + setting // 3), 6),
            "seed": seed,
        }
        text = yaml.safe_dump(defaults | asked, allow_unicode=True, sort_keys=False)
        write_text(run / "parameters.yaml", text)
        acts = {act: {"state": "done", "seconds": 10.0} for act in ("01", "02", "03", "04")}
        write_json(run / "status.json", {"schema": 1, "state": "done", "notebooks": acts})
        packages = {"torch": "2.13.0", "numpy": "2.4.6"}
        write_json(
            run / "environment.json", {"python": "3.11.7", "packages": packages, "code": "c"}
        )
        write_json(run / "data/manifest.json", {"source": "pairs.csv", "sha256": "0" * 64})
        lists = [
            {
                "query": f"{seed} {place}",
                "positive": [f"yes {seed} {place}"],
                "negative": [f"no {n}" for n in range(9)],
                "order": list(range(10)),
            }
            for place in range(queries)
        ]
        write_text(
            run / "evaluation/candidates.jsonl", "".join(json.dumps(row) + "\n" for row in lists)
        )
        values = np.clip(rng.normal(0.5 + ability[setting], 0.25, queries), 0, 1)
        frame = pd.DataFrame({"scorer": "model", "number": range(queries), "ndcg@10": values})
        frame.to_parquet(run / "evaluation/per_query.parquet", index=False)
        mean, half = values.mean(), 1.96 * values.std() / queries**0.5
        row = {
            "scorer": "model",
            "ndcg@10": {"mean": mean, "low": mean - half, "high": mean + half},
        }
        write_json(
            run / "evaluation/metrics.json", {"rows": [row], "queries": queries, "model_minus": {}}
        )
        log = [
            {"stage": "stage 1", "step": step, "steps": 1000, "loss": 0.7 * 0.97**place + 0.1}
            for place, step in enumerate(range(10, 1001, 10))
        ]
        write_text(run / "training_log.jsonl", "".join(json.dumps(one) + "\n" for one in log))
