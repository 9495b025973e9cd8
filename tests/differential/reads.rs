//! Random queries.

use std::collections::{BTreeSet, HashMap};

use super::{World, for_each_seed, pick};
use pgweir::catalog::Meaning;

use crate::support::{frames::query, random::Random};

const QUERIES: usize = 300;

/// What there is to read.
struct Schema {
    random: Random,
    sql: String,
    /// Tables and views, as they are called.
    names: Vec<String>,
    /// Functions of one integer, and the tables that they read, by name.
    functions: Vec<(String, Vec<String>)>,
}

impl Schema {
    fn random(seed: u64) -> Self {
        let mut schema = Self { random: Random::new(seed), sql: String::new(), names: vec![], functions: vec![] };
        schema.sql += "create schema other;\n";
        for number in 0..5 {
            schema.table(&format!("t{number}"), "(k int, v int)");
        }
        // Names that mean something else elsewhere.
        schema.table("other.t0", "(k int, v int)");
        schema.table("other.own", "(k int, v int)");
        schema.table("\"Quoted\"\"Name\"", "(k int, v int)");
        schema.table("parted", "(k int, v int) partition by range (k)");
        for leaf in 0..3 {
            schema.sql +=
                &format!("create table leaf{leaf} partition of parted for values from ({leaf}) to ({leaf} + 1);\n");
            schema.names.push(format!("leaf{leaf}"));
        }
        schema.table("base", "(k int, v int)");
        schema.table("derived", "() inherits (base)");
        for number in 0..6 {
            let query = schema.query(2);
            let kind = *pick(&mut schema.random, &["view", "view", "materialized view"]);
            schema.sql += &format!("create {kind} seen{number} as {query};\n");
            schema.names.push(format!("seen{number}"));
            schema.function(number);
        }
        schema
    }

    fn table(&mut self, name: &str, body: &str) {
        self.sql += &format!("create table {name} {body};\n");
        self.names.push(name.to_owned());
    }

    /// A function that reads, under a label that may be true or not.
    fn function(&mut self, number: usize) {
        let table = pick(&mut self.random, &self.names[..12]).clone();
        let name = format!("f{number}");
        let label = *pick(&mut self.random, &["stable", "immutable", "volatile"]);
        let body = format!("select (x + coalesce(max(v), 0))::int from {table}");
        self.sql += &match self.random.below(4) {
            0 => format!("create function {name}(x int) returns int {label} language sql as $f$ {body} $f$;\n"),
            1 => format!("create function {name}(x int) returns int {label} begin atomic {body}; end;\n"),
            2 => format!(
                "create function {name}(x int) returns int {label} language plpgsql as $f$ begin return ({body}); end $f$;\n"
            ),
            _ => {
                let inner = self.functions.last().map_or("abs".to_owned(), |(name, _)| name.clone());
                let reads = self.functions.last().map(|(_, reads)| reads.clone()).unwrap_or_default();
                self.sql += &format!(
                    "create function {name}(x int) returns int {label} language sql as 'select {inner}(x)';\n"
                );
                self.functions.push((name, reads));
                return;
            }
        };
        self.functions.push((name, vec![table]));
    }

    fn name(&mut self) -> String {
        pick(&mut self.random, &self.names).clone()
    }

    /// Something that yields an integer.
    fn value(&mut self, column: &str, depth: usize) -> String {
        match self.random.below(9) {
            0 if depth > 0 => format!("(select max(k) from ({}) s)", self.query(depth - 1)),
            1 if !self.functions.is_empty() => format!("{}({column})", pick(&mut self.random, &self.functions).0),
            2 => format!("coalesce({column}, 1)"),
            3 => format!("case when {column} > 1 then 1 else (select count(*)::int from {}) end", self.name()),
            4 => format!("greatest({column}, 2) + 1"),
            5 => format!("(array(select v from {}))[1]", self.name()),
            _ => column.to_owned(),
        }
    }

    /// What stands behind FROM, with columns `k` and `v`.
    fn item(&mut self, alias: &str, depth: usize) -> String {
        match self.random.below(10) {
            0 | 1 if depth > 0 => format!("({}) {alias}", self.query(depth - 1)),
            2 => format!("only {} {alias}", self.name_of_table()),
            3 => format!("(values (1, 2), (3, 4)) {alias}(k, v)"),
            4 if depth > 0 => format!("lateral (select k, v from {} where k > 0) {alias}", self.name()),
            5 if depth > 0 => format!("(table {}) {alias}", self.name()),
            6 => format!("generate_series(1, 3) {alias}(k) cross join (select v from {}) of_{alias}", self.name()),
            _ => format!("{} {alias}", self.name()),
        }
    }

    fn name_of_table(&mut self) -> String {
        (*pick(&mut self.random, &["t0", "base", "parted", "derived", "other.t0"])).to_owned()
    }

    fn condition(&mut self, column: &str, depth: usize) -> String {
        match self.random.below(8) {
            0 if depth > 0 => format!("exists (select from {} where k = {column})", self.item("e", depth - 1)),
            1 if depth > 0 => format!("{column} in (select k from ({}) i)", self.query(depth - 1)),
            2 => format!("{column} = any (array(select k from {}))", self.name()),
            3 => format!("{} > 0", self.value(column, depth)),
            4 => format!("not {column} is distinct from (select min(v) from {})", self.name()),
            5 => "true".to_owned(),
            _ => format!("{column} > 0"),
        }
    }

