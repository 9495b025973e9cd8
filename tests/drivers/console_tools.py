"""What monitoring tools ask PgBouncer's console, asked as they ask it: the simple protocol, and their own
expectations of the answers. Usage: console_tools.py DSN DATABASE; it says what is wrong and ends with 1."""

import math
import re
import sys

import psycopg
from psycopg import ClientCursor
from psycopg.rows import dict_row, tuple_row

DSN, DATABASE = sys.argv[1:3]

# prometheus-community/pgbouncer_exporter: by name, each a number (NULL is NaN) or a label.
EXPORTER = {
    "databases": (
        "name host port database force_user pool_mode",
        "pool_size max_connections current_connections paused disabled",
    ),
    "stats_totals": (
        "database",
        "query_count query_time bytes_received bytes_sent wait_time xact_count xact_time "
        "client_parse_count server_parse_count bind_count",
    ),
    "pools": (
        "database user",
        "cl_active cl_active_cancel_req cl_waiting cl_waiting_cancel_req sv_active sv_active_cancel "
        "sv_being_canceled sv_idle sv_used sv_tested sv_login maxwait",
    ),
}
LISTS = "databases users pools free_clients used_clients login_clients free_servers used_servers dns_names dns_zones dns_queries"

# The Datadog agent: by name.
DATADOG = {
    "STATS": "database total_query_count total_xact_count total_received total_sent total_query_time total_xact_time "
    "total_wait_time avg_query_count avg_xact_count avg_recv avg_sent avg_query_time avg_xact_time avg_wait_time",
    "POOLS": "database user cl_active cl_waiting sv_active sv_idle sv_used sv_tested sv_login maxwait maxwait_us pool_mode",
    "DATABASES": "name pool_size max_connections current_connections",
}


def connect(row_factory):
    # As psycopg2 and lib/pq without parameters: one Query message per statement.
    connection = psycopg.connect(DSN, dbname="pgbouncer", user="admin", autocommit=True, row_factory=row_factory)
    connection.prepare_threshold = None
    connection.cursor_factory = ClientCursor
    return connection


def number(value):
    return math.nan if value is None else float(value)


def exporter(connection):
    connection.execute("SHOW STATS").fetchall()
    for table, (labels, figures) in EXPORTER.items():
        rows = connection.execute(f"SHOW {table};").fetchall()
        assert rows, table
        for row in rows:
            for label in labels.split():
                assert row[label] is None or isinstance(row[label], (str, int)), (table, label, row)
            for figure in figures.split():
                number(row[figure])
    lists = connection.execute("SHOW LISTS;")
    assert len(lists.description) == 2
    items = {row["list"]: number(row["items"]) for row in lists}
    assert set(LISTS.split()) <= set(items), items
    config = connection.execute("SHOW CONFIG;")
    assert len(config.description) in (3, 4)
    values = {row["key"]: row["value"] for row in config}
    for key in ("max_client_conn", "max_user_connections"):
        number(values[key])
    assert connection.execute("SHOW VERSION;").fetchone()["version"].startswith("PgBouncer ")
    databases = {row["name"]: row for row in connection.execute("SHOW DATABASES;")}
    assert databases[DATABASE]["port"] > 0 and databases["pgbouncer"]["host"] is None, databases


def datadog(connection):
    for table, columns in DATADOG.items():
        rows = connection.execute(f"SHOW {table}").fetchall()
        assert any(DATABASE in row.values() for row in rows), (table, rows)
        for row in rows:
            missing = set(columns.split()) - set(row)
            assert not missing, (table, missing)
    version = connection.execute("SHOW VERSION").fetchone()["version"]
    assert re.search(r"\d+\.\d+\.\d+", version), version
    for row in connection.execute("SHOW CONFIG"):
        assert row["key"] and "value" in row


def cloudnative_pg(connection):
    """By position: 17 columns of SHOW POOLS into strings and integers, the last one nullable."""
    pools = connection.execute("SHOW POOLS;")
    assert len(pools.description) == 17
    names = [column.name for column in pools.description]
    assert names[:4] == ["database", "user", "cl_active", "cl_waiting"] and names[13:16] == ["maxwait", "maxwait_us", "pool_mode"]
    for row in pools:
        assert isinstance(row[0], str) and isinstance(row[1], str) and isinstance(row[15], str)
        assert all(isinstance(value, int) for value in row[2:15]), row
    connection.execute("SET stats_columns = 23")
    by_position(connection)
    connection.execute("SET stats_columns = 25")
    assert len(connection.execute("SHOW STATS;").description) == 25
    lists = connection.execute("SHOW LISTS;").fetchall()
    assert all(isinstance(name, str) and isinstance(items, int) for name, items in lists)


def by_position(connection):
    """pgmetrics and CloudNativePG: a text and then numbers; pgmetrics knows 15, 17 and 23 columns."""
    stats = connection.execute("SHOW STATS;")
    assert len(stats.description) == 23
    rows = stats.fetchall()
    mine = next(row for row in rows if row[0] == DATABASE)
    assert mine[3] >= 1, "total_query_count comes fourth"
    for row in rows:
        assert all(int(value) >= 0 for value in row[1:]), row


def pgmetrics(connection):
    counts = {"POOLS": (13, 16, 17), "SERVERS": (19, 20, 21), "CLIENTS": (19, 20, 21), "DATABASES": (13, 14, 15, 17)}
    for table, known in counts.items():
        assert len(connection.execute(f"SHOW {table}").description) in known, table
    connection.execute("SET stats_columns = 23")
    by_position(connection)
    connection.execute("SET stats_columns = 25")


for tool, rows in [(exporter, dict_row), (datadog, dict_row), (cloudnative_pg, tuple_row), (pgmetrics, tuple_row)]:
    with connect(rows) as connection:
        tool(connection)
        print(tool.__name__)
