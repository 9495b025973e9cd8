create schema tenant;
create table users(id int primary key, name text not null default 'x', email text, age int, tags text[],
                   created timestamptz default now(), manager int references users);
create table orders(id bigint primary key generated always as identity, user_id int references users on delete cascade,
                    total numeric(10, 2), status text default 'new', note text, placed timestamptz default now());
create table items(order_id bigint references orders, sku text, qty int, price numeric);
create table docs(id int primary key, body jsonb, page xml, words tsvector);
create table log(at timestamptz default now(), line text);
create table ruled(a int);
create rule also_logs as on insert to ruled do also insert into log(line) values ('ruled');
create table watched(a int);
create table secrets(owner name, word text);
create policy own on secrets using (owner = current_user);
alter table secrets enable row level security;
create table tenants(tenant text, word text);
create policy own on tenants using (tenant = current_setting('app.tenant'));
alter table tenants enable row level security;
create table weather(city text, temp_lo int, temp_hi int, prcp real, date date);
create table cities(name text, population float, elevation int);
create table capitals(state char(2)) inherits (cities);
create table measurement(city_id int, logdate date, peaktemp int) partition by range (logdate);
create table measurement_2024 partition of measurement for values from ('2024-01-01') to ('2025-01-01');
create table measurement_2025 partition of measurement for values from ('2025-01-01') to ('2026-01-01');
create table half_logged(a int) partition by list (a);
create unlogged table half_logged_1 partition of half_logged for values in (1);
create unlogged table scratch(a int);
create foreign table remote(a int) server nowhere;
create sequence ids;
create table tenant.users(id int, secret text);
create unlogged table tenant.items(a int);
create function tenant.upper(text) returns text volatile language sql as $$ select 'x'::text $$;

create type mood as enum ('sad', 'ok', 'happy');
create domain positive as int check (value > 0);
create type pair as (a int, b int);
create type spread as range (subtype = float8);

insert into users(id, name, age, tags) select n, 'user ' || n, n, array['a', 'b'] from generate_series(1, 50) n;
insert into orders(user_id, total) select n, n * 1.5 from generate_series(1, 50) n;
insert into docs values (1, '{"a": {"b": [1, 2, 3]}, "name": "x"}', '<a><b n="1">text</b></a>', 'fat cat');
insert into weather values ('Berlin', 1, 20, 0.1, '2024-05-01'), ('Bonn', 5, 25, 0, '2024-05-01');
insert into cities values ('Mariposa', 1200, 1953);
insert into capitals values ('Madison', 190000, 845, 'WI');

create function double(int) returns int immutable language sql as 'select $1 * 2';
create function fare(int) returns int immutable language plpgsql as 'begin return $1 + 1; end';
create function user_name(int) returns text stable language sql as 'select name from users where id = $1';
create function user_count() returns bigint stable language plpgsql as 'begin return (select count(*) from users); end';
create function emails() returns setof text stable language sql begin atomic select email from users; end;
create function tenant_of() returns text stable language sql as $$ select current_setting('app.tenant', true) $$;
create function staged() returns bigint stable language sql as 'select count(*) from items';
create function staged_elsewhere() returns bigint stable language sql set search_path = tenant as 'select count(*) from items';
create function timed(int) returns int stable language plpgsql as
    $$ declare began timestamptz := clock_timestamp(); begin raise debug 'nextval(%)', began; return $1; end $$;
create function log_it(int) returns int volatile language sql as $$ insert into log(line) values ('x'); select $1 $$;
create function unlabelled(int) returns int language sql as 'select $1';
create function sneaky_next() returns bigint stable language sql as $$ select nextval('ids') $$;
create function sneaky_log(int) returns int stable language plpgsql as 'begin return log_it($1); end';
create function sneaky_lock() returns text stable language sql as 'select pg_advisory_lock(7)::text';
create function sneaky_scratch() returns bigint immutable language sql as 'select count(*) from scratch';
create function sneaky_twice() returns bigint stable language sql as 'select sneaky_next()';
create function dynamic(text) returns bigint stable language plpgsql as
    $$ declare n bigint; begin execute format('select count(*) from %I', $1) into n; return n; end $$;
