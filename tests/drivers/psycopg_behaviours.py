"""Behaviours of psycopg 3. Usage: psycopg_behaviours.py DSN GROUP CLIENTS"""

import datetime
import decimal
import sys
import threading
import uuid

import psycopg
from psycopg import sql
from psycopg.rows import dict_row, tuple_row
from psycopg.types.json import Jsonb
from psycopg.types.range import Range

from behaviours import LARGE, behaviour, digest, in_turn, say


class Bench:
    """One client's means: connections to the server, names of its own."""

    def __init__(self, dsn, client):
        self.dsn = dsn
        self.client = client
        self.opened = []

    def connect(self, **options):
        connection = psycopg.connect(self.dsn, **options)
        self.opened.append(connection)
        return connection

    def table(self, connection, definition="id int primary key, v text", name="t"):
        name = f"psycopg_{name}_{self.client}"
        connection.execute(f"drop table if exists {name} cascade")
        connection.execute(f"create table {name}({definition})")
        connection.commit()
        return name

    def key(self):
        """An advisory lock key that only this client uses."""
        return 1_000_000 + self.client

    def close(self):
        for connection in self.opened:
            connection.close()
        self.opened.clear()


def code(action):
    """The SQLSTATE that an action fails with."""
    try:
        action()
    except psycopg.Error as error:
        return error.sqlstate or type(error).__name__
    return "no error"


def cancelled(connection, statement):
    """Runs a statement that another thread cancels as soon as it can."""
    ended = threading.Event()

    def insist():
        while not ended.wait(0.2):
            connection.cancel_safe(timeout=10)

    canceller = threading.Thread(target=insist)
    canceller.start()
    try:
        return code(lambda: connection.execute(statement))
    finally:
        ended.set()
        canceller.join()


@behaviour()
def autocommit_statements(bench):
    connection = bench.connect(autocommit=True)
    return [connection.execute("select 1 + %s", (i,)).fetchone() for i in range(5)]


@behaviour()
def a_transaction_commits(bench):
    connection = bench.connect()
    table = bench.table(connection)
    with connection.transaction():
        connection.execute(f"insert into {table} values (1, 'a'), (2, 'b')")
    return bench.connect().execute(f"select * from {table} order by id").fetchall()


@behaviour()
def a_transaction_rolls_back(bench):
    connection = bench.connect()
    table = bench.table(connection)
    connection.execute(f"insert into {table} values (1, 'a')")
    connection.rollback()
    return connection.execute(f"select count(*) from {table}").fetchone()


@behaviour()
def a_savepoint_rolls_back_alone(bench):
    connection = bench.connect()
    table = bench.table(connection)
    with connection.transaction():
        connection.execute(f"insert into {table} values (1, 'outer')")
        try:
            with connection.transaction():
                connection.execute(f"insert into {table} values (2, 'inner')")
                connection.execute("select 1 / 0")
        except psycopg.errors.DivisionByZero:
            pass
        connection.execute(f"insert into {table} values (3, 'after')")
    return connection.execute(f"select * from {table} order by id").fetchall()


@behaviour()
def nested_savepoints_are_released(bench):
    connection = bench.connect()
    table = bench.table(connection)
    with connection.transaction(), connection.transaction(), connection.transaction():
        connection.execute(f"insert into {table} values (1, 'deep')")
    return connection.execute(f"select * from {table}").fetchall()


@behaviour()
def an_explicitly_prepared_statement_is_reused(bench):
    connection = bench.connect(autocommit=True)
    return [
        connection.execute("select %s::int * 2", (i,), prepare=True).fetchone()[0]
        for i in range(20)
    ]


@behaviour()
def a_repeated_statement_is_prepared_by_itself(bench):
    connection = bench.connect(autocommit=True, prepare_threshold=2)
    table = bench.table(connection)
    for i in range(10):
        connection.execute(f"insert into {table} values (%s, %s)", (i, str(i)))
    return connection.execute(f"select sum(id), count(*) from {table}").fetchone()


@behaviour()
def more_prepared_statements_than_the_driver_keeps(bench):
    connection = bench.connect(autocommit=True, prepare_threshold=0)
    connection.prepared_max = 5
    return [
        connection.execute(f"select %s::int + {shape}", (turn,)).fetchone()[0]
        for turn in range(3)
        for shape in range(12)
    ]


