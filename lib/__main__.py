"""The words of the engine: `python -m lib plan batches/quick.yaml`. `make` calls them."""

import argparse
import sys
from collections.abc import Callable

from lib.engine import batch, places, plans, rows
from lib.study import paths, records, tables


def main(words: list[str]) -> int:
    """Run a command; return the exit code."""
    given = parse(words)
    try:
        return given.do(given) or 0
    except (ValueError, OSError) as error:
        named = isinstance(error, OSError) and error.strerror and not error.filename  # our own words
        print(f"error: {error.strerror if named else error}", file=sys.stderr)
    except KeyboardInterrupt as error:
        print(f"error: interrupted {error}".rstrip(), file=sys.stderr)
    return 1


def parse(words: list[str]) -> argparse.Namespace:
    """Read the command line; the result's `do` is what to do with it."""
    parser = argparse.ArgumentParser(prog="python -m lib", description=__doc__.splitlines()[0], allow_abbrev=False)
    commands = parser.add_subparsers(metavar="WORD", required=True)

    def add(word: str, do: Callable, about: str, *arguments: str) -> argparse.ArgumentParser:
        command = commands.add_parser(word, help=about, description=about, allow_abbrev=False)
        command.set_defaults(do=do)
        for name in arguments:
            command.add_argument(name)
        return command

    word = add("run", run, "run the rows of a batch file that are not finished", "batch")
    word.add_argument("--rows", nargs="+", default=[], metavar="ROW", help="only these, and what they need")
    word.add_argument("--rerun", nargs="+", default=[], metavar="ROW", help="these, although they are finished")
    word.add_argument("-n", "--dry-run", action="store_true", help="show which rows would run, and why")
    word.add_argument("--jobs", type=count, default=0, metavar="N", help="at most N rows side by side")
    word.add_argument("--slurm", metavar="PROFILE", help="as jobs of a cluster: profiles/slurm.yaml")
    about = "show which rows of a batch file would run, and why"
    add("plan", lambda given: batch.plan(rows.load(given.batch)), about, "batch")
    add("keep", keep_all, "copy records and executed notebooks to where git keeps them: a run's or a batch's", "what")
    word = add("accept", accept, "say that rows' numbers stand for today's code too", "batch")
    word.add_argument("rows", nargs="+", metavar="ROW")
    word = add("ship", ship, "make a run's net one of those that come with the study", "run", "name")
    word.add_argument("--probe", default="", metavar="SET", help="note what its D's features are worth on this set")
    word.add_argument("--alone", action="store_true", help="D without its G")
    add("readme", readme, "write README's tables and figure and results/NUMBERS.md from the records")
    add("table", lambda _: print(paths.short(tables.write(kept_only=True))), "rebuild the table of what git keeps")
    word = add("report", report, "write the study as pages: what git keeps, and what was run here")
    word.add_argument("batch", nargs="?", default="", help="only this one's runs")
    word = add("orphans", lambda given: plans.tell_orphans(given.remove), "list trainings that no run uses, and sizes")
    word.add_argument("--remove", action="store_true", help="delete them")
    return parser.parse_args(words)


def count(text: str) -> int:
    """Read a number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: give a number of at least 1")
    return int(text)


def run(given: argparse.Namespace) -> int:
    """Run a batch, or show what would run."""
    found = rows.load(given.batch)
    if given.dry_run:
        return batch.plan(found, given.rows, given.rerun)
    place = places.Cluster.read(given.slurm) if given.slurm else places.Machine()
    place.at_once = given.jobs or place.at_once
    code = batch.run(found, place, given.rows, given.rerun)
    if found.name == "quick":  # the study on data that comes with it
        from lib.look import report

        report.tell(found.name)
    return code


def accept(given: argparse.Namespace) -> None:
    """Note in finished rows' records that their numbers stand for today's code too."""
    from lib.look import pages

    found = rows.load(given.batch)
    for row in batch.find(found, *given.rows):
        folder = row.folder if row.finished() else pages.folder_of(found.name, row.name)
        if not (folder / "metrics.json").exists():
            raise ValueError(f"{row.name} is not finished, and not kept: make batch runs it")
        made = records.read_metrics(folder / "metrics.json")["parameters"]
        if any(made.get(name) != value for name, value in row.parameters.items() if "run:" not in str(value)):
            raise ValueError(f"{row.name} is not finished here, and was kept with other parameters: make batch runs it")
        changed = batch.few(records.accept(folder))
        print(f"{row.name}: {f'accepted for today, though {changed} differ' if changed else 'nothing differs'}")


def keep_all(given: argparse.Namespace) -> None:
    """Keep one run, or all finished rows of a batch file."""
    from lib.look import pages

    if not given.what.endswith((".yaml", ".yml")):
        print(paths.short(pages.keep(given.what)))
        return
    found = rows.load(given.what)
    batch.claim(found)  # another checkout may have claimed it since
    running = {name for name, row in found.rows.items() if row.is_running()}  # again, perhaps: half a notebook
    failed = {name for name, row in found.rows.items() if row.failure.exists()}  # again, beside its former numbers
    waiting = running | failed | found.waiting().keys()
    for row in found.rows.values():
        if row.name not in waiting:
            print(paths.short(pages.keep(row.run_id, found.name)))
    if waiting:
        left = ", ".join(name for name in found.rows if name in waiting)
        print(f"not finished, or failed when run again, and not kept: {left}")


def ship(given: argparse.Namespace) -> None:
    """Ship a run's net."""
    from lib.nets import weights
    from lib.probe import protocol

    if given.probe:
        path = protocol.ship(given.run, given.name, given.probe, D_alone=given.alone)
    else:
        path = weights.ship(given.run, given.name, D_alone=given.alone)
    print(paths.short(path))


def readme(_: argparse.Namespace) -> None:
    """Write README's parts anew."""
    from lib.look import numbers

    numbers.write()


def report(given: argparse.Namespace) -> None:
    """Write the study as pages."""
    from lib.look import report

    print(paths.short(report.write(rows.name_of(given.batch) if given.batch else "")))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
