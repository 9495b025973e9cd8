//! Some thirty tables of twenty families: every row carries the version of its cell and who wrote it.

use super::checker::Cell;

/// Keys of each family.
pub const KEYS: u16 = 6;

/// Rows of equal meaning: some tables and views are written, all of them show the same versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    number: u16,
    /// Its name in plans.
    pub name: &'static str,
    /// Tables and views through which it is written by UPDATE.
    pub doors: &'static [&'static str],
    /// Tables and views that show it.
    pub faces: &'static [&'static str],
    /// A key is written by the session of its number alone: rules read what they write twice.
    pub owned: bool,
    /// Rows there are.
    pub keys: u16,
}

const fn family(
    number: u16,
    name: &'static str,
    doors: &'static [&'static str],
    faces: &'static [&'static str],
) -> Family {
    Family { number, name, doors, faces, owned: false, keys: KEYS }
}

/// Every family.
pub const FAMILIES: [Family; 21] = [
    family(0, "plain", &["plain"], &["plain"]),
    family(1, "ordinary", &["ordinary"], &["ordinary"]),
    family(2, "twin_a", &["a.twin"], &["a.twin"]),
    family(3, "twin_b", &["b.twin"], &["b.twin"]),
    family(4, "viewed", &["viewed", "view_one"], &["viewed", "view_one", "view_two"]),
    family(5, "parted", &["parted", "leaf"], &["parted", "leaf"]),
    family(6, "base", &["base", "derived"], &["base", "derived"]),
    family(7, "ancestor", &["ancestor"], &["ancestor", "child", "grandchild", "last"]),
    family(8, "source", &["source"], &["source", "mirror"]),
    family(9, "early", &["early"], &["early", "shade"]),
    family(10, "late", &["late"], &["late", "echo"]),
    Family { owned: true, ..family(11, "ruled", &["ruled"], &["ruled", "shadow"]) },
    family(12, "guarded", &["guarded"], &["guarded", "guard_base"]),
    family(13, "account", &[], &["account"]),
    family(14, "kin", &[], &["kin"]),
    Family { keys: 2, ..family(15, "refreshed", &[], &["refreshed", "snap"]) },
    Family { keys: 1, ..family(16, "dropped", &[], &["dropped"]) },
    family(17, "swung", &["swung"], &["swung"]),
    Family { keys: 1, ..family(18, "altered", &[], &["altered"]) },
    family(19, "stamped", &["stamped"], &["stamped"]),
    family(20, "filled", &[], &["filled"]),
];

impl Family {
    /// The family of that name.
    pub fn named(name: &str) -> Self {
        *FAMILIES.iter().find(|family| family.name == name).unwrap()
    }

    /// The cell of one of its keys.
    pub fn cell(self, key: u16) -> Cell {
        Cell(self.number * KEYS + key)
    }
}

/// Of a cell: its family and key.
pub fn owner(cell: Cell) -> (Family, u16) {
    (FAMILIES[usize::from(cell.0 / KEYS)], cell.0 % KEYS)
}

/// The table itself, or where the key lies: the leaf of the partitioned table, or the parent of what does not inherit.
pub fn place(name: &str, key: u16) -> String {
    match name {
        "leaf" => format!("leaf_{}", key / 2),
        "derived" if key < KEYS / 2 => "only base".to_owned(),
        other => other.to_owned(),
    }
}

/// The statement that adds one to a key's version, and returns both.
pub fn bump(door: &str, key: &str, writer: &str) -> String {
    let extra = if door == "stamped" { ", at = 'epoch'::timestamptz + (v + 1) * interval '1 hour'" } else { "" };
    format!("update {door} set v = v + 1, w = {writer}{extra} where k = {key} returning k, v")
}

/// What a transfer keeps.
pub const TOTAL: i64 = KEYS as i64 * 100;

const COLUMNS: &str = "(k int primary key, v bigint not null, w bigint not null)";

const SCHEMA: &str = "
create schema a; create schema b;
create view view_one as select k, v, w from viewed;
create view view_two as select k, v, w from view_one where k >= 0;
create table parted (k int primary key, v bigint not null, w bigint not null) partition by range (k);
create table leaf_0 partition of parted for values from (0) to (2);
create table upper partition of parted for values from (2) to (100) partition by range (k);
create table leaf_1 partition of upper for values from (2) to (4);
create table leaf_2 partition of upper for values from (4) to (6);
create table base (k int, v bigint not null, w bigint not null);
create table derived () inherits (base);
create table ancestor (k int primary key, v bigint, w bigint, unique (k, v, w));
create table child (k int primary key, v bigint, w bigint, unique (k, v, w),
    foreign key (k, v, w) references ancestor (k, v, w) on update cascade);