@behaviour()
def a_prepared_statement_survives_a_transaction(bench):
    connection = bench.connect(prepare_threshold=0)
    seen = []
    for turn in range(4):
        seen.append(connection.execute("select %s::text || 'x'", (str(turn),)).fetchone()[0])
        connection.rollback() if turn % 2 else connection.commit()
    return seen


@behaviour()
def binary_results(bench):
    connection = bench.connect(autocommit=True)
    with connection.cursor(binary=True) as cursor:
        return cursor.execute(
            "select 1::int2, 2::int4, 3::int8, 1.5::float8, 12345.678::numeric, true,"
            " 'text', '\\x00ff'::bytea, '2020-02-29'::date, '2020-02-29 12:00:00.5'::timestamp,"
            " '2f6c0d6a-8c11-4d4f-9d83-0a4f8d2f9b11'::uuid, null::int"
        ).fetchone()


@behaviour()
def binary_parameters(bench):
    connection = bench.connect(autocommit=True)
    values = (
        7,
        2**40,
        1.25,
        decimal.Decimal("3.1400"),
        b"\x00\x01\xff",
        uuid.UUID(int=5),
        datetime.date(1999, 12, 31),
        True,
        None,
    )
    places = ", ".join(["%b"] * len(values))
    return connection.execute(f"select {places}", values).fetchone()


@behaviour()
def arrays(bench):
    connection = bench.connect(autocommit=True)
    return connection.execute(
        "select %s::int[], %s::text[], array[[1,2],[3,4]], '{}'::int[], array[1,null,3]",
        ([1, 2, 3], ["a", 'b"c', "d,e", ""]),
    ).fetchone()


@behaviour()
def json_values(bench):
    connection = bench.connect(autocommit=True)
    document = {"a": [1, 2.5, None, "ü"], "b": {"c": True}}
    return connection.execute(
        "select %s::jsonb, %s::jsonb -> 'a' -> 0, '{\"x\":1}'::json", (Jsonb(document), Jsonb(document))
    ).fetchone()


@behaviour()
def ranges_enums_and_composites(bench):
    connection = bench.connect(autocommit=True)
    kind = f"psycopg_mood_{bench.client}"
    connection.execute(f"drop type if exists {kind}")
    connection.execute(f"create type {kind} as enum ('sad', 'glad')")
    return connection.execute(
        f"select int4range(1, 5), %s::int4range, 'glad'::{kind}::text, row(1, 'x')::text, '1 day 2 hours'::interval",
        (Range(3, 9),),
    ).fetchone()


@behaviour()
def a_time_zone_follows_the_session(bench):
    connection = bench.connect(autocommit=True)
    connection.execute("set timezone to 'Asia/Tokyo'")
    moment = "select '2020-01-01 00:00:00+00'::timestamptz::text"
    seen = [connection.execute(moment).fetchone()[0] for _ in range(3)]
    return seen + [connection.info.timezone.key]


@behaviour()
def a_date_style_follows_the_session(bench):
    connection = bench.connect(autocommit=True)
    connection.execute("set datestyle to 'German'")
    connection.execute("set intervalstyle to 'iso_8601'")
    return connection.execute("select '2020-03-01'::date::text, '1 day'::interval::text").fetchone()


@behaviour()
def options_of_the_connection_string(bench):
    connection = bench.connect(autocommit=True, options="-c datestyle=SQL,DMY", application_name="named")
    return [
        connection.execute("select '2020-03-01'::date::text").fetchone()[0],
        connection.execute("show application_name").fetchone()[0],
        connection.info.parameter_status("application_name"),
    ]


@behaviour()
def unicode_text(bench):
    connection = bench.connect(autocommit=True)
    table = bench.table(connection, '"schlüssel" text', "ünï")
    text = "Ünïcödé 漢字 🐘 \t\n'\"\\"
    connection.execute(f'insert into {table} values (%s)', (text,))
    return connection.execute(f'select "schlüssel", length("schlüssel") from {table}').fetchone()


@behaviour()
def another_client_encoding(bench):
    connection = bench.connect(autocommit=True)
    connection.execute("set client_encoding to latin1")
    seen = [connection.execute("select 'é' || %s", ("ü",)).fetchone()[0] for _ in range(3)]
    return seen + [connection.info.encoding, code(lambda: connection.execute("select chr(8364)"))]


