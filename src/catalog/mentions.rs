//! What functions labelled STABLE or IMMUTABLE name in their bodies: PostgreSQL believes the label, a hot standby
//! does not.
//!
//! Such a function may not write by itself, but may call one that does, take an advisory lock, or read what
//! replicas do not have. A body is not parsed: what it does needs a name, and each name is looked up.

use std::collections::{HashMap, HashSet};

use super::{
    AccessReason, Bypass,
    builtin::{self, FIRST_USER_OID},
    function::Conduct,
    judge::{Judge, Verdict},
    names::{Found, Names, Path, fixed_path},
    rows::{FunctionRow, SnapshotRows},
    source,
};
use crate::sql::{Looks, Mention, Name, mentions};

/// What is known of the body of one function.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// These names, and nothing else that could matter.
    Names {
        names: Vec<Mention>,
        /// Where they are looked up, if not along the path of the caller.
        path: Option<Path>,
    },
    /// It runs text that it puts together, or is written in a language that is not understood here.
    Opaque,
}

/// The bodies of all user functions whose label promises that they change nothing, without those written in C; and of
/// those without a label whose words cannot change anything.
pub(super) struct Sources(HashMap<u32, Source>);

impl Sources {
    pub(super) fn new(rows: &SnapshotRows, names: &Names) -> Self {
        let known = Known::new(rows);
        let is_labelled = |row: &&FunctionRow| {
            let is_body = row.oid >= FIRST_USER_OID && row.kind != 'a' && row.body.is_none();
            is_body && (row.volatility != 'v' || source::asks_only(row))
        };
        let source = |row: &FunctionRow| Some((row.oid, Source::new(row, names, &known)?));
        Self(rows.functions.iter().filter(is_labelled).filter_map(source).collect())
    }

    pub(super) fn get(&self, oid: u32) -> Option<&Source> {
        self.0.get(&oid)
    }
}

impl Source {
    /// `None`: there is nothing to look into, and the label is believed.
    fn new(row: &FunctionRow, names: &Names, known: &Known<'_>) -> Option<Self> {
        match row.language.as_str() {
            "c" if row.source.as_deref().is_some_and(builtin::runs_text) => Some(Self::Opaque),
            "c" | "internal" => None,
            "sql" | "plpgsql" => Some(Self::of_body(row, names, known)),
            language => {
                let computes = row.source.as_deref().is_some_and(|source| computes(language, source));
                (!computes).then_some(Self::Opaque)
            }
        }
    }

    fn of_body(row: &FunctionRow, names: &Names, known: &Known<'_>) -> Self {
        let Some(mut mentioned) = row.source.as_deref().and_then(mentions) else {
            return Self::Opaque;
        };
        if mentioned.iter().any(|mention| &*mention.name.name == "execute") {
            return Self::Opaque;
        }
        mentioned.retain(|mention| known.matters(mention));
        mentioned.sort_unstable();
        mentioned.dedup();
        let path = row.search_path.as_deref().map(|setting| fixed_path(setting, names));
        Self::Names { names: mentioned, path }
    }
}

/// Does a body in another language compute, without talking to the database? Each language has one word for that;
/// for those whose word is not known nothing is promised.
fn computes(language: &str, source: &str) -> bool {
    let word = match language {
        "plperl" | "plperlu" | "pltcl" | "pltclu" => "spi_",
        "plpython3u" | "plpythonu" | "plpython2u" => "plpy",
        "plv8" => "plv8",
        _ => return false,
    };
    !source.contains(word)
}

/// Names of objects; whatever else a body names is a key word, a variable or a column.
struct Known<'r> {
    names: HashSet<&'r str>,
    operators: HashSet<&'r str>,
}

impl<'r> Known<'r> {
    fn new(rows: &'r SnapshotRows) -> Self {
        let relations = rows.relations.iter().map(|row| row.name.as_str());
        let functions = rows.functions.iter().map(|row| row.name.as_str());
        let types = rows.types.iter().filter(|row| row.oid >= FIRST_USER_OID).map(|row| row.name.as_str());
        Self {
            names: relations.chain(functions).chain(types).collect(),
            operators: rows.operators.iter().map(|row| row.name.as_str()).collect(),
        }
    }

