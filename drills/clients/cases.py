"""The SQL cases with known answers, asked with pydruid and psycopg, compared leniently."""

import datetime
import json
import math


def load(data):
    """Every wikipedia case that is SQL: (id, query, expected rows, ordered)."""
    out = []
    for case in json.loads((data / "druid-expected.json").read_text())["cases"]:
        if case.get("dataset") != "wikipedia":
            continue
        if case["kind"] == "sql":
            out.append((case["id"], case["query"], case["expected_rows"], case.get("ordered") is True))
        elif case["kind"] == "sql-http" and "header" not in case["query"]:
            rows = [list(row.values()) for row in case["expected_response"]]
            out.append((case["id"], case["query"]["query"], rows, True))
    return out


def load_http(data):
    """The cases that are about the shape of the HTTP answer."""
    return [case for case in json.loads((data / "druid-expected.json").read_text())["cases"]
            if case.get("dataset") == "wikipedia" and case["kind"] == "sql-http"]


def normal(value):
    """One spelling for what is displayed differently: times as epoch ms, numbers as float, NULL as ''."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return float(value)
    if isinstance(value, datetime.datetime):
        moment = value if value.tzinfo else value.replace(tzinfo=datetime.timezone.utc)
        return float(round(moment.timestamp() * 1000))
    if isinstance(value, (list, tuple)):
        return tuple(normal(item) for item in value)
    if hasattr(value, "as_tuple"):  # decimal
        return float(value)
    if isinstance(value, (int, float)):
        return float(value)
    text = str(value)
    if len(text) >= 19 and text[4:5] == "-" and text[10:11] in "T ":
        try:
            return normal(datetime.datetime.fromisoformat(text.replace("Z", "+00:00")))
        except ValueError:
            pass
    if text.startswith("[") or text.startswith("{"):
        try:
            return normal(json.loads(text)) if text.startswith("[") else text
        except ValueError:
            pass
    try:
        return float(text)
    except ValueError:
        return text


def same(one, other):
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-9)
    return one == other


def compare(found, expected, ordered):
    """None if they agree, else what differs first."""
    found = [tuple(map(normal, row)) for row in found]
    expected = [tuple(map(normal, row)) for row in expected]
    if not ordered:
        found, expected = sorted(found, key=repr), sorted(expected, key=repr)
    if len(found) != len(expected):
        return f"{len(found)} rows, expected {len(expected)}; first {found[:1]}, expected {expected[:1]}"
    for number, (row, wanted) in enumerate(zip(found, expected)):
        if not same(row, wanted):
            return f"row {number}: {row}, expected {wanted}"
    return None


# pydruid asks for objects, in which a name stands once: of two columns of one name it sees the last.
NOT_FOR_PYDRUID = {"window-orderByDescNulls": "names one column twice; asked as arrays over HTTP instead"}


def over_http_arrays(server, query):
    return server.sql(query)


def over_pydruid(server, query):
    from pydruid.db import connect

    cursor = connect(host="127.0.0.1", port=server.http_port, path="/druid/v2/sql/", scheme="http").cursor()
    cursor.execute(query)
    return [list(row) for row in cursor.fetchall()]


def over_psycopg(server, query):
    import psycopg

    with psycopg.connect(host="127.0.0.1", port=server.postgres_port, user="seawall", dbname="druid") as connection:
        return [list(row) for row in connection.execute(query.encode()).fetchall()]
