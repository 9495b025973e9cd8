"""Behaviours of asyncpg. Usage: asyncpg_behaviours.py DSN GROUP CLIENTS"""

import asyncio
import datetime
import decimal
import io
import json
import sys
import uuid

import asyncpg

from behaviours import LARGE, behaviour, digest, in_turn, say


class Bench:
    """One client's means: connections to the server, names of its own."""

    def __init__(self, dsn, client):
        self.dsn = dsn
        self.client = client
        self.opened = []

    async def connect(self, **options):
        connection = await asyncpg.connect(self.dsn, timeout=120, **options)
        self.opened.append(connection)
        return connection

    async def table(self, connection, definition="id int primary key, v text", name="t"):
        name = f"asyncpg_{name}_{self.client}"
        await connection.execute(f"drop table if exists {name} cascade")
        await connection.execute(f"create table {name}({definition})")
        return name

    def key(self):
        """An advisory lock key that only this client uses."""
        return 2_000_000 + self.client

    async def close(self):
        for connection in self.opened:
            await connection.close()
        self.opened.clear()


async def code(awaitable):
    """The SQLSTATE that something fails with."""
    try:
        await awaitable
    except asyncpg.PostgresError as error:
        return error.sqlstate
    except (asyncio.TimeoutError, asyncpg.InterfaceError) as error:
        return type(error).__name__
    return "no error"


def plain(records):
    return [tuple(record) for record in records]


@behaviour()
async def simple_queries(bench):
    connection = await bench.connect()
    return [await connection.execute(f"select {i}") for i in range(3)]


@behaviour()
async def a_query_with_parameters(bench):
    connection = await bench.connect()
    return [await connection.fetchval("select $1::int + $2::int", i, 1) for i in range(10)]


@behaviour()
async def a_transaction_commits(bench):
    connection = await bench.connect()
    table = await bench.table(connection)
    async with connection.transaction():
        await connection.execute(f"insert into {table} values ($1, $2)", 1, "a")
    other = await bench.connect()
    return plain(await other.fetch(f"select * from {table}"))


@behaviour()
async def a_transaction_rolls_back(bench):
    connection = await bench.connect()
    table = await bench.table(connection)
    try:
        async with connection.transaction():
            await connection.execute(f"insert into {table} values (1, 'a')")
            raise KeyError
    except KeyError:
        pass
    return await connection.fetchval(f"select count(*) from {table}")


@behaviour()
async def a_savepoint_rolls_back_alone(bench):
    connection = await bench.connect()
    table = await bench.table(connection)
    async with connection.transaction():
        await connection.execute(f"insert into {table} values (1, 'outer')")
        try:
            async with connection.transaction():
                await connection.execute(f"insert into {table} values (2, 'inner')")
                await connection.execute("select 1/0")
        except asyncpg.DivisionByZeroError:
            pass
        await connection.execute(f"insert into {table} values (3, 'after')")
    return plain(await connection.fetch(f"select * from {table} order by id"))


@behaviour()
async def a_prepared_statement_is_reused(bench):
    connection = await bench.connect()
    statement = await connection.prepare("select $1::int * 3")
    return [await statement.fetchval(i) for i in range(20)]


@behaviour()
async def a_prepared_statement_knows_its_types(bench):
    connection = await bench.connect()
    statement = await connection.prepare("select $1::int as a, $2::text[] as b, now() as c")
    return [
        [kind.name for kind in statement.get_parameters()],
        [(attribute.name, attribute.type.name) for attribute in statement.get_attributes()],
    ]


@behaviour()
async def more_statements_than_the_driver_keeps(bench):
    connection = await bench.connect(statement_cache_size=3)
    return [
        await connection.fetchval(f"select $1::int + {shape}", turn) for turn in range(3) for shape in range(8)
    ]


@behaviour()
async def without_a_statement_cache(bench):
    connection = await bench.connect(statement_cache_size=0)
    return [await connection.fetchval("select $1::int + 1", i) for i in range(5)]


@behaviour()
async def two_sessions_prepare_the_same_names(bench):
    connections = [await bench.connect() for _ in range(3)]
    return [
        await connection.fetchval(f"select $1::int + {number}", turn)
        for turn in range(3)
        for number, connection in enumerate(connections)
    ]