create table grandchild (k int primary key, v bigint, w bigint, unique (k, v, w),
    foreign key (k, v, w) references child (k, v, w) on update cascade);
create table last (k int primary key, v bigint, w bigint,
    foreign key (k, v, w) references grandchild (k, v, w) on update cascade);
create function reflect() returns trigger language plpgsql as
    $$ begin update mirror set v = new.v, w = new.w where k = new.k; return new; end $$;
create trigger reflecting after update on source for each row execute function reflect();
create function cast_shade() returns trigger language plpgsql as
    $$ begin execute 'update shade set v = $1, w = $2 where k = $3' using new.v, new.w, new.k; return new; end $$;
create trigger shading before update on early for each row execute function cast_shade();
create function sound() returns trigger language plpgsql as
    $$ begin update echo set v = new.v, w = new.w where k = new.k; return new; end $$;
create rule shading as on update to ruled do also update shadow set v = new.v, w = new.w where k = new.k;
create view guarded as select k, v, w from guard_base;
create function pass_on() returns trigger language plpgsql as
    $$ begin update guard_base set v = v + 1, w = new.w where k = new.k returning v into new.v; return new; end $$;
create trigger guarding instead of update on guarded for each row execute function pass_on();
create table account (k int primary key, v bigint not null, w bigint not null, amount bigint not null);
create table kin (k int primary key, v bigint not null, w bigint not null, children int not null);
create table item (id bigint primary key, parent int not null references kin);
create index on item (parent);
create function count_items() returns trigger language plpgsql as $$ begin
    if tg_op = 'INSERT' then
        update kin set v = v + 1, w = new.id, children = children + 1 where k = new.parent;
        return new;
    end if;
    update kin set children = children - 1 where k = old.parent;
    return old; end $$;
create trigger counting after insert or delete on item for each row execute function count_items();
create function add_item(key int, writer bigint, out k int, out v bigint) language plpgsql as $$ begin
    insert into item values (writer, key);
    select kin.k, kin.v into k, v from kin where kin.k = key;
    if (select children from kin where kin.k = key) > 3 then
        delete from item where id = (select min(id) from item where parent = key);
    end if; end $$;
create view swung as select k, v, w from swing_0;
create table stamped (k int primary key, v bigint not null, w bigint not null, at timestamptz not null);
create table strict (k int references plain deferrable initially deferred);
create function bump_ordinary(key int, writer bigint) returns table (kk int, vv bigint) language plpgsql as
    $$ begin return query update ordinary set v = v + 1, w = writer where k = key returning k, v; end $$;
create function bump_by_sql(key int, writer bigint) returns table (kk int, vv bigint) language sql as
    $$ update ordinary set v = v + 1, w = writer where k = key returning k, v $$;
create procedure bump_and_commit(inout key int, inout version bigint, in writer bigint) language plpgsql as
    $$ begin update ordinary set v = v + 1, w = writer where k = key returning v into version; commit; end $$;
";

/// Everything, with version 1 of every cell written by nobody.
pub fn schema(families: &[Family]) -> String {
    let plain = [
        "plain",
        "ordinary",
        "viewed",
        "source",
        "mirror",
        "early",
        "shade",
        "late",
        "echo",
        "ruled",
        "shadow",
        "guard_base",
        "swing_0",
        "swing_1",
        "refreshed",
        "dropped",
        "altered",
        "filled",
        "secret",
    ];
    let mut sql: String = plain.iter().map(|table| format!("create table {table} {COLUMNS};\n")).collect();
    sql += SCHEMA;
    if families.contains(&Family::named("late")) {
        sql += "create constraint trigger sounding after update on late deferrable initially deferred
            for each row execute function sound();";
    }
    sql += &format!("create table a.twin {COLUMNS}; create table b.twin {COLUMNS};\n");
    let keys = |table: &str| match table {
        "refreshed" => 2,
        "dropped" | "altered" => 1,
        _ => KEYS,
    };
    let related = ["a.twin", "b.twin", "parted", "ancestor", "child", "grandchild", "last"];
    for table in plain.into_iter().chain(related) {
        sql += &format!("insert into {table} select i, 1, 0 from generate_series(0, {}) i;\n", keys(table) - 1);
    }
    let (half, last) = (KEYS / 2, KEYS - 1);
    sql += &format!(
        "insert into base select i, 1, 0 from generate_series(0, {half} - 1) i;
         insert into derived select i, 1, 0 from generate_series({half}, {last}) i;
         insert into account select i, 1, 0, 100 from generate_series(0, {last}) i;
         insert into kin select i, 1, 0, 0 from generate_series(0, {last}) i;
         insert into stamped select i, 1, 0, 'epoch'::timestamptz + interval '1 hour' from generate_series(0, {last}) i;
         create materialized view snap as select k, v, w from refreshed;
         grant select, update on plain to stranger;"
    );
    sql
}

