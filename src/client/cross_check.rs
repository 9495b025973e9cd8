//! Statements whose answers are kept are put before the primary, too (`[cache] cross_check`).

use std::sync::Arc;

use super::{Client, facts::Facts, session::Step};
use crate::{
    catalog::Meaning,
    cluster::cross_check::Case,
    protocol::frontend,
    session::{
        Prepared,
        request::{Request, RequestKind},
    },
    sql::Statement,
};

impl Client {
    /// Has the analysis been wrong about statements of this shape?
    pub(super) fn is_doubtful(&self, statement: &Statement) -> bool {
        let checks = self.session.database.cross_checks.as_ref();
        checks.is_some_and(|checks| checks.doubts(statement.fingerprint))
    }

    /// The answer to this request is to be kept.
    pub(super) fn cross_check(&self, request: Request, facts: &Facts) {
        let (Some(statement), Some(meaning)) = (&facts.statement, &facts.meaning) else { return };
        if self.session.database.cross_checks.is_none() {
            return;
        }
        if request.kind == RequestKind::Simple {
            let Some(bytes) = self.io.inbox.unread().get(..request.bytes) else { return };
            let Ok(text) = frontend::query(bytes) else { return };
            return self.propose(statement, meaning, text, &[]);
        }
        let prepared = self.session.steps.iter().find_map(|located| match &located.step {
            Step::Bind { prepared: Some(prepared), .. } => Some(prepared),
            _ => None,
        });
        if let Some(prepared) = prepared {
            self.cross_check_prepared(prepared, meaning);
        }
    }

    /// The same of one statement of a batch.
    pub(super) fn cross_check_prepared(&self, prepared: &Prepared, meaning: &Arc<Meaning>) {
        self.propose(&prepared.statement, meaning, &prepared.text, prepared.types.get(2..).unwrap_or_default());
    }

    fn propose(&self, statement: &Statement, meaning: &Arc<Meaning>, text: &[u8], types: &[u8]) {
        let session = &self.session;
        let (Some(checks), Some(catalog)) = (&session.database.cross_checks, &session.catalog) else { return };
        if !session.has_standard_strings() {
            return;
        }
        checks.propose(statement.fingerprint, session.path, catalog, || {
            let text = std::str::from_utf8(text).ok().filter(|text| text.is_ascii() || session.speaks_utf8())?;
            let (types, _) = types.as_chunks::<4>();
            Some(Case {
                shape: statement.fingerprint,
                text: text.into(),
                types: types.iter().map(|oid| u32::from_be_bytes(*oid)).collect(),
                path: session.path,
                meaning: Arc::clone(meaning),
                catalog: Arc::clone(catalog),
            })
        });
    }
}
