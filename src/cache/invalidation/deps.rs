//! What one answer depends on.

use crate::catalog::{RelationOid, Row};

/// Relations, and of one of them perhaps no more than a row.
#[derive(Clone, Copy, Debug, Default)]
pub struct Deps<'a> {
    /// Each of them once.
    pub relations: &'a [RelationOid],
    /// Of its relation nothing else is read.
    pub row: Option<Row>,
}

impl<'a> From<&'a [RelationOid]> for Deps<'a> {
    fn from(relations: &'a [RelationOid]) -> Self {
        Self { relations, row: None }
    }
}

impl<'a, const N: usize> From<&'a [RelationOid; N]> for Deps<'a> {
    fn from(relations: &'a [RelationOid; N]) -> Self {
        Self { relations, row: None }
    }
}

impl<'a> From<&'a Vec<RelationOid>> for Deps<'a> {
    fn from(relations: &'a Vec<RelationOid>) -> Self {
        Self { relations, row: None }
    }
}