@behaviour()
async def binary_values(bench):
    connection = await bench.connect()
    return tuple(
        await connection.fetchrow(
            "select $1::int2, $2::int8, $3::float8, $4::numeric, $5::bytea, $6::uuid, $7::date,"
            " $8::timestamptz, $9::interval, $10::bool, $11::text",
            7,
            2**40,
            1.25,
            decimal.Decimal("3.1400"),
            b"\x00\xff",
            uuid.UUID(int=9),
            datetime.date(2020, 2, 29),
            datetime.datetime(2020, 2, 29, 12, tzinfo=datetime.timezone.utc),
            datetime.timedelta(days=1, seconds=5),
            True,
            None,
        )
    )


@behaviour()
async def arrays(bench):
    connection = await bench.connect()
    return tuple(
        await connection.fetchrow(
            "select $1::int[], $2::text[], $3::int[][], $4::timestamptz[]",
            [1, None, 3],
            ["a", "", 'q"'],
            [[1, 2], [3, 4]],
            [],
        )
    )


@behaviour()
async def json_through_a_codec(bench):
    connection = await bench.connect()
    await connection.set_type_codec("jsonb", schema="pg_catalog", encoder=json.dumps, decoder=json.loads)
    return await connection.fetchval("select $1::jsonb", {"a": [1, None, "ü"], "b": True})


@behaviour()
async def composites_enums_and_ranges(bench):
    connection = await bench.connect()
    kind = f"asyncpg_pair_{bench.client}"
    await connection.execute(f"drop type if exists {kind}")
    await connection.execute(f"create type {kind} as (a int, b text)")
    return [
        tuple(await connection.fetchval(f"select row(1, 'x')::{kind}")),
        str(await connection.fetchval("select int4range(1, 5)")),
        await connection.fetchval("select '12:00'::time"),
    ]


@behaviour()
async def a_time_zone_follows_the_session(bench):
    connection = await bench.connect()
    await connection.execute("set timezone to 'Asia/Tokyo'")
    moment = "select '2020-01-01 00:00:00+00'::timestamptz::text"
    return [await connection.fetchval(moment) for _ in range(3)] + [connection.get_settings().TimeZone]


@behaviour()
async def settings_of_the_connection(bench):
    connection = await bench.connect(server_settings={"application_name": "named", "timezone": "Asia/Tokyo"})
    return [await connection.fetchval(f"show {name}") for name in ("application_name", "timezone")]


@behaviour()
async def unicode_text(bench):
    connection = await bench.connect()
    text = "Ünïcödé 漢字 🐘 \t\n'\"\\"
    return list(await connection.fetchrow("select $1::text, length($1::text)", text))


@behaviour()
async def copy_records_in(bench):
    connection = await bench.connect()
    table = await bench.table(connection)
    rows = [(i, None if i % 3 == 0 else f"v\t{i}") for i in range(1000)]
    return [
        await connection.copy_records_to_table(table, records=rows),
        tuple(await connection.fetchrow(f"select count(*), count(v), sum(id) from {table}")),
    ]


@behaviour()
async def copy_text_in(bench):
    connection = await bench.connect()
    table = await bench.table(connection)
    source = io.BytesIO(b"".join(b"%d\tx\n" % i for i in range(500)))
    return [
        await connection.copy_to_table(table, source=source),
        await connection.fetchval(f"select sum(id) from {table}"),
    ]


@behaviour()
async def copy_out(bench):
    connection = await bench.connect()
    target = io.BytesIO()
    tag = await connection.copy_from_query("select i, 'v' || i from generate_series(1, 5000) i", output=target)
    return [tag, digest(target.getvalue())]


@behaviour()
async def copy_out_in_binary(bench):
    connection = await bench.connect()
    target = io.BytesIO()
    tag = await connection.copy_from_query("select generate_series(1, $1)", 1000, output=target, format="binary")
    return [tag, digest(target.getvalue())]