    fn matters(&self, mention: &Mention) -> bool {
        match mention.looks {
            Looks::Operator => self.operators.contains(&*mention.name.name),
            Looks::Called | Looks::Word => self.names.contains(&*mention.name.name),
        }
    }
}

impl<'s> Judge<'s> {
    /// A function runs without being called by name. VOLATILE is what a function is whose author has said nothing, so
    /// here the body decides if it can.
    pub(super) fn runs_unnamed(&mut self, function: u32) {
        let functions = &self.snapshot.functions;
        let is_unlabelled = functions.get(function).is_some_and(|row| row.volatility == 'v');
        let body = functions.source(function).filter(|_| is_unlabelled);
        match body {
            Some(Source::Names { names, path }) if self.found_in(names, path.as_ref()).primary.is_none() => {
                self.verdict.bypass(Bypass::UserFunction);
            }
            _ => self.function(function),
        }
    }

    /// What a look at these names finds, apart from what is found otherwise.
    fn found_in(&self, names: &[Mention], path: Option<&'s Path>) -> Verdict {
        let mut probe = self.probe(path.unwrap_or(self.path));
        names.iter().for_each(|mention| probe.mentioned(mention));
        probe.verdict
    }

    /// Looks up what the body of a function names. Nothing of it is certain, so it tells only whether the label lies.
    pub(super) fn look_into(&mut self, function: u32) {
        let Some(source) = self.snapshot.functions.source(function) else { return };
        let Source::Names { names, path } = source else {
            return self.opaque(AccessReason::OpaqueFunction, Bypass::UserFunction);
        };
        if self.is_probe {
            let outer = self.path;
            self.path = path.as_ref().unwrap_or(outer);
            names.iter().for_each(|mention| self.mentioned(mention));
            self.path = outer;
            return;
        }
        let found = self.found_in(names, path.as_ref());
        // Of what it reads its label knows nothing.
        if !found.reads.is_empty() {
            self.verdict.bypass(Bypass::UserFunction);
        }
        if found.primary.is_some() {
            self.behaves(Conduct {
                primary: Some(AccessReason::MislabelledFunction),
                bypass: Some(Bypass::UserFunction),
                reach: found.reach,
                effects: found.effects,
                catalog_change: found.catalog_change,
                ..Conduct::default()
            });
        }
    }

    fn mentioned(&mut self, mention: &Mention) {
        let name = &mention.name;
        if mention.looks == Looks::Operator {
            return self.operator(name);
        }
        match self.snapshot.names.relation(name, self.path) {
            Found::One(oid) => self.read(oid),
            // Views of the server have common names.
            Found::Several(oids) => {
                oids.into_iter().filter(|oid| *oid >= FIRST_USER_OID).for_each(|oid| self.read(oid));
            }
            Found::Nothing => {}
        }
        match self.snapshot.names.named_type(name, self.path) {
            Found::One(oid) => self.uses_type(oid),
            Found::Several(oids) => oids.into_iter().for_each(|oid| self.uses_type(oid)),
            Found::Nothing => {}
        }
        match mention.looks {
            Looks::Called if !is_harmless(mention) => {
                let candidates = self.snapshot.names.functions(name, self.path);
                for oid in candidates {
                    self.function(oid);
                    self.stands_in(oid);
                }
            }
            _ => self.field(&name.name),
        }
    }
}

/// A function of the server that depends on where it runs, in a way that does not matter to the author of a body.
fn is_harmless(mention: &Mention) -> bool {
    let Mention { name: Name { schema, name }, argument, .. } = mention;
    if schema.as_deref().is_some_and(|schema| schema != "pg_catalog") {
        return false;
    }
    match &**name {
        // Settings with a dot in their names follow the client.
        "current_setting" => argument.as_deref().is_some_and(|setting| setting.contains('.')),
        name => builtin::only_varies(name),
    }
}