/// What a row shows behind key, version and writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extra {
    /// Nothing.
    Nothing,
    /// Another version and writer of a cell.
    Pair(Family),
    /// An amount; the sum of all rows is [`TOTAL`].
    Amount,
    /// Two numbers that are equal.
    Equal,
    /// The version, as hours behind the epoch.
    Hours,
}

/// A read: what is asked, and what its rows show.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Without a key; `$1` stands for one where `by_key` is set.
    pub sql: String,
    pub family: Family,
    pub by_key: bool,
    pub extra: Extra,
    /// `only` the rows of these keys are there.
    pub keys: std::ops::Range<u16>,
    /// Rows that are not there, or another error, are a matter of definitions that change.
    pub may_fail: bool,
}

impl Shape {
    /// Does it show the family of that name?
    pub fn shows(&self, name: &str) -> bool {
        self.family.name == name || matches!(self.extra, Extra::Pair(other) if other.name == name)
    }
}

/// All shapes that show one of these families.
pub fn shapes(families: &[Family]) -> Vec<Shape> {
    let mut shapes = Vec::new();
    for family in families {
        for face in family.faces {
            shapes.extend(of_face(*family, face));
        }
    }
    let takes = |shape: &Shape| {
        families.contains(&shape.family)
            && match shape.extra {
                Extra::Pair(other) => families.contains(&other),
                _ => true,
            }
    };
    shapes.extend(joins().into_iter().filter(takes));
    shapes
}

fn of_face(family: Family, face: &str) -> Vec<Shape> {
    let shape = |sql: String, extra, keys| Shape {
        sql,
        family,
        by_key: false,
        extra,
        keys,
        may_fail: ["dropped", "altered"].contains(&family.name),
    };
    let all = 0..family.keys;
    match face {
        "leaf" => (0..3)
            .map(|leaf| shape(format!("select k, v, w from leaf_{leaf}"), Extra::Nothing, leaf * 2..leaf * 2 + 2))
            .collect(),
        "derived" => vec![
            shape("select k, v, w from derived".into(), Extra::Nothing, KEYS / 2..KEYS),
            shape("select k, v, w from only base".into(), Extra::Nothing, 0..KEYS / 2),
        ],
        "account" => vec![
            shape("select k, v, w, amount from account".into(), Extra::Amount, all.clone()),
            shape("select k, max(v), max(w), sum(amount) from account group by k".into(), Extra::Amount, all),
        ],
        "kin" => vec![shape(
            "select k, v, w, children, (select count(*) from item where parent = k) from kin".into(),
            Extra::Equal,
            all,
        )],
        "stamped" => vec![
            shape("select k, v, w, at from stamped".into(), Extra::Hours, all.clone()),
            shape(
                "select k, v, w, at from stamped where at > '1970-01-01 00:00'::timestamptz".into(),
                Extra::Hours,
                0..0,
            ),
        ],
        _ => {
            let whole = shape(format!("select k, v, w from {face}"), Extra::Nothing, all);
            let one = Shape { sql: format!("{} where k = $1", whole.sql), by_key: true, ..whole.clone() };
            let slow = "(select count(*) from generate_series(1, 3000)) > 0";
            let slow = Shape { sql: format!("{} where {slow}", whole.sql), ..whole.clone() };
            let grouped = Shape { sql: format!("select k, max(v), min(w) from {face} group by k"), ..whole.clone() };
            vec![whole, one, slow, grouped]
        }
    }
}

fn joins() -> Vec<Shape> {
    let faces = [
        (("plain", "plain"), ("ordinary", "ordinary")),
        (("twin_a", "a.twin"), ("twin_b", "b.twin")),
        (("viewed", "view_two"), ("parted", "parted")),
        (("source", "source"), ("source", "mirror")),
        (("early", "early"), ("early", "shade")),
        (("late", "late"), ("late", "echo")),
        (("ancestor", "ancestor"), ("ancestor", "last")),
        (("ruled", "ruled"), ("ruled", "shadow")),
        (("guarded", "guarded"), ("guarded", "guard_base")),
        (("base", "base"), ("filled", "filled")),
    ];
    let join = |((one, first), (other, second)): ((&str, &str), (&str, &str))| Shape {
        sql: format!("select a.k, a.v, a.w, b.v, b.w from {first} a join {second} b on a.k = b.k"),
        family: Family::named(one),
        by_key: false,
        extra: Extra::Pair(Family::named(other)),
        keys: 0..KEYS,
        may_fail: false,
    };
    faces.into_iter().map(join).collect()
}