@behaviour()
def copy_in_rows(bench):
    connection = bench.connect()
    table = bench.table(connection)
    with connection.cursor().copy(f"copy {table} from stdin") as copy:
        for i in range(1000):
            copy.write_row((i, None if i % 3 == 0 else f"v\t{i}"))
    connection.commit()
    return connection.execute(f"select count(*), count(v), sum(id) from {table}").fetchone()


@behaviour()
def copy_in_binary(bench):
    connection = bench.connect()
    table = bench.table(connection)
    with connection.cursor().copy(f"copy {table} from stdin (format binary)") as copy:
        copy.set_types(["int4", "text"])
        for i in range(100):
            copy.write_row((i, str(i)))
    connection.commit()
    return connection.execute(f"select count(*), sum(id) from {table}").fetchone()


@behaviour()
def copy_out_rows(bench):
    connection = bench.connect(autocommit=True)
    with connection.cursor().copy(
        "copy (select i, 'v' || i from generate_series(1, 5000) i) to stdout"
    ) as copy:
        return digest(b"".join(bytes(block) for block in copy))


@behaviour()
def copy_out_abandoned_half_way(bench):
    connection = bench.connect(autocommit=True)
    try:
        with connection.cursor().copy("copy (select generate_series(1, 300000)) to stdout") as copy:
            first = bytes(copy.read())
            raise KeyError
    except KeyError:
        pass
    return [first.decode(), connection.execute("select 'usable'").fetchone()]


@behaviour()
def a_failed_copy_leaves_the_session_usable(bench):
    connection = bench.connect(autocommit=True)
    table = bench.table(connection)

    def bad():
        with connection.cursor().copy(f"copy {table} from stdin") as copy:
            for i in range(20000):
                copy.write(f"{i % 50}\tduplicate\n")

    return [code(bad), connection.execute(f"select count(*) from {table}").fetchone()]


@behaviour()
def a_copy_failed_by_the_client(bench):
    connection = bench.connect(autocommit=True)
    table = bench.table(connection)
    try:
        with connection.cursor().copy(f"copy {table} from stdin") as copy:
            copy.write("1\tx\n")
            raise KeyError
    except KeyError:
        pass
    return connection.execute(f"select count(*) from {table}").fetchone()


@behaviour()
def a_query_is_cancelled(bench):
    connection = bench.connect(autocommit=True)
    return [cancelled(connection, "select pg_sleep(60)"), connection.execute("select 1").fetchone()]


@behaviour()
def a_cancel_fails_the_transaction(bench):
    connection = bench.connect()
    connection.execute("select 1")
    outcome = [cancelled(connection, "select pg_sleep(60)"), code(lambda: connection.execute("select 1"))]
    connection.rollback()
    return outcome + [connection.execute("select 2").fetchone()]


@behaviour()
def a_statement_timeout_fires(bench):
    connection = bench.connect(autocommit=True)
    connection.execute("set statement_timeout to 50")
    outcome = code(lambda: connection.execute("select pg_sleep(60)"))
    return [outcome, connection.execute("show statement_timeout").fetchone()]


@behaviour()
def a_notification_to_itself(bench):
    connection = bench.connect(autocommit=True)
    channel = f"psycopg_self_{bench.client}"
    connection.execute(f"listen {channel}")
    connection.execute("select pg_notify(%s, 'hello')", (channel,))
    return [notice.payload for notice in connection.notifies(timeout=10, stop_after=1)]


@behaviour()
def a_server_side_cursor(bench):
    connection = bench.connect()
    with connection.cursor("walker") as cursor:
        cursor.itersize = 100
        cursor.execute("select i from generate_series(1, 1000) i")
        return [sum(row[0] for row in cursor), cursor.fetchone()]


@behaviour()
def a_scrollable_cursor(bench):
    connection = bench.connect()
    with connection.cursor("scroller", scrollable=True) as cursor:
        cursor.execute("select i from generate_series(1, 100) i")
        cursor.scroll(50)
        seen = [cursor.fetchone()]
        cursor.scroll(-20)
        return seen + [cursor.fetchone(), cursor.fetchmany(3)]


@behaviour()
def a_cursor_held_beyond_its_transaction(bench):
    connection = bench.connect()
    cursor = connection.cursor("holder", withhold=True)
    cursor.execute("select i from generate_series(1, 10) i")
    seen = [cursor.fetchmany(3)]
    connection.commit()
    seen.append(cursor.fetchmany(3))
    connection.commit()
    seen.append(cursor.fetchall())
    cursor.close()
    return seen


