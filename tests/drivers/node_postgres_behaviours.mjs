// Behaviours of node-postgres. Usage: node_postgres_behaviours.mjs DSN GROUP CLIENTS
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createRequire } from 'node:module';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';

// The packages live where PGWEIR_NODE_MODULES says, not beside this file.
const require = createRequire(`${process.env.PGWEIR_NODE_MODULES ?? import.meta.dirname}/`);
const { Client, Pool, types } = require('pg');
const Cursor = require('pg-cursor');
const { from: copyFrom, to: copyTo } = require('pg-copy-streams');

const LARGE = 200_000_000;
const [dsn, group, clients] = process.argv.slice(2);

class Bench {
  constructor(client) {
    this.client = client;
    this.key = 3_000_000 + client;
    this.opened = [];
  }

  async connect(options = {}) {
    const connection = new Client({ connectionString: dsn, ...options });
    connection.on('error', () => {});
    await connection.connect();
    this.opened.push(connection);
    return connection;
  }

  async table(connection, definition = 'id int primary key, v text', name = 't') {
    const table = `node_${name}_${this.client}`;
    await connection.query(`drop table if exists ${table} cascade`);
    await connection.query(`create table ${table}(${definition})`);
    return table;
  }

  async close() {
    await Promise.all(this.opened.map((connection) => connection.end()));
    this.opened = [];
  }
}

const code = (promise) => promise.then(() => 'no error', (error) => error.code ?? error.message);
const rows = async (connection, ...query) =>
  (await connection.query({ rowMode: 'array', ...(typeof query[0] === 'string' ? { text: query[0], values: query[1] } : query[0]) })).rows;
const value = async (connection, ...query) => (await rows(connection, ...query))[0][0];
const digest = (data) => [data.length, createHash('md5').update(data).digest('hex')];
const repeat = async (count, action) => {
  const seen = [];
  for (let i = 0; i < count; i++) seen.push(await action(i));
  return seen;
};