create function whereabouts() returns text stable language sql as $$ select current_setting('transaction_read_only') $$;
create function atomic_next() returns bigint stable language sql begin atomic select nextval('ids'); end;
create function overloaded(int) returns int volatile language sql as 'select log_it($1)';
create function overloaded(int, int) returns int immutable language sql as 'select $1 + $2';
create function ambiguous(int) returns int volatile language sql as 'select log_it($1)';
create function ambiguous(text) returns text immutable language sql as 'select $1';
create function optional(a int, b int default 2) returns int immutable language sql as 'select a + b';
create function many(variadic int[]) returns int immutable language sql as 'select cardinality($1)';
create function shout(users) returns text immutable language sql as 'select upper($1.name)';
create function stamp(users) returns int volatile language sql as 'select log_it($1.id)';
create function adds(int, int) returns int volatile language plpgsql as 'begin perform log_it($1); return $1 + $2; end';
create aggregate logged_sum(int) (sfunc = adds, stype = int, initcond = '0');
create aggregate plain_sum(int) (sfunc = int4pl, stype = int, initcond = '0');
create procedure tidy(int) language sql as 'delete from log where line = $1::text';
create function on_watched() returns trigger language plpgsql as
    $$ begin insert into log(line) values ('watched'); return new; end $$;
create trigger watch before insert or update on watched for each row execute function on_watched();

create operator === (leftarg = int, rightarg = int, function = int4eq);
create operator @@@ (leftarg = int, rightarg = int, function = adds);

create type cash as (amount int, currency text);
create function to_cash(int) returns cash volatile language plpgsql as
    $$ begin perform log_it($1); return row($1, 'EUR')::cash; end $$;
create cast (int as cash) with function to_cash(int) as assignment;
create table accounts(id int, balance cash);
create table statements(id int, lines cash[]);
create domain balance as cash;
create function interest(cash) returns int stable language sql as 'select $1.amount / 100';
create type colour as (r int, g int, b int);
create function brightness(colour) returns int immutable language sql as 'select $1.r + $1.g + $1.b';
create cast (colour as int) with function brightness(colour) as implicit;
create table paints(id int, colour colour);
create type version as (major int, minor int);
create function version_cmp(version, version) returns int volatile language plpgsql as
    $$ begin perform log_it(1); return 0; end $$;
create table releases(id int, version version);
create function version_lt(version, version) returns boolean immutable language sql as 'select version_cmp($1, $2) < 0';
create function version_le(version, version) returns boolean immutable language sql as 'select version_cmp($1, $2) <= 0';
create function version_eq(version, version) returns boolean immutable language sql as 'select version_cmp($1, $2) = 0';
create function version_ge(version, version) returns boolean immutable language sql as 'select version_cmp($1, $2) >= 0';
create function version_gt(version, version) returns boolean immutable language sql as 'select version_cmp($1, $2) > 0';
create operator #< (leftarg = version, rightarg = version, function = version_lt);
create operator #<= (leftarg = version, rightarg = version, function = version_le);
create operator #= (leftarg = version, rightarg = version, function = version_eq);
create operator #>= (leftarg = version, rightarg = version, function = version_ge);
create operator #> (leftarg = version, rightarg = version, function = version_gt);
create function checked(int) returns boolean volatile language sql as 'select log_it($1) > 0';
create domain checked_int as int check (checked(value));
create type boxed as (n checked_int);
create table boxes(id int, n checked_int);
create function takes(checked_int) returns int immutable language sql as 'select $1::int';
create domain address as text check (value ~ '@');
create function numbered(a bigint default nextval('ids')) returns bigint immutable language sql as 'select a';
create function cash(text) returns int immutable language sql as 'select 1';

create type flag as (is_on boolean);
create function to_flag(int) returns flag language sql as 'select row($1 <> 0)::flag';
create cast (int as flag) with function to_flag(int) as assignment;
create table flags(id int, flag flag);
create function is_even(int) returns boolean language plpgsql as 'begin return $1 % 2 = 0; end';
create domain even as int check (is_even(value));

create view v_users as select id, name from users where age > 18;
create view v_orders as select v.name, o.total from v_users v join orders o on o.user_id = v.id;
create view v_next as select nextval('ids') as n;
create view v_random as select id, random() as r from users;
create view v_log as select log_it(id) from users;
create view v_sneaky as select sneaky_next();
create view v_scratch as select u.id from users u join scratch s on s.a = u.id;
create view v_lock as select * from users for update;
create view v_stats as select pid, state from pg_stat_activity;
create view v_now as select now() as at, count(*) from orders;
create view v_accounts as select id from accounts;
create view v_setting as select current_setting('application_name');
create materialized view totals as select status, count(*) as n from orders group by status;
create recursive view chain(id) as select id from users where manager is null
    union all select u.id from users u join chain c on u.manager = c.id;
