"""DuckDB and ClickHouse (chdb) on the Parquet files of a Seawall table. Prints {peer: {query: median ms}} as JSON."""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import venv

HERE = pathlib.Path(__file__).resolve().parent
RUNS = 5

# {floor_hour}, {floor_day}, {approx_distinct} and {quantiles} are spelled by each peer.
QUERIES = {
    "Q1": "SELECT COUNT(*) FROM edits",
    "Q2": "SELECT {floor_hour} h, SUM(added) FROM edits WHERE __time >= '2026-01-10' AND __time < '2026-01-11' GROUP BY 1",
    "Q3": "SELECT {floor_day} d, SUM(added) FROM edits WHERE channel = '#de.wikipedia' GROUP BY 1",
    "Q4": "SELECT page, COUNT(*) c FROM edits GROUP BY page ORDER BY c DESC LIMIT 10",
    "Q5": "SELECT page, SUM(added) s FROM edits WHERE channel = '#de.wikipedia' AND isRobot = 0 AND "
          "__time >= '2026-01-10' AND __time < '2026-01-17' GROUP BY page ORDER BY s DESC LIMIT 10",
    "Q6": "SELECT channel, isRobot, SUM(added), AVG(delta) FROM edits GROUP BY channel, isRobot",
    "Q7": 'SELECT "user", COUNT(*) c FROM edits GROUP BY "user" ORDER BY c DESC LIMIT 100',
    "Q8a": 'SELECT COUNT(DISTINCT "user") FROM edits',
    "Q8b": "SELECT {approx_distinct} FROM edits",
    "Q9": "SELECT SUM(added), COUNT(*) FROM edits WHERE page = 'typo 1201'",
    "Q10": "SELECT cityName, COUNT(*) c FROM edits WHERE countryIsoCode IN ('DA', 'KA', 'RA') GROUP BY cityName "
           "ORDER BY c DESC LIMIT 10",
    "Q11": "SELECT COUNT(*) FROM edits WHERE page LIKE '%source 12%'",
    "Q12": 'SELECT page, "user", COUNT(*) c FROM edits GROUP BY page, "user" ORDER BY c DESC LIMIT 100',
    "Q13": "SELECT __time, channel, page, added FROM edits ORDER BY __time DESC LIMIT 100",
    "Q14": "SELECT channel, {quantiles} FROM edits GROUP BY channel",
}


def enter_venv(folder):
    python = folder / "bin" / "python"
    stamp, wanted = folder / "requirements.txt", (HERE / "requirements.txt").read_text()
    if not python.exists():
        venv.create(folder, with_pip=True)
    if not stamp.exists() or stamp.read_text() != wanted:
        subprocess.run([python, "-m", "pip", "install", "-q", "-r", HERE / "requirements.txt"], check=True, stdout=sys.stderr)
        stamp.write_text(wanted)
    os.execv(python, [str(python), str(HERE / "run.py"), *sys.argv[1:], "--inside"])


def median_ms(ask):
    ask()
    runs = []
    for _ in range(RUNS):
        begun = time.perf_counter()
        ask()
        runs.append((time.perf_counter() - begun) * 1000)
    return sorted(runs)[RUNS // 2]


def duckdb_times(files):
    import duckdb

    with tempfile.TemporaryDirectory() as folder:
        base = duckdb.connect(os.path.join(folder, "edits.duckdb"))
        base.execute("SET threads = 2")
        base.execute(f"CREATE TABLE edits AS SELECT * FROM read_parquet('{files}', union_by_name = true) ORDER BY __time")
        names = {"floor_hour": "date_trunc('hour', __time)", "floor_day": "date_trunc('day', __time)",
                 "approx_distinct": 'approx_count_distinct("user")',
                 "quantiles": "approx_quantile(delta, [0.5, 0.95, 0.99])"}
        print(f"duckdb {duckdb.__version__}: {base.execute('SELECT COUNT(*) FROM edits').fetchone()[0]} rows", file=sys.stderr)
        return {name: median_ms(lambda: base.execute(query.format(**names)).fetchall()) for name, query in QUERIES.items()}


def clickhouse_times(files):
    import chdb
    from chdb import session

    with tempfile.TemporaryDirectory() as folder:
        base = session.Session(folder)
        base.query("CREATE DATABASE IF NOT EXISTS bench ENGINE = Atomic")
        base.query("USE bench")
        described = str(base.query(f"DESCRIBE file('{files}', 'Parquet') FORMAT TSV")).replace("\\'", "'")
        columns = dict(row.split("\t")[:2] for row in described.splitlines())
        low = {"channel", "countryIsoCode", "cityName"}
        columns["__time"] = "DateTime64(3, 'UTC')"
        spelled = ", ".join(f"`{name}` " + (f"LowCardinality({kind})" if name in low else kind)
                            for name, kind in columns.items())
        base.query(f"CREATE TABLE edits ({spelled}) ENGINE = MergeTree ORDER BY __time")
        base.query(f"INSERT INTO edits SELECT {', '.join(f'`{name}`' for name in columns)} FROM file('{files}', 'Parquet')")
        base.query("OPTIMIZE TABLE edits FINAL")
        names = {"floor_hour": "toStartOfHour(__time)", "floor_day": "toStartOfDay(__time)", "approx_distinct": 'uniq("user")',
                 "quantiles": "quantilesTDigest(0.5, 0.95, 0.99)(delta)"}
        print(f"chdb {chdb.__version__}: {str(base.query('SELECT COUNT(*) FROM edits')).strip()} rows", file=sys.stderr)
        settings = " SETTINGS max_threads = 2, use_query_condition_cache = 0"
        return {name: median_ms(lambda: str(base.query(query.format(**names) + settings, "CSV")))
                for name, query in QUERIES.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", required=True, help="the deep-storage folder")
    parser.add_argument("--venv", type=pathlib.Path, default=HERE.parent.parent / "target" / "compare-venv")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.inside:
        enter_venv(options.venv.absolute())
    duck = os.path.join(options.files, "**", "*.parquet")
    house = os.path.join(options.files, "*", "*", "*.parquet")
    print(json.dumps({"duckdb": duckdb_times(duck), "clickhouse": clickhouse_times(house)}))


if __name__ == "__main__":
    sys.exit(main())