@behaviour()
async def a_failed_copy_leaves_the_session_usable(bench):
    connection = await bench.connect()
    table = await bench.table(connection)
    rows = [(i % 50, "duplicate") for i in range(5000)]
    failed = await code(connection.copy_records_to_table(table, records=rows))
    return [failed, await connection.fetchval(f"select count(*) from {table}")]


@behaviour()
async def a_copy_whose_source_fails(bench):
    connection = await bench.connect()
    table = await bench.table(connection)

    async def source():
        yield b"1\tx\n"
        raise KeyError

    try:
        await connection.copy_to_table(table, source=source())
    except KeyError:
        pass
    return await connection.fetchval(f"select count(*) from {table}")


@behaviour()
async def a_query_times_out_and_is_cancelled(bench):
    connection = await bench.connect()
    failed = await code(connection.fetchval("select pg_sleep(60)", timeout=0.3))
    return [failed, await connection.fetchval("select 1")]


@behaviour()
async def a_cancelled_task_cancels_its_query(bench):
    connection = await bench.connect()
    task = asyncio.ensure_future(connection.fetchval("select pg_sleep(60)"))
    await asyncio.sleep(0.3)
    task.cancel()
    try:
        await task
        seen = ["no error"]
    except asyncio.CancelledError:
        seen = ["cancelled"]
    return seen + [await connection.fetchval("select 1")]


@behaviour()
async def a_statement_timeout_fires(bench):
    connection = await bench.connect()
    await connection.execute("set statement_timeout to 50")
    return [await code(connection.fetchval("select pg_sleep(60)")), await connection.fetchval("show statement_timeout")]


@behaviour()
async def a_notification_to_itself(bench):
    connection = await bench.connect()
    channel = f"asyncpg_self_{bench.client}"
    heard = asyncio.Queue()
    await connection.add_listener(channel, lambda _c, _p, _n, payload: heard.put_nowait(payload))
    await connection.execute("select pg_notify($1, 'hello')", channel)
    return await asyncio.wait_for(heard.get(), 10)


@behaviour()
async def a_cursor_walks_in_portions(bench):
    connection = await bench.connect()
    total = 0
    async with connection.transaction():
        async for record in connection.cursor("select generate_series(1, 1000)", prefetch=90):
            total += record[0]
    return total


@behaviour()
async def a_cursor_moves_and_fetches(bench):
    connection = await bench.connect()
    async with connection.transaction():
        cursor = await connection.cursor("select generate_series(1, 100)")
        await cursor.forward(10)
        return [tuple(await cursor.fetchrow()), plain(await cursor.fetch(3))]


@behaviour()
async def a_failed_transaction_refuses_until_rollback(bench):
    connection = await bench.connect()
    transaction = connection.transaction()
    await transaction.start()
    codes = [await code(connection.execute(text)) for text in ("select 1/0", "select 1")]
    await transaction.rollback()
    return codes + [await connection.fetchval("select 3")]


@behaviour()
async def errors_carry_their_details(bench):
    connection = await bench.connect()
    once = f"asyncpg_once_{bench.client}"
    table = await bench.table(connection, f"id int constraint {once} primary key")
    await connection.execute(f"insert into {table} values (1)")
    try:
        await connection.execute(f"insert into {table} values ($1)", 1)
    except asyncpg.UniqueViolationError as error:
        details = [error.constraint_name == once, error.detail]
    return details + [
        await code(connection.execute("selec 1")),
        await code(connection.fetch("select * from missing_table")),
        await code(connection.fetch("select $1::int / 0", 1)),
    ]


@behaviour()
async def notices_arrive(bench):
    connection = await bench.connect()
    seen = []
    connection.add_log_listener(lambda _c, message: seen.append([message.severity, message.message]))
    await connection.execute("do $$ begin raise notice 'one'; raise warning 'two'; end $$")
    await asyncio.sleep(0)
    return seen


@behaviour()
async def a_temporary_table_lasts_as_long_as_the_session(bench):
    connection = await bench.connect()
    await connection.execute("create temp table scratch(v int)")
    await connection.executemany("insert into scratch values ($1)", [(1,), (2,)])
    total = await connection.fetchval("select sum(v) from scratch")
    await connection.close()
    other = await bench.connect()
    return [total, await code(other.fetch("select * from scratch"))]