const alone = {
  async simple_queries(bench) {
    const connection = await bench.connect();
    return repeat(5, (i) => value(connection, `select ${i} + 1`));
  },
  async queries_with_parameters(bench) {
    const connection = await bench.connect();
    return repeat(5, (i) => rows(connection, 'select $1::int + 1, $2::text, $3::bool', [i, `v${i}`, i % 2 === 0]));
  },
  async queries_queued_at_once(bench) {
    const connection = await bench.connect();
    const queries = Array.from({ length: 50 }, (_, i) => value(connection, 'select $1::int', [i]));
    return Promise.all(queries);
  },
  async a_transaction_commits(bench) {
    const connection = await bench.connect();
    const table = await bench.table(connection);
    await connection.query('begin');
    await connection.query(`insert into ${table} values ($1, $2)`, [1, 'a']);
    const tag = (await connection.query('commit')).command;
    return [tag, await rows(await bench.connect(), `select * from ${table}`)];
  },
  async a_transaction_rolls_back(bench) {
    const connection = await bench.connect();
    const table = await bench.table(connection);
    await connection.query('begin');
    await connection.query(`insert into ${table} values (1, 'a')`);
    await connection.query('rollback');
    return value(connection, `select count(*)::int from ${table}`);
  },
  async a_savepoint_rolls_back_alone(bench) {
    const connection = await bench.connect();
    const table = await bench.table(connection);
    await connection.query('begin');
    await connection.query(`insert into ${table} values (1, 'outer')`);
    await connection.query('savepoint s');
    const failed = await code(connection.query(`insert into ${table} values (1, 'twice')`));
    await connection.query('rollback to savepoint s');
    await connection.query(`insert into ${table} values (2, 'after')`);
    await connection.query('commit');
    return [failed, await rows(connection, `select * from ${table} order by id`)];
  },
  async a_named_statement_is_reused(bench) {
    const connection = await bench.connect();
    return repeat(20, (i) => value(connection, { name: 'doubled', text: 'select $1::int * 2', values: [i] }));
  },
  async many_named_statements(bench) {
    const connection = await bench.connect();
    return repeat(60, (i) => value(connection, { name: `s${i % 20}`, text: `select $1::int + ${i % 20}`, values: [i] }));
  },
  async two_sessions_use_one_name_for_two_statements(bench) {
    const [one, other] = [await bench.connect(), await bench.connect()];
    return repeat(6, (i) =>
      value(i % 2 ? one : other, { name: 'same', text: `select $1::int + ${i % 2 ? 100 : 200}`, values: [i] }));
  },
  async a_failed_named_statement_frees_its_name(bench) {
    const connection = await bench.connect();
    const failed = await code(connection.query({ name: 'later', text: 'select * from missing_table' }));
    return [failed, await value(connection, { name: 'later', text: 'select 5' })];
  },
  async binary_results(bench) {
    const connection = await bench.connect();
    return rows(connection, { text: "select 7::int4, 1.5::float8, true, 'text'::text", binary: true });
  },
  async values_of_many_types(bench) {
    const connection = await bench.connect();
    const result = await rows(
      connection,
      `select 1::int2, 2::int8, 3.25::numeric, 'x'::char(3), '\\x00ff'::bytea, '2020-02-29'::timestamptz, '1 day'::interval,
       '{"a":1}'::jsonb, array[1,null,3], array['a','b"c'], null, '127.0.0.1'::inet`,
    );
    return JSON.parse(JSON.stringify(result));
  },
  async parameters_of_many_types(bench) {
    const connection = await bench.connect();
    const values = [7, 'x', null, true, Buffer.from([0, 255]), { a: [1, 'ü'] }, [1, 2], new Date(0)];
    const result = await rows(
      connection,
      'select $1::int, $2::text, $3::text, $4::bool, $5::bytea, $6::jsonb, $7::int[], $8::timestamptz',
      values,
    );
    return JSON.parse(JSON.stringify(result));
  },
  async a_time_zone_follows_the_session(bench) {
    const connection = await bench.connect();
    await connection.query("set timezone to 'Asia/Tokyo'");
    return repeat(3, () => value(connection, "select '2020-01-01 00:00:00+00'::timestamptz::text"));
  },
  async settings_of_the_connection(bench) {
    const connection = await bench.connect({ application_name: 'named' });
    return repeat(3, () => value(connection, 'show application_name'));
  },
  async unicode_text(bench) {
    const connection = await bench.connect();
    const text = 'Ünïcödé 漢字 🐘 \t\n\'"\\';
    return rows(connection, 'select $1::text, length($1::text)', [text]);
  },
  async copy_in(bench) {
    const connection = await bench.connect();
    const table = await bench.table(connection);
    const lines = Array.from({ length: 5000 }, (_, i) => `${i}\tv${i}\n`);
    const target = connection.query(copyFrom(`copy ${table} from stdin`));
    await pipeline(Readable.from(lines), target);
    return [target.rowCount, await rows(connection, `select count(*)::int, sum(id)::int from ${table}`)];
  },
  async copy_out(bench) {
    const connection = await bench.connect();
    const source = connection.query(copyTo("copy (select i, 'v' || i from generate_series(1, 5000) i) to stdout"));
    const parts = [];
    for await (const part of source) parts.push(part);
    return digest(Buffer.concat(parts));
  },
  async a_failed_copy_leaves_the_session_usable(bench) {
    const connection = await bench.connect();
    const table = await bench.table(connection);
    const lines = Array.from({ length: 20000 }, (_, i) => `${i % 50}\tduplicate\n`);
    const failed = await code(pipeline(Readable.from(lines), connection.query(copyFrom(`copy ${table} from stdin`))));
    return [failed, await value(connection, `select count(*)::int from ${table}`)];
  },
  async a_query_is_cancelled(bench) {
    const connection = await bench.connect();
    const query = connection.query('select pg_sleep(60)');
    const insist = setInterval(() => {
      const canceller = new Client({ connectionString: dsn });
      canceller.connection.on('error', () => {});
      canceller.connection.on('connect', () => canceller.connection.cancel(connection.processID, connection.secretKey));
      canceller.connection.connect(connection.port, connection.host);
    }, 200);
    const failed = await code(query);
    clearInterval(insist);
    return [failed, await value(connection, "select 'usable'")];
  },
  async a_statement_timeout_fires(bench) {
    const connection = await bench.connect();
    await connection.query('set statement_timeout to 50');
    return [await code(connection.query('select pg_sleep(60)')), await value(connection, 'show statement_timeout')];
  },
  async a_notification_to_itself(bench) {
    const connection = await bench.connect();
    await connection.query(`listen node_self_${bench.client}`);
    const heard = once(connection, 'notification');
    await connection.query(`select pg_notify('node_self_${bench.client}', 'hello')`);
    const [message] = await heard;
    return [message.channel === `node_self_${bench.client}`, message.payload];
  },
  async a_cursor_reads_in_portions(bench) {
    const connection = await bench.connect();
    const cursor = connection.query(new Cursor('select i from generate_series(1, 1000) i'));
    let sum = 0;
    let portions = 0;
    for (;;) {
      const portion = await cursor.read(90);
      if (portion.length === 0) break;
      portions += 1;
      sum += portion.reduce((total, row) => total + row.i, 0);
    }
    await cursor.close();
    return [sum, portions, await value(connection, 'select 1')];
  },
  async a_cursor_closed_half_way(bench) {
    const connection = await bench.connect();
    const cursor = connection.query(new Cursor('select generate_series(1, $1::int) i', [100000]));
    const portion = await cursor.read(10);
    await cursor.close();
    return [portion.length, await value(connection, "select 'usable'")];
  },
  async a_sql_cursor_in_a_transaction(bench) {
    const connection = await bench.connect();
    await connection.query('begin');
    await connection.query('declare c cursor for select generate_series(1, 10) i');
    const seen = [await rows(connection, 'fetch 3 from c'), await rows(connection, 'fetch 2 from c')];
    await connection.query('commit');
    return [...seen, await code(connection.query('fetch 1 from c'))];
  },
  async a_sql_cursor_held_beyond_its_transaction(bench) {
    const connection = await bench.connect();
    await connection.query('begin');
    await connection.query('declare held cursor with hold for select generate_series(1, 10) i');
    await connection.query('commit');
    const seen = [await rows(connection, 'fetch 3 from held'), await rows(connection, 'fetch 2 from held')];
    await connection.query('close held');
    return seen;
  },
  async a_failed_transaction_refuses_until_rollback(bench) {
    const connection = await bench.connect();
    await connection.query('begin');
    const codes = [await code(connection.query('select 1/0')), await code(connection.query('select $1::int', [1]))];
    const tag = (await connection.query('commit')).command;
    return [codes, tag, await value(connection, 'select 3')];
  },
  async errors_carry_their_details(bench) {
    const connection = await bench.connect();
    const name = `node_once_${bench.client}`;
    const table = await bench.table(connection, `id int constraint ${name} primary key`);
    await connection.query(`insert into ${table} values (1)`);
    const details = await connection.query(`insert into ${table} values ($1)`, [1]).catch((error) => [
      error.code,
      error.constraint === name,
      error.detail,
      error.severity,
    ]);
    return [details, await code(connection.query('selec 1')), await code(connection.query('select $1::int', ['x']))];
  },
  async notices_arrive(bench) {
    const connection = await bench.connect();
    const seen = [];
    connection.on('notice', (notice) => seen.push([notice.severity, notice.message]));
    await connection.query("do $$ begin raise notice 'one'; raise warning 'two'; end $$");
    return seen;
  },
  async a_temporary_table_lasts_as_long_as_the_session(bench) {
    const connection = await bench.connect();
    await connection.query('create temp table scratch(v int)');
    await connection.query('insert into scratch values ($1), ($2)', [1, 2]);
    const sum = await value(connection, 'select sum(v)::int from scratch');
    await bench.close();
    return [sum, await code((await bench.connect()).query('select * from scratch'))];
  },
  async a_setting_lasts_as_long_as_the_session(bench) {
    const connection = await bench.connect();
    await connection.query("set work_mem to '7777kB'");
    const seen = await repeat(3, () => value(connection, 'show work_mem'));
    await connection.query('reset work_mem');
    return [...seen, await value(connection, 'show work_mem')];
  },
  async a_local_setting_ends_with_its_transaction(bench) {
    const connection = await bench.connect();
    await connection.query('begin');
    await connection.query("select set_config('work_mem', '8888kB', true)");
    const inside = await value(connection, 'show work_mem');
    await connection.query('commit');
    return [inside, await value(connection, 'show work_mem')];
  },
  async several_statements_in_one_query(bench) {
    const connection = await bench.connect();
    const table = await bench.table(connection);
    const results = await connection.query(`insert into ${table} values (1, 'a'); select 42 as answer; select`);
    const failed = await code(connection.query(`insert into ${table} values (2, 'b'); select 1/0`));
    return [results.map((r) => [r.command, r.rowCount]), failed, await value(connection, `select count(*)::int from ${table}`)];
  },
  async an_advisory_lock_is_kept_across_statements(bench) {
    const connection = await bench.connect();
    const seen = [await value(connection, `select pg_try_advisory_lock(${bench.key})`)];
    seen.push(await value(connection, 'select true'));
    return [...seen, ...(await repeat(2, () => value(connection, `select pg_advisory_unlock(${bench.key})`)))];
  },
  async null_and_empty_values(bench) {
    const connection = await bench.connect();
    const empty = await connection.query('');
    return [await rows(connection, 'select $1::text, $2::text', [null, '']), empty.command, await rows(connection, 'select 1 where false')];
  },
  async sql_prepare_and_execute(bench) {
    const connection = await bench.connect();
    await connection.query('prepare tripled(int) as select $1 * 3');
    const seen = await repeat(5, (i) => value(connection, `execute tripled(${i})`));
    await connection.query('deallocate tripled');
    return [...seen, await code(connection.query('execute tripled(1)'))];
  },
  async read_only_transactions(bench) {
    const connection = await bench.connect();
    const table = await bench.table(connection);
    await connection.query('begin isolation level repeatable read read only');
    const seen = [await value(connection, 'show transaction_isolation')];
    seen.push(await code(connection.query(`insert into ${table} values (1, 'x')`)));
    await connection.query('rollback');
    return [...seen, await value(connection, 'show transaction_read_only')];
  },
  async a_sequence_is_remembered_by_its_transaction(bench) {
    const connection = await bench.connect();
    await connection.query(`drop sequence if exists node_sequence_${bench.client}`);
    await connection.query(`create sequence node_sequence_${bench.client} start 5`);
    await connection.query('begin');
    const seen = await repeat(2, () => value(connection, `select nextval('node_sequence_${bench.client}')::int`));
    seen.push(await value(connection, 'select lastval()::int'));
    await connection.query('commit');
    return seen;
  },
  async a_pool_of_the_driver(bench) {
    const pool = new Pool({ connectionString: dsn, max: 4 });
    const results = await Promise.all(Array.from({ length: 20 }, (_, i) => pool.query('select $1::int * 2 as v', [i])));
    await pool.end();
    return [results.map((result) => result.rows[0].v), bench.opened.length];
  },
  async fields_are_described(bench) {
    const connection = await bench.connect();
    const result = await connection.query("select 1 as a, 'x'::text as b, now() as c");
    return result.fields.map((field) => [field.name, field.dataTypeID === types.builtins.INT4]);
  },
};