@behaviour()
def a_failed_transaction_refuses_until_rollback(bench):
    connection = bench.connect()
    codes = [code(lambda: connection.execute(text)) for text in ("select 1/0", "select 1", "commit")]
    connection.rollback()
    return codes + [connection.execute("select 3").fetchone()]


@behaviour()
def errors_carry_their_details(bench):
    connection = bench.connect(autocommit=True)
    once = f"psycopg_once_{bench.client}"
    table = bench.table(connection, f"id int constraint {once} primary key check (id < 10)")
    connection.execute(f"insert into {table} values (1)")
    try:
        connection.execute(f"insert into {table} values (%s)", (1,))
    except psycopg.errors.UniqueViolation as error:
        details = [error.diag.constraint_name == once, error.diag.severity, error.diag.message_detail]
    return details + [
        code(lambda: connection.execute(f"insert into {table} values (99)")),
        code(lambda: connection.execute("selec 1")),
        code(lambda: connection.execute("select * from missing_table")),
        code(lambda: connection.execute("select %s::int", ("x",))),
    ]


@behaviour()
def notices_arrive(bench):
    connection = bench.connect(autocommit=True)
    seen = []
    connection.add_notice_handler(lambda notice: seen.append((notice.severity, notice.message_primary)))
    connection.execute("do $$ begin raise notice 'one %', 1; raise warning 'two'; end $$")
    connection.execute("drop table if exists psycopg_never_was")
    return seen


@behaviour()
def a_temporary_table_lasts_as_long_as_the_session(bench):
    connection = bench.connect()
    connection.execute("create temp table scratch(v int)")
    connection.execute("insert into scratch values (1), (2)")
    connection.commit()
    rows = connection.execute("select sum(v) from scratch").fetchone()
    connection.commit()
    other = bench.connect(autocommit=True)
    connection.close()
    return [rows, code(lambda: other.execute("select * from scratch"))]


@behaviour()
def a_setting_lasts_as_long_as_the_session(bench):
    connection = bench.connect(autocommit=True)
    connection.execute("set work_mem to '7777kB'")
    connection.execute("select set_config('my.flag', 'on', false)")
    seen = [
        (connection.execute("show work_mem").fetchone()[0], connection.execute("show my.flag").fetchone()[0])
        for _ in range(3)
    ]
    connection.execute("reset all")
    return seen + [connection.execute("show work_mem").fetchone()]


@behaviour()
def a_local_setting_ends_with_its_transaction(bench):
    connection = bench.connect()
    connection.execute("set local work_mem to '8888kB'")
    inside = connection.execute("show work_mem").fetchone()
    connection.commit()
    return [inside, connection.execute("show work_mem").fetchone()]


@behaviour()
def a_rolled_back_setting_is_undone(bench):
    connection = bench.connect()
    connection.execute("set timezone to 'Asia/Tokyo'")
    connection.execute("set work_mem to '9999kB'")
    connection.rollback()
    return [connection.execute(f"show {name}").fetchone() for name in ("timezone", "work_mem")]


@behaviour()
def a_search_path_lasts_as_long_as_the_session(bench):
    connection = bench.connect(autocommit=True)
    schema = f"psycopg_schema_{bench.client}"
    connection.execute(f"drop schema if exists {schema} cascade")
    connection.execute(f"create schema {schema}")
    connection.execute(f"create table {schema}.here(v int)")
    connection.execute(f"insert into {schema}.here values (5)")
    connection.execute(f"set search_path to {schema}")
    seen = [connection.execute("select v from here").fetchone() for _ in range(3)]
    connection.close()
    return seen + [code(lambda: bench.connect().execute("select v from here"))]


@behaviour()
def a_role_lasts_as_long_as_it_is_set(bench):
    connection = bench.connect(autocommit=True)
    connection.execute("set role app")
    seen = [connection.execute("select current_user, session_user").fetchone()]
    connection.execute("set role none")
    return seen + [code(lambda: connection.execute("set role postgres"))]


@behaviour()
def a_pipeline_of_statements(bench):
    connection = bench.connect(autocommit=True)
    table = bench.table(connection)
    with connection.pipeline():
        for i in range(100):
            connection.execute(f"insert into {table} values (%s, %s)", (i, str(i)))
        cursor = connection.execute(f"select count(*), sum(id) from {table}")
    return cursor.fetchone()


