"""The words of the engine: `python -m lib plan batches/quick.yaml`. `make` calls them."""

import argparse
import sys
from pathlib import Path

from lib.study import batch, rows, runs
from lib.study.rows import Batch


def main() -> int:
    """Run a command; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m lib", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("check", "plan", "run", "summary", "workflow", "execute"):
        commands.add_parser(name).add_argument("batch", help="a batch file, such as batches/quick.yaml")
    commands.choices["run"].add_argument("--rows", nargs="+", default=[], help="only these, and what they need")
    commands.choices["execute"].add_argument("row")
    commands.choices["execute"].add_argument("--threads", type=int)
    commands.add_parser("keep", help="copy a run's record to where git keeps them").add_argument("run")
    commands.add_parser("report", help="write a batch's executed notebooks as pages").add_argument("batch")
    commands.add_parser("table", help="rebuild results/table.csv from the kept runs")
    given, options = parser.parse_known_args()
    if options and given.command != "run":
        parser.error(f"unknown option {options[0]}")
    try:
        if given.command == "table":
            print(runs.write_table(kept_only=True))
        elif given.command == "keep":
            print(runs.keep(given.run))
        elif given.command == "report":
            from lib.look import report

            print(batch.short(report.write(Path(given.batch).stem)))
        else:
            return _command(given, rows.load(given.batch), options)
    except (ValueError, OSError, batch.Failed) as error:
        named = isinstance(error, OSError) and error.strerror and not error.filename  # our own words
        print(f"error: {error.strerror if named else error}", file=sys.stderr)
        return 1
    return 0


def _command(given: argparse.Namespace, found: Batch, options: list[str]) -> int:
    if given.command == "check":
        print(f"{given.batch}: {len(found.rows)} rows, all well")
        return 0
    if given.command == "execute":
        row = batch.find(found, given.row)
        batch.execute(found, row, given.threads or row.threads)
        return 0
    if given.command == "run":
        return batch.run(found, *options, only=given.rows)
    return {"plan": batch.plan, "summary": batch.summarise, "workflow": batch.workflow}[given.command](found)


if __name__ == "__main__":
    sys.exit(main())