const together = {
  async a_notification_from_another_session(bench) {
    const [listener, speaker] = [await bench.connect(), await bench.connect()];
    const channel = `node_other_${bench.client}`;
    await listener.query(`listen ${channel}`);
    const heard = [];
    const both = new Promise((resolve) => {
      listener.on('notification', (message) => {
        heard.push(message.payload);
        if (heard.length === 2) resolve();
      });
    });
    await speaker.query('begin');
    await speaker.query('select pg_notify($1, $2)', [channel, 'one']);
    await speaker.query('select pg_notify($1, $2)', [channel, 'two']);
    const silent = heard.length;
    await speaker.query('commit');
    await both;
    return [silent, heard];
  },
  async an_advisory_lock_keeps_another_session_out(bench) {
    const [one, other] = [await bench.connect(), await bench.connect()];
    const attempt = (connection) => value(connection, `select pg_try_advisory_lock(${bench.key})`);
    const seen = [await attempt(one), await attempt(other)];
    seen.push(await value(one, `select pg_advisory_unlock(${bench.key})`));
    return [...seen, await attempt(other)];
  },
  async a_row_lock_is_waited_for(bench) {
    const [holder, waiter] = [await bench.connect(), await bench.connect()];
    const table = await bench.table(holder);
    await holder.query(`insert into ${table} values (1, 'first')`);
    await holder.query('begin');
    await holder.query(`update ${table} set v = v || '+holder'`);
    const waiting = waiter.query(`update ${table} set v = v || '+waiter'`);
    await holder.query('commit');
    await waiting;
    return value(holder, `select v from ${table}`);
  },
  async two_sessions_have_their_own_temporary_tables(bench) {
    const sessions = [await bench.connect(), await bench.connect()];
    for (const [number, session] of sessions.entries()) {
      await session.query(`create temp table mine as select ${number} as v`);
    }
    return repeat(4, (i) => value(sessions[i % 2], 'select v from mine'));
  },
  async an_uncommitted_row_is_unseen_by_others(bench) {
    const [writer, reader] = [await bench.connect(), await bench.connect()];
    const table = await bench.table(writer);
    await writer.query('begin');
    await writer.query(`insert into ${table} values (1, 'a')`);
    const before = await value(reader, `select count(*)::int from ${table}`);
    await writer.query('commit');
    return [before, await value(reader, `select count(*)::int from ${table}`)];
  },
};

const large = {
  async a_result_of_200_mb(bench) {
    const connection = await bench.connect();
    return digest(await value(connection, `select repeat('0123456789', ${LARGE / 10})`));
  },
  async a_parameter_of_200_mb(bench) {
    const connection = await bench.connect();
    return value(connection, 'select length($1::text)', ['abcdefghij'.repeat(LARGE / 10)]);
  },
};

const canonical = (_key, part) => (typeof part === 'bigint' ? String(part) : part);

async function run(client) {
  const behaviours = Object.entries({ alone, together, large }[group]);
  // Each client starts elsewhere, so that neighbours differ.
  const start = (client * 7) % behaviours.length;
  for (const [name, behaviour] of [...behaviours.slice(start), ...behaviours.slice(0, start)]) {
    const bench = new Bench(client);
    let outcome;
    try {
      outcome = await behaviour(bench);
    } catch (error) {
      outcome = { failed: error.name, text: error.message, code: error.code };
    } finally {
      await bench.close();
    }
    process.stdout.write(`${JSON.stringify({ behaviour: name, client, outcome }, canonical)}\n`);
  }
}

await Promise.all(Array.from({ length: Number(clients) }, (_, client) => run(client)));