@behaviour()
def an_error_in_a_pipeline_aborts_the_rest(bench):
    connection = bench.connect(autocommit=True)
    table = bench.table(connection)

    def run():
        with connection.pipeline():
            connection.execute(f"insert into {table} values (1, 'a')")
            connection.execute("select 1 / 0")
            connection.execute(f"insert into {table} values (2, 'b')")

    return [code(run), connection.execute(f"select count(*) from {table}").fetchone()]


@behaviour()
def several_syncs_in_one_pipeline(bench):
    connection = bench.connect(autocommit=True)
    seen = []
    with connection.pipeline() as pipeline:
        cursors = []
        for i in range(10):
            cursors.append(connection.execute("select %s::int", (i,)))
            pipeline.sync()
        seen = [cursor.fetchone()[0] for cursor in cursors]
    return seen


@behaviour()
def transactions_inside_a_pipeline(bench):
    connection = bench.connect(autocommit=True)
    table = bench.table(connection)
    with connection.pipeline():
        with connection.transaction():
            connection.execute(f"insert into {table} values (1, 'kept')")
        try:
            with connection.transaction():
                connection.execute(f"insert into {table} values (2, 'dropped')")
                raise KeyError
        except KeyError:
            pass
    return connection.execute(f"select * from {table}").fetchall()


@behaviour()
def many_rows_at_once_with_returning(bench):
    connection = bench.connect()
    table = bench.table(connection)
    cursor = connection.cursor()
    cursor.executemany(
        f"insert into {table} values (%s, %s) returning id",
        [(i, str(i)) for i in range(50)],
        returning=True,
    )
    seen = [cursor.fetchone()[0]]
    while cursor.nextset():
        seen.append(cursor.fetchone()[0])
    return seen


@behaviour()
def several_statements_in_one_query(bench):
    connection = bench.connect(autocommit=True)
    table = bench.table(connection)
    cursor = psycopg.ClientCursor(connection)
    cursor.execute(f"insert into {table} values (1, 'a'); select 41 + %s; select 'last'", (1,))
    seen = [cursor.statusmessage]
    while cursor.nextset():
        seen.append(cursor.fetchall())
    failing = code(lambda: connection.execute(f"insert into {table} values (2, 'b'); select 1/0"))
    return seen + [failing, connection.execute(f"select count(*) from {table}").fetchone()]


@behaviour()
def rows_are_streamed_one_by_one(bench):
    connection = bench.connect(autocommit=True)
    cursor = connection.cursor()
    rows = cursor.stream("select i, repeat('x', 100) from generate_series(1, 20000) i", size=100)
    return sum(row[0] for row in rows)


@behaviour()
def an_advisory_lock_is_kept_across_transactions(bench):
    connection = bench.connect(autocommit=True)
    key = bench.key()
    seen = [connection.execute("select pg_try_advisory_lock(%s)", (key,)).fetchone()[0]]
    connection.execute("select 1")
    seen += [connection.execute("select pg_advisory_unlock(%s)", (key,)).fetchone()[0] for _ in range(2)]
    return seen


@behaviour()
def null_and_empty_values(bench):
    connection = bench.connect(autocommit=True)
    seen = [connection.execute("select %s::text, %s::text, %s::bytea", (None, "", b"")).fetchone()]
    seen.append(connection.execute("select").fetchone())
    seen.append(connection.execute("").statusmessage)
    return seen + [connection.execute("select 1 where false").fetchall()]


@behaviour()
def a_sequence_is_remembered_by_its_transaction(bench):
    connection = bench.connect(autocommit=True)
    name = f"psycopg_sequence_{bench.client}"
    connection.execute(f"drop sequence if exists {name}")
    connection.execute(f"create sequence {name} start 5")
    with connection.transaction():
        seen = [connection.execute("select nextval(%s)", (name,)).fetchone()[0] for _ in range(2)]
        return seen + [connection.execute("select currval(%s), lastval()", (name,)).fetchone()]


@behaviour()
def isolation_levels_and_read_only(bench):
    connection = bench.connect()
    table = bench.table(connection)
    connection.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
    connection.read_only = True
    seen = [connection.execute("show transaction_isolation").fetchone()[0]]
    seen.append(code(lambda: connection.execute(f"insert into {table} values (1, 'x')")))
    connection.rollback()
    connection.read_only = None
    connection.isolation_level = None
    connection.execute(f"insert into {table} values (1, 'x')")
    return seen + [connection.execute("show transaction_isolation").fetchone()[0]]


