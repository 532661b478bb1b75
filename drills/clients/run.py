"""Produces, consumes and asks with real clients against one real server process. See README.md beside this file."""

import argparse
import gzip
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import venv

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
ROWS = 39_244


def find_data():
    for folder in filter(None, [os.environ.get("SEAWALL_TEST_DATA"), ROOT.parent / "shared" / "data"]):
        if (pathlib.Path(folder) / "wikiticker-2015-09-12-sampled.json.gz").exists():
            return pathlib.Path(folder)
    return None


def enter_venv(folder):
    """Runs this program again inside a virtual environment that has the clients."""
    python = folder / "bin" / "python"
    if not python.exists():
        print(f"making a virtual environment in {folder}", file=sys.stderr)
        venv.create(folder, with_pip=True)
    stamp = folder / "requirements.txt"
    wanted = (HERE / "requirements.txt").read_text()
    if not stamp.exists() or stamp.read_text() != wanted:
        subprocess.run([python, "-m", "pip", "install", "-q", "-r", HERE / "requirements.txt"], check=True)
        stamp.write_text(wanted)
    os.execv(python, [str(python), str(HERE / "run.py"), *sys.argv[1:], "--inside"])


def supervisor_spec(data, topic, table):
    """The tutorial's batch spec, as a supervisor spec that reads our topic."""
    spec = json.loads((data / "druid-tutorial" / "wikipedia-index.json").read_text())["spec"]
    schema = spec["dataSchema"]
    schema["dataSource"] = table
    schema["granularitySpec"].pop("intervals", None)
    # Druid's documentation shows this table with a long metroCode.
    dimensions = schema["dimensionsSpec"]["dimensions"]
    dimensions[dimensions.index("metroCode")] = {"name": "metroCode", "type": "long"}
    return {"type": "kafka", "spec": {"dataSchema": schema, "ioConfig": {
        "type": "kafka", "topic": topic, "inputFormat": {"type": "json"}, "useEarliestOffset": True,
        "consumerProperties": {"bootstrap.servers": "localhost:9092"}}, "tuningConfig": {"type": "kafka"}}}


class Report:
    def __init__(self):
        self.passed, self.failed, self.skipped = 0, 0, 0

    def row(self, what, problem=None, note=""):
        self.passed, self.failed = self.passed + (problem is None), self.failed + (problem is not None)
        print(f"{'ok  ' if problem is None else 'FAIL'} {what}{' ' + note if note else ''}"
              f"{'' if problem is None else ': ' + str(problem)[:400]}", flush=True)

    def skip(self, what, why):
        self.skipped += 1
        print(f"skip {what}: {why}", flush=True)


def attempt(report, what, action):
    started = time.monotonic()
    try:
        problem = action()
    except Exception as error:  # a client's own failure is a row of the report, whatever its type
        problem = f"{type(error).__name__}: {error}"
    report.row(what, problem, f"{time.monotonic() - started:.1f} s")


def kafka_runs(report, server, data, lines, quick):
    from kafka_clients import CONSUMERS, PRODUCERS, available

    wanted = sorted(lines)
    for client, produce, codec in PRODUCERS[:1] if quick else PRODUCERS:
        topic = f"wiki-{client}-{codec}"
        if not available(client):
            report.skip(topic, f"{client} is not installed")
            continue
        server.post("/druid/indexer/v1/supervisor", supervisor_spec(data, topic, topic))
        attempt(report, f"{topic}: produced", lambda: produce(server.kafka, topic, lines, codec))
        for reader, consume in CONSUMERS:
            if not available(reader):
                report.skip(f"{topic}: read by {reader}", f"{reader} is not installed")
                continue

            def read_back():
                seen = consume(server.kafka, topic, f"{topic}-{reader}", ROWS)
                if sorted(seen) == wanted:
                    return None
                return f"{len(seen)} records read, {ROWS} produced, or not the same bytes"

            attempt(report, f"{topic}: read back by a group of {reader}", read_back)

        def counted():
            seen = server.wait_count(topic, ROWS)
            return None if seen == ROWS else f"SQL counts {seen}"

        attempt(report, f"{topic}: counted by SQL", counted)


def sql_runs(report, server, data, lines):
    import cases
    from kafka_clients import confluent_produce

    server.post("/druid/indexer/v1/supervisor", supervisor_spec(data, "wikipedia", "wikipedia"))
    server.post("/druid/indexer/v1/supervisor", supervisor_spec(data, "wikipedia", "compaction-tutorial"))
    confluent_produce(server.kafka, "wikipedia", lines, "lz4")
    for table in ("wikipedia", "compaction-tutorial"):
        seen = server.wait_count(table, ROWS)
        report.row(f"{table}: counted by SQL", None if seen == ROWS else f"SQL counts {seen}")
    for usual_way in (cases.over_pydruid, cases.over_psycopg):
        for name, query, expected, ordered in cases.load(data):
            way = usual_way
            if way is cases.over_pydruid and name in cases.NOT_FOR_PYDRUID:
                way = cases.over_http_arrays
            attempt(report, f"{way.__name__} {name}",
                    lambda: cases.compare(way(server, query), expected, ordered))
    for case in cases.load_http(data):
        attempt(report, f"http shape {case['id']}",
                lambda: None if server.post("/druid/v2/sql", case["query"]) == case["expected_response"] else "differs")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seawall", default=str(ROOT / "target" / "release" / "seawall"))
    parser.add_argument("--venv", type=pathlib.Path, default=ROOT / "target" / "clients-venv")
    parser.add_argument("--quick", action="store_true", help="one producer instead of seven")
    parser.add_argument("--keep", action="store_true", help="keep the server's folder")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    data = find_data()
    if data is None:
        print("skipped: the test data was not found; set SEAWALL_TEST_DATA", file=sys.stderr)
        return 77
    if not options.inside:
        enter_venv(options.venv.absolute())
    from server import Server

    lines = gzip.open(data / "wikiticker-2015-09-12-sampled.json.gz").read().splitlines()
    assert len(lines) == ROWS, len(lines)
    report, folder = Report(), tempfile.mkdtemp(prefix="seawall-clients-")
    server = Server(options.seawall, folder)
    server.start()
    try:
        kafka_runs(report, server, data, lines, options.quick)
        sql_runs(report, server, data, lines)
    finally:
        server.stop()
        if options.keep or report.failed:
            print(f"the server's folder is {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    print(f"{report.passed} passed, {report.failed} failed, {report.skipped} skipped")
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
