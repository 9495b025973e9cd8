//! Twenty tables whose rows show the versions of eleven families of cells, and the ways to read and to write them.

use super::checker::Cell;

/// Keys of each family.
pub const KEYS: u16 = 16;

/// Rows of equal meaning: one table is written, several tables and views show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    number: u16,
    /// What is written.
    pub table: &'static str,
    /// Further tables and views through which it may be written.
    pub doors: &'static [&'static str],
    /// Tables and views that show the same versions.
    pub faces: &'static [&'static str],
    /// Its keys are written by one session each.
    pub owned: bool,
}

const fn family(
    number: u16,
    table: &'static str,
    doors: &'static [&'static str],
    faces: &'static [&'static str],
) -> Family {
    Family { number, table, doors, faces, owned: false }
}

/// Every family.
pub const FAMILIES: [Family; 11] = [
    family(0, "plain_1", &[], &["plain_1"]),
    family(1, "plain_2", &[], &["plain_2"]),
    family(2, "plain_3", &[], &["plain_3"]),
    family(3, "viewed_1", &["view_1"], &["viewed_1", "view_1", "view_of_view_1"]),
    family(4, "viewed_2", &["view_2"], &["viewed_2", "view_2", "view_of_view_2"]),
    family(5, "parted", &["leaf"], &["parted", "leaf"]),
    family(6, "parent", &[], &["parent", "child", "grandchild"]),
    family(7, "source", &[], &["source", "mirror"]),
    family(8, "late", &[], &["late", "echo"]),
    Family { owned: true, ..family(9, "ruled", &[], &["ruled", "shadow"]) },
    Family { owned: true, ..family(10, "keeper", &[], &["keeper", "kept"]) },
];

/// The family whose rows come and go.
pub const KEEPER: Family = FAMILIES[10];
/// The family that is emptied and refilled as a whole.
pub const REFILLED: Family = FAMILIES[2];

impl Family {
    /// The cell of one of its keys.
    pub fn cell(self, key: u16) -> Cell {
        Cell(self.number * KEYS + key)
    }
}

/// The table itself, or the leaf that holds the key.
pub fn place(name: &str, key: u16) -> String {
    if name == "leaf" { format!("leaf_{}", key / 6) } else { name.to_owned() }
}

/// The statement that adds one to a key's version, and returns it.
pub fn bump(door: &str, key: &str, writer: &str) -> String {
    format!("update {door} set v = v + 1, w = {writer} where k = {key} returning v")
}

const COLUMNS: &str = "(k int primary key, v bigint not null, w bigint not null)";

/// Everything, with version 1 of every cell written by nobody.
pub fn schema() -> String {
    let plain = [
        "plain_1", "plain_2", "plain_3", "viewed_1", "viewed_2", "source", "mirror", "late", "echo", "ruled", "shadow",
        "keeper",
    ];
    let mut sql: String = plain.iter().map(|table| format!("create table {table} {COLUMNS};\n")).collect();
    for number in 1..=2 {
        sql += &format!(
            "create view view_{number} as select k, v, w from viewed_{number};
             create view view_of_view_{number} as select k, v, w from view_{number} where k >= 0;\n"
        );
    }
    sql += "create table parted (k int primary key, v bigint not null, w bigint not null) partition by range (k);
        create table leaf_0 partition of parted for values from (0) to (6);
        create table leaf_1 partition of parted for values from (6) to (12);
        create table leaf_2 partition of parted for values from (12) to (18);
        create table parent (k int primary key, v bigint, w bigint, unique (k, v, w));
        create table child (k int primary key, v bigint, w bigint, unique (k, v, w),
            foreign key (k, v, w) references parent (k, v, w) on update cascade);
        create table grandchild (k int primary key, v bigint, w bigint,
            foreign key (k, v, w) references child (k, v, w) on update cascade);
        create table kept (k int primary key references keeper on delete cascade, v bigint, w bigint);
        create function reflect() returns trigger language plpgsql as
            $$ begin update mirror set v = new.v, w = new.w where k = new.k; return new; end $$;
        create trigger reflecting after update on source for each row execute function reflect();
        create function sound() returns trigger language plpgsql as
            $$ begin update echo set v = new.v, w = new.w where k = new.k; return new; end $$;
        create constraint trigger sounding after update on late deferrable initially deferred
            for each row execute function sound();
        create rule shading as on update to ruled do also update shadow set v = new.v, w = new.w where k = new.k;
        create function bump_plain_2(key int, writer bigint) returns bigint language plpgsql as $$
            declare version bigint;
            begin update plain_2 set v = v + 1, w = writer where k = key returning v into version; return version; end $$;\n";
    let filled = plain.into_iter().chain(["parted", "parent", "child", "grandchild", "kept"]);
    for table in filled {
        sql += &format!("insert into {table} select i, 1, 0 from generate_series(0, {}) i;\n", KEYS - 1);
    }
    sql
}

/// A read: its text without the key, and the families of its (v, w) pairs in order.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Ends with `where k = $1` where `by_key` is set.
    pub sql: String,
    pub families: Vec<Family>,
    pub by_key: bool,
    /// Keys that must be there, unless rows of the family come and go.
    pub keys: std::ops::Range<u16>,
}

/// All shapes.
pub fn shapes() -> Vec<Shape> {
    let mut shapes = Vec::new();
    for family in FAMILIES {
        for face in family.faces {
            if *face == "leaf" {
                for leaf in 0..3 {
                    let sql = format!("select k, v, w from leaf_{leaf}");
                    let keys = leaf * 6..KEYS.min(leaf * 6 + 6);
                    shapes.push(Shape { sql, families: vec![family], by_key: false, keys });
                }
                continue;
            }
            let all = Shape {
                sql: format!("select k, v, w from {face}"),
                families: vec![family],
                by_key: false,
                keys: 0..KEYS,
            };
            let one = Shape { sql: format!("{} where k = $1", all.sql), by_key: true, ..all.clone() };
            shapes.extend([all, one]);
        }
    }
    shapes.extend(joins());
    shapes
}

fn joins() -> impl Iterator<Item = Shape> {
    let faces = [
        [(0, "plain_1"), (1, "plain_2")],
        [(3, "view_of_view_1"), (5, "parted")],
        [(2, "plain_3"), (8, "echo")],
        [(7, "source"), (7, "mirror")],
        [(8, "late"), (8, "echo")],
        [(6, "parent"), (6, "grandchild")],
        [(9, "ruled"), (9, "shadow")],
    ];
    faces.into_iter().map(|[(one, first), (other, second)]| Shape {
        sql: format!("select a.k, a.v, a.w, b.v, b.w from {first} a join {second} b on a.k = b.k"),
        families: vec![FAMILIES[one], FAMILIES[other]],
        by_key: false,
        keys: 0..KEYS,
    })
}
