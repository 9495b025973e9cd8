//! Code of users that PostgreSQL applies without its name being written: the functions of casts, and the operators
//! behind DISTINCT, GROUP BY, ORDER BY, UNION, USING, IN and CASE.
//!
//! Where such code is volatile, a statement runs it only if it has to do with a type that the code is for. A value of
//! a user's type comes from a column, or from a function or a cast that is written with its type.

use std::collections::HashSet;

use super::{
    AccessReason, Bypass, Snapshot,
    builtin::FIRST_USER_OID,
    function::Conduct,
    judge::Judge,
    names::Path,
    rows::{SnapshotRows, UnseenRow},
};

/// Operators that are applied without being written: by ORDER BY, DISTINCT, GROUP BY, IN, USING.
const UNWRITTEN_OPERATORS: &[&str] = &["<", "<=", "=", ">", ">=", "<>"];

/// What may run unseen.
#[derive(Default)]
pub(super) struct Unseen {
    /// Some of it may give another answer at another time.
    pub(super) is_unsteady: bool,
    /// Some of it is for no type of a user, so that it may be at work anywhere.
    is_everywhere: bool,
    /// Types whose values may bring it about, alone or as a part of others.
    types: HashSet<u32>,
    /// All of the volatile code together.
    conduct: Conduct,
}

impl Unseen {
    /// `snapshot` is complete but for this.
    pub(super) fn new(rows: &SnapshotRows, snapshot: &Snapshot) -> Self {
        let is_unwritten = |name: &str| UNWRITTEN_OPERATORS.contains(&name);
        let operators = rows.operators.iter().filter(|row| is_unwritten(&row.name));
        let operators = operators.map(|row| UnseenRow { function: row.function, types: row.types.clone() });
        let mut unseen = Self::default();
        for code in rows.unseen.iter().cloned().chain(operators).filter(|code| code.function >= FIRST_USER_OID) {
            unseen.is_unsteady |= snapshot.functions.conduct(code.function).bypass.is_some();
            let mut judge = Judge::new(snapshot, &Path::Anywhere);
            judge.runs_unnamed(code.function);
            if judge.verdict.primary.is_none() {
                continue;
            }
            let found = judge.verdict;
            unseen.conduct.merge(Conduct {
                primary: Some(AccessReason::UnseenCode),
                bypass: Some(Bypass::UserOperator),
                reach: found.reach,
                effects: found.effects,
                catalog_change: found.catalog_change,
                ..Conduct::default()
            });
            let users = code.types.iter().copied().filter(|oid| *oid >= FIRST_USER_OID);
            let known = unseen.types.len();
            unseen.types.extend(users.clone());
            unseen.is_everywhere |= known == unseen.types.len() && users.count() == 0;
        }
        unseen.spread(rows);
        unseen
    }

    /// What is made of such a type holds its values.
    fn spread(&mut self, rows: &SnapshotRows) {
        loop {
            let known = self.types.len();
            let made_of = rows.types.iter().filter(|row| row.parts.iter().any(|part| self.types.contains(part)));
            let wholes: Vec<u32> = made_of.map(|row| row.oid).collect();
            self.types.extend(wholes);
            if self.types.len() == known {
                return;
            }
        }
    }
}

impl Judge<'_> {
    /// The statement has to do with values of that type.
    pub(super) fn holds(&mut self, type_oid: u32) {
        if self.snapshot.unseen.types.contains(&type_oid) {
            self.runs_unseen();
        }
    }

    /// The statement computes something.
    pub(super) fn computes(&mut self) {
        let unseen = &self.snapshot.unseen;
        if unseen.is_everywhere {
            self.runs_unseen();
        }
        if unseen.is_unsteady {
            self.verdict.bypass(Bypass::UserOperator);
        }
    }

    fn runs_unseen(&mut self) {
        let conduct = self.snapshot.unseen.conduct.clone();
        self.behaves(conduct);
    }
}

/// Is an operator noticed by the types of its operands, whether it is written or not?
pub(super) fn is_noticed_by_type(name: &str, types: &[u32]) -> bool {
    UNWRITTEN_OPERATORS.contains(&name) && types.iter().any(|oid| *oid >= FIRST_USER_OID)
}
