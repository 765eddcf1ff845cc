"""The batch: one rule for each row that is not finished. `make batch BATCH=batches/quick.yaml` calls it."""

import sys

from lib.study import rows

try:
    batch = rows.load(config.get("batch", "batches/quick.yaml"))
except (ValueError, OSError) as error:
    sys.exit(f"error: {error}")

# Finished runs are known by their ids, which hold parameters and code: no file's time can make a training run again.
reporting = "report" in config  # which shows what is finished
shown = {name: row for name, row in batch.rows.items() if row.finished() == reporting}


def resources_of(row):
    """A row's resources; on one machine a run takes its part of the cards' memory (`lib.study.batch` gives a card's size)."""
    whole = int(config.get("card_mb", 0))
    share = {"gpu_mb": min(row.resources.get("gpu_mb") or whole, whole)} if whole and row.resources.get("gpu") else {}
    return row.resources | share


def figures_of(row):
    """What Snakemake's report shows of a finished row; before it runs, nobody knows."""
    return sorted(row.folder.glob("*.png")) if reporting else []


rule all:
    input:
        [row.metrics for row in shown.values()],


for row in shown.values():

    rule:
        name:
            row.name
        input:
            [shown[other].metrics for other in row.needs if other in shown],
        output:
            report(row.metrics, category=row.notebook, subcategory=row.name),
            [report(path, category=row.notebook, subcategory=row.name) for path in figures_of(row)],
        log:
            row.executed,
        params:
            python=sys.executable,
            batch=batch.path,
            row=row.name,
        threads: row.threads
        priority: sum(row.name in other.needs for other in shown.values())  # what others wait for goes first
        resources:
            **resources_of(row),
        shell:
            "exec {params.python:q} -m lib execute {params.batch:q} {params.row:q} --threads {threads}"