@behaviour()
async def a_setting_lasts_as_long_as_the_session(bench):
    connection = await bench.connect()
    await connection.execute("set work_mem to '7777kB'")
    seen = [await connection.fetchval("show work_mem") for _ in range(3)]
    await connection.reset()
    return seen + [await connection.fetchval("show work_mem")]


@behaviour()
async def a_local_setting_ends_with_its_transaction(bench):
    connection = await bench.connect()
    async with connection.transaction():
        await connection.execute("set local work_mem to '8888kB'")
        inside = await connection.fetchval("show work_mem")
    return [inside, await connection.fetchval("show work_mem")]


@behaviour()
async def many_rows_at_once(bench):
    connection = await bench.connect()
    table = await bench.table(connection)
    await connection.executemany(f"insert into {table} values ($1, $2)", [(i, str(i)) for i in range(500)])
    more = [(i, "") for i in range(900, 905)]
    rows = await connection.fetchmany(f"insert into {table} values ($1, $2) returning id", more)
    return [plain(rows), await connection.fetchval(f"select count(*) from {table}")]


@behaviour()
async def an_error_among_many_rows_undoes_all(bench):
    connection = await bench.connect()
    table = await bench.table(connection)
    rows = [(i % 90, "") for i in range(100)]
    failed = await code(connection.executemany(f"insert into {table} values ($1, $2)", rows))
    return [failed, await connection.fetchval(f"select count(*) from {table}")]


@behaviour()
async def several_statements_in_one_query(bench):
    connection = await bench.connect()
    table = await bench.table(connection)
    tag = await connection.execute(f"insert into {table} values (1, 'a'); insert into {table} values (2, 'b')")
    failed = await code(connection.execute(f"insert into {table} values (3, 'c'); select 1/0"))
    return [tag, failed, await connection.fetchval(f"select count(*) from {table}")]


@behaviour()
async def an_advisory_lock_is_kept_across_statements(bench):
    connection = await bench.connect()
    seen = [await connection.fetchval("select pg_try_advisory_lock($1)", bench.key())]
    return seen + [await connection.fetchval("select pg_advisory_unlock($1)", bench.key()) for _ in range(2)]


@behaviour()
async def null_and_empty_values(bench):
    connection = await bench.connect()
    return [
        tuple(await connection.fetchrow("select $1::text, $2::text, $3::bytea", None, "", b"")),
        tuple(await connection.fetchrow("select")),
        plain(await connection.fetch("select 1 where false")),
    ]


@behaviour()
async def isolation_levels_and_read_only(bench):
    connection = await bench.connect()
    table = await bench.table(connection)
    async with connection.transaction(isolation="repeatable_read"):
        seen = [await connection.fetchval("show transaction_isolation")]
    transaction = connection.transaction(isolation="serializable", readonly=True, deferrable=True)
    await transaction.start()
    seen.append(await code(connection.execute(f"insert into {table} values (1, 'x')")))
    await transaction.rollback()
    return seen + [await connection.fetchval("show transaction_isolation")]


@behaviour()
async def a_deferred_constraint_fails_at_commit(bench):
    connection = await bench.connect()
    table = await bench.table(connection, "id int primary key deferrable initially deferred")
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute(f"insert into {table} values (1), (1)")
    return [await code(transaction.commit()), await connection.fetchval(f"select count(*) from {table}")]


@behaviour()
async def a_sequence_is_remembered_by_its_transaction(bench):
    connection = await bench.connect()
    name = f"asyncpg_sequence_{bench.client}"
    await connection.execute(f"drop sequence if exists {name}")
    await connection.execute(f"create sequence {name} start 5")
    async with connection.transaction():
        seen = [await connection.fetchval("select nextval($1::text::regclass)", name) for _ in range(2)]
        return seen + [await connection.fetchval("select lastval()")]


@behaviour()
async def a_pool_of_the_driver(bench):
    async with asyncpg.create_pool(bench.dsn, min_size=1, max_size=4, timeout=120) as pool:
        async def one(i):
            async with pool.acquire() as connection:
                return await connection.fetchval("select $1::int * 2", i)

        return await asyncio.gather(*[one(i) for i in range(20)])