@behaviour()
def a_deferred_constraint_fails_at_commit(bench):
    connection = bench.connect()
    table = bench.table(connection, "id int primary key deferrable initially deferred")
    connection.execute(f"insert into {table} values (1), (1)")
    return [code(connection.commit), connection.execute(f"select count(*) from {table}").fetchone()]


@behaviour()
def a_two_phase_commit(bench):
    connection = bench.connect()
    table = bench.table(connection)
    xid = connection.xid(42, f"psycopg-{bench.client}", "branch")
    connection.tpc_begin(xid)
    connection.execute(f"insert into {table} values (1, 'two-phase')")
    connection.tpc_prepare()
    connection.tpc_commit()
    return connection.execute(f"select * from {table}").fetchall()


@behaviour()
def sql_prepare_and_execute(bench):
    connection = bench.connect(autocommit=True)
    connection.execute("prepare doubled(int) as select $1 * 2")
    seen = [connection.execute(sql.SQL("execute doubled({})").format(i)).fetchone()[0] for i in range(5)]
    connection.execute("deallocate doubled")
    return seen + [code(lambda: connection.execute("execute doubled(1)"))]


@behaviour()
def discard_all_forgets_the_session(bench):
    connection = bench.connect(autocommit=True, prepare_threshold=None)
    connection.execute("set work_mem to '6666kB'")
    connection.execute("create temp table doomed(v int)")
    connection.execute("discard all")
    return [connection.execute("show work_mem").fetchone(), code(lambda: connection.execute("select * from doomed"))]


@behaviour()
def large_objects(bench):
    connection = bench.connect()
    oid = connection.execute("select lo_from_bytea(0, '\\x00112233')").fetchone()[0]
    descriptor = connection.execute("select lo_open(%s, 262144)", (oid,)).fetchone()[0]
    seen = connection.execute("select loread(%s, 3)", (descriptor,)).fetchone()[0]
    connection.execute("select lo_unlink(%s)", (oid,))
    connection.commit()
    return seen


@behaviour()
def rows_as_dictionaries(bench):
    connection = bench.connect(autocommit=True, row_factory=dict_row)
    seen = connection.execute("select 1 as a, 'x' as b").fetchall()
    cursor = connection.cursor(row_factory=tuple_row)
    return [seen, [column.type_code for column in cursor.execute("select 1, 'x'::text, now()").description]]


@behaviour("together")
def a_notification_from_another_session(bench):
    listener, speaker = bench.connect(autocommit=True), bench.connect()
    channel = f"psycopg_other_{bench.client}"
    listener.execute(f"listen {channel}")
    speaker.execute("select pg_notify(%s, 'rolled back')", (channel,))
    speaker.rollback()
    speaker.execute("select pg_notify(%s, 'one'), pg_notify(%s, 'two')", (channel, channel))
    speaker.commit()
    return [notice.payload for notice in listener.notifies(timeout=10, stop_after=2)]


@behaviour("together")
def an_advisory_lock_keeps_another_session_out(bench):
    one, other = bench.connect(autocommit=True), bench.connect(autocommit=True)
    attempt = "select pg_try_advisory_lock(%s)"
    seen = [session.execute(attempt, (bench.key(),)).fetchone()[0] for session in (one, other)]
    seen.append(one.execute("select pg_advisory_unlock(%s)", (bench.key(),)).fetchone()[0])
    return seen + [other.execute(attempt, (bench.key(),)).fetchone()[0]]


@behaviour("together")
def a_closed_session_gives_up_its_advisory_locks(bench):
    one, other = bench.connect(autocommit=True), bench.connect(autocommit=True)
    one.execute("select pg_advisory_lock(%s)", (bench.key(),))
    one.close()
    return other.execute("select pg_advisory_lock(%s)", (bench.key(),)).fetchone()