    /// A query with the columns `k` and `v`.
    fn query(&mut self, depth: usize) -> String {
        match self.random.below(10) {
            0 if depth > 0 => {
                let set = *pick(&mut self.random, &["union", "union all", "intersect", "except"]);
                format!("({}) {set} ({})", self.query(depth - 1), self.query(depth - 1))
            }
            1 if depth > 0 => {
                // A name that hides a table, or that is hidden by one inside of itself.
                let cte = (*pick(&mut self.random, &["t0", "t1", "seen0", "c"])).to_owned();
                let inside = self.query(depth - 1);
                let outside = self.name();
                let word = *pick(&mut self.random, &["", "materialized", "not materialized"]);
                match self.random.below(3) {
                    0 => format!("with {cte} as {word} ({inside}) select x.k, x.v from {cte} x, {outside} y"),
                    1 => format!(
                        "with recursive {cte}(k, v) as ({inside} union select k + 1, v from {cte} where k < 3)
                         select k, v from {cte}"
                    ),
                    _ => format!(
                        "with a as (select k, v from {outside}), {cte} as (select a.k, a.v from a join ({inside}) i on true)
                         select k, v from {cte}"
                    ),
                }
            }
            2 => {
                let (one, other) = (self.item("x", depth), self.item("y", depth));
                let join = *pick(&mut self.random, &["join", "left join", "full join"]);
                format!("select x.k, {} as v from {one} {join} {other} on x.k = y.k", self.value("y.v", depth))
            }
            3 => format!("select k, max(v) as v from {} group by k having max(v) > 0", self.item("g", depth)),
            4 => format!("select k, sum(v) over (partition by k)::int as v from {}", self.item("w", depth)),
            5 => format!("select (x).k, (x).v from (select x from {} x) s", self.name()),
            6 => format!(
                "select k, v from {} order by (select max(v) from {}) limit 3",
                self.item("d", depth),
                self.name()
            ),
            _ => {
                let condition = self.condition("x.k", depth);
                format!(
                    "select x.k, {} as v from {} where {condition}",
                    self.value("x.v", depth),
                    self.item("x", depth)
                )
            }
        }
    }
}

/// What PostgreSQL has rewritten the query to; `None` if it refuses it.
fn oracle(world: &mut World, sql: &str) -> Option<Vec<String>> {
    let reply = world.session.exchange(&query(&format!("prepare fuzzed as {sql}")));
    world.session.query("deallocate all");
    if reply.error().is_some() {
        return None;
    }
    Some(reply.frames.iter().filter(|frame| frame.tag == b'N').filter_map(|frame| frame.field(b'D')).collect())
}

/// Relations and functions in these trees.
fn uses(trees: &[String]) -> (BTreeSet<u32>, BTreeSet<u32>) {
    let (mut relations, mut functions) = (BTreeSet::new(), BTreeSet::new());
    for tree in trees {
        let mut words = tree.split([' ', '}', ')']).peekable();
        while let Some(word) = words.next() {
            let mut number = || words.peek().and_then(|word| word.parse::<u32>().ok()).filter(|oid| *oid >= 16_384);
            match word {
                ":relid" => relations.extend(number()),
                ":funcid" | ":opfuncid" | ":aggfnoid" | ":winfnoid" => functions.extend(number()),
                _ => {}
            }
        }
    }
    (relations, functions)
}

/// What the functions read that are called, by oid.
fn readers(world: &mut World, schema: &Schema) -> HashMap<u32, Vec<u32>> {
    let mut oid = |kind: &str, name: &str| {
        world.session.value(&format!("select coalesce(to_reg{kind}('{name}')::oid, 0)")).parse::<u32>().unwrap()
    };
    let mut readers = HashMap::new();
    for (name, tables) in &schema.functions {
        readers.insert(oid("proc", name), tables.iter().map(|table| oid("class", table)).collect());
    }
    readers
}

#[test]
fn a_write_to_whatever_a_query_reads_voids_its_answer() {
    let (mut cacheable, mut all, mut missed) = (0, 0, Vec::new());
    for_each_seed(|seed| {
        let mut schema = Schema::random(seed);
        let mut world = World::of(&schema.sql);
        let readers = readers(&mut world, &schema);
        world.session.rows("set debug_print_rewritten = on; set debug_pretty_print = off");
        for _ in 0..QUERIES {
            let sql = schema.query(2);
            world.session.rows("set client_min_messages = log");
            let found = oracle(&mut world, &sql);
            world.session.rows("set client_min_messages = warning");
            let Some(trees) = found else { continue };
            let (mut relations, functions) = uses(&trees);
            all += 1;
            let meaning = world.meaning(&sql);
            let Ok(deps) = &meaning.cacheable else { continue };
            cacheable += 1;
            relations.extend(functions.iter().filter_map(|oid| readers.get(oid)).flatten());
            let lacking: Vec<u32> = relations.into_iter().filter(|oid| deps.iter().all(|dep| dep.0 != *oid)).collect();
            if let Some(oid) = lacking.first() {
                let name = world.name(*oid);
                missed.push(format!("SEED={seed}: {name} is not among what this hangs on: {sql}"));
            }
            let trees = || trees.iter().map(String::as_str);
            if let Some(doubt) = world.snapshot.missed(trees(), &meaning) {
                missed.push(format!("SEED={seed}: {doubt:?} is found in the tree of {sql}"));
            }
            let nothing = Meaning { cacheable: Ok(Box::default()), ..Meaning::clone(&meaning) };
            if world.snapshot.missed(trees(), &nothing).is_none() {
                missed.push(format!("SEED={seed}: that all is left out goes unseen: {sql}"));
            }
        }
    });
    println!("{all} queries, {cacheable} of them cacheable");
    assert!(missed.is_empty(), "{} missed\n{}", missed.len(), missed[..missed.len().min(5)].join("\n"));
    assert!(cacheable > 20 && cacheable * 10 > all, "this proves little");
}