@behaviour("together")
async def a_notification_from_another_session(bench):
    listener, speaker = await bench.connect(), await bench.connect()
    channel = f"asyncpg_other_{bench.client}"
    heard = asyncio.Queue()
    await listener.add_listener(channel, lambda _c, _p, _n, payload: heard.put_nowait(payload))
    async with speaker.transaction():
        await speaker.execute("select pg_notify($1, 'one'), pg_notify($1, 'two')", channel)
        silent = heard.empty()
    seen = [await asyncio.wait_for(heard.get(), 10) for _ in range(2)]
    return [silent, seen]


@behaviour("together")
async def an_ended_listener_hears_nothing(bench):
    listener, speaker = await bench.connect(), await bench.connect()
    channel = f"asyncpg_ended_{bench.client}"
    heard = []
    callback = lambda _c, _p, _n, payload: heard.append(payload)
    await listener.add_listener(channel, callback)
    await listener.remove_listener(channel, callback)
    await speaker.execute("select pg_notify($1, 'nobody')", channel)
    await listener.fetchval("select 1")
    return heard


@behaviour("together")
async def an_advisory_lock_keeps_another_session_out(bench):
    one, other = await bench.connect(), await bench.connect()
    attempt = "select pg_try_advisory_lock($1)"
    seen = [await session.fetchval(attempt, bench.key()) for session in (one, other)]
    seen.append(await one.fetchval("select pg_advisory_unlock($1)", bench.key()))
    return seen + [await other.fetchval(attempt, bench.key())]


@behaviour("together")
async def a_row_lock_is_waited_for(bench):
    holder, waiter = await bench.connect(), await bench.connect()
    table = await bench.table(holder)
    await holder.execute(f"insert into {table} values (1, 'first')")
    transaction = holder.transaction()
    await transaction.start()
    await holder.execute(f"update {table} set v = v || '+holder'")
    waiting = asyncio.ensure_future(waiter.execute(f"update {table} set v = v || '+waiter'"))
    await transaction.commit()
    await waiting
    return await holder.fetchval(f"select v from {table}")


@behaviour("together")
async def a_serializable_conflict_is_found(bench):
    one, other = await bench.connect(), await bench.connect()
    table = await bench.table(one)
    await one.execute(f"insert into {table} values (1, 'a'), (2, 'b')")
    transactions = [session.transaction(isolation="serializable") for session in (one, other)]
    for transaction, session in zip(transactions, (one, other)):
        await transaction.start()
        await session.fetch(f"select * from {table}")
    await one.execute(f"update {table} set v = 'x' where id = 1")
    await transactions[0].commit()

    async def second():
        await other.execute(f"update {table} set v = 'y' where id = 2")
        await transactions[1].commit()

    return await code(second())


@behaviour("together")
async def two_sessions_have_their_own_settings(bench):
    one, other = await bench.connect(), await bench.connect()
    await one.execute("set work_mem to '5555kB'")
    await other.execute("set timezone to 'America/Lima'")
    question = "select current_setting('work_mem'), current_setting('timezone')"
    return [tuple(await session.fetchrow(question)) for session in (one, other, one, other)]


@behaviour("large")
async def a_result_of_200_mb(bench):
    connection = await bench.connect()
    return digest(await connection.fetchval("select repeat('0123456789', $1)", LARGE // 10))


@behaviour("large")
async def a_parameter_of_200_mb(bench):
    connection = await bench.connect()
    return await connection.fetchval("select length($1::bytea)", b"abcdefghij" * (LARGE // 10))


async def run(dsn, group, client):
    for name, function in in_turn(group, client):
        bench = Bench(dsn, client)
        try:
            outcome = await function(bench)
        except Exception as error:
            outcome = {"failed": type(error).__name__, "text": str(error)}
        finally:
            await bench.close()
        say(client, name, outcome)


async def main():
    dsn, group, clients = sys.argv[1], sys.argv[2], int(sys.argv[3])
    await asyncio.gather(*[run(dsn, group, client) for client in range(clients)])


if __name__ == "__main__":
    asyncio.run(main())