@behaviour("together")
def a_row_lock_is_waited_for(bench):
    holder, waiter = bench.connect(), bench.connect()
    table = bench.table(holder)
    holder.execute(f"insert into {table} values (1, 'first')")
    holder.commit()
    holder.execute(f"update {table} set v = v || '+holder'")
    refused = code(lambda: waiter.execute(f"select * from {table} for update nowait"))
    waiter.rollback()
    thread = threading.Thread(target=lambda: waiter.execute(f"update {table} set v = v || '+waiter'"))
    thread.start()
    holder.commit()
    thread.join()
    waiter.commit()
    return [refused, holder.execute(f"select v from {table}").fetchone()]


@behaviour("together")
def a_deadlock_ends_with_one_victim(bench):
    sessions = [bench.connect(), bench.connect()]
    table = bench.table(sessions[0])
    sessions[0].execute(f"insert into {table} values (1, 'a'), (2, 'b')")
    sessions[0].commit()
    for number, session in enumerate(sessions, 1):
        session.execute(f"update {table} set v = v where id = %s", (number,))
    codes = []

    def cross(session, row):
        codes.append(code(lambda: session.execute(f"update {table} set v = v where id = %s", (row,))))
        session.rollback()

    threads = [
        threading.Thread(target=cross, args=(session, 3 - number))
        for number, session in enumerate(sessions, 1)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(codes)


@behaviour("together")
def two_sessions_have_their_own_temporary_tables(bench):
    sessions = [bench.connect(), bench.connect()]
    for number, session in enumerate(sessions):
        session.execute("create temp table mine as select %s::int as v", (number,))
        session.commit()
    return [session.execute("select v from mine").fetchone() for session in sessions * 2]


@behaviour("together")
def two_sessions_have_their_own_settings(bench):
    one, other = bench.connect(autocommit=True), bench.connect(autocommit=True)
    one.execute("set work_mem to '5555kB'")
    one.execute("set timezone to 'Asia/Tokyo'")
    other.execute("set timezone to 'America/Lima'")
    return [
        session.execute("select current_setting('work_mem'), current_setting('timezone')").fetchone()
        for session in (one, other, one, other)
    ]


@behaviour("together")
def a_serializable_conflict_is_found(bench):
    sessions = [bench.connect(), bench.connect()]
    table = bench.table(sessions[0])
    sessions[0].execute(f"insert into {table} values (1, 'a'), (2, 'b')")
    sessions[0].commit()
    for session in sessions:
        session.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        session.execute(f"select * from {table}").fetchall()
    sessions[0].execute(f"update {table} set v = 'x' where id = 1")
    sessions[0].commit()

    def second():
        sessions[1].execute(f"update {table} set v = 'y' where id = 2")
        sessions[1].commit()

    return code(second)


@behaviour("together")
def an_uncommitted_row_is_unseen_by_others(bench):
    writer, reader = bench.connect(), bench.connect(autocommit=True)
    table = bench.table(writer)
    writer.execute(f"insert into {table} values (1, 'a')")
    before = reader.execute(f"select count(*) from {table}").fetchone()
    writer.commit()
    return [before, reader.execute(f"select count(*) from {table}").fetchone()]


@behaviour("large")
def a_result_of_200_mb(bench):
    connection = bench.connect(autocommit=True)
    return digest(connection.execute("select repeat('0123456789', %s)", (LARGE // 10,)).fetchone()[0])


@behaviour("large")
def a_parameter_of_200_mb(bench):
    connection = bench.connect(autocommit=True)
    text = "abcdefghij" * (LARGE // 10)
    return connection.execute("select length(%s::text), md5(%s::text)", (text, "x")).fetchone()


@behaviour("large")
def a_copy_of_200_mb(bench):
    connection = bench.connect()
    table = bench.table(connection)
    line = "x" * 1_000_000
    with connection.cursor().copy(f"copy {table} from stdin") as copy:
        for i in range(200):
            copy.write(f"{i}\t{line}\n")
    connection.commit()
    with connection.cursor().copy(f"copy {table} to stdout") as copy:
        copied = sum(len(block) for block in copy)
    return [connection.execute(f"select count(*), sum(length(v)) from {table}").fetchone(), copied]


def run(dsn, group, client):
    for name, function in in_turn(group, client):
        bench = Bench(dsn, client)
        try:
            outcome = function(bench)
        except Exception as error:
            outcome = {"failed": type(error).__name__, "text": str(error)}
        finally:
            bench.close()
        say(client, name, outcome)


def main():
    dsn, group, clients = sys.argv[1], sys.argv[2], int(sys.argv[3])
    threads = [threading.Thread(target=run, args=(dsn, group, client)) for client in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
