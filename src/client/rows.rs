//! The rows that a request is about, by the keys in its text or its parameters.

use crate::{
    catalog::{Keyed, Meaning, Row, Writes},
    protocol::frontend,
    sql::{Source, literal_at},
};

/// The values of a Bind, and the types that its statement was given.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bound<'a> {
    /// The body of the message behind its two names.
    values: &'a [u8],
    /// As Parse has them: a count, then a number each.
    types: &'a [u8],
    /// No definition has changed since it was parsed.
    is_current: bool,
}

impl<'a> Bound<'a> {
    /// Behind a change of definitions nobody knows which types the server has found out: those of its `Parse` stay.
    pub(super) fn new(values: &'a [u8], types: &'a [u8], is_current: bool) -> Self {
        Self { values, types, is_current }
    }

    /// 0: the server finds out. `None`: it has found out something else, perhaps.
    fn declared(self, number: u16) -> Option<u32> {
        let (types, _) = self.types.get(2..).unwrap_or_default().as_chunks::<4>();
        let declared = types.get(usize::from(number)).map_or(0, |oid| u32::from_be_bytes(*oid));
        (declared != 0 || self.is_current).then_some(declared)
    }
}

/// The only row that is read, where it is one.
pub(super) fn read(meaning: &Meaning, text: &[u8], bound: Option<Bound<'_>>) -> Option<Row> {
    let keyed = meaning.keyed.as_ref()?;
    match *keyed.sources() {
        [source] => find(keyed, source, text, bound),
        _ => None,
    }
}

/// All rows that are written; `None` where one of them is not known.
pub(super) fn written(meaning: &Meaning, text: &[u8], bound: Option<Bound<'_>>) -> Option<Vec<Row>> {
    let keyed = meaning.keyed.as_ref().filter(|_| matches!(meaning.writes, Writes::Static(_)))?;
    keyed.sources().iter().map(|source| find(keyed, *source, text, bound)).collect()
}

fn find(keyed: &Keyed, source: Source, text: &[u8], bound: Option<Bound<'_>>) -> Option<Row> {
    match source {
        Source::Literal(number) => keyed.row_of_literal(literal_at(std::str::from_utf8(text).ok()?, number)?),
        Source::Parameter { number, is_alone } => {
            let bound = bound?;
            let value = frontend::parameters(bound.values).nth(usize::from(number))??;
            let is_binary = frontend::is_binary(bound.values, number)?;
            keyed.row_of_parameter(bound.declared(number)?, is_alone, is_binary, value)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        catalog::{KeyRow, KeyType, RelationOid, RelationRow, RoleRow, SchemaRow, Snapshot, SnapshotRows},
        sql::Analyzer,
    };

    /// Tables `n`, `u` and `t` with keys of type int4, uuid and varchar.
    fn snapshot() -> Snapshot {
        let relation = |oid, name: &str| RelationRow {
            oid,
            name: name.into(),
            schema: 2200,
            kind: 'r',
            persistence: 'p',
            row_security: false,
            generated_columns: false,
            unstable_columns: false,
            row_type: oid + 1000,
            security_invoker: false,
        };
        let key = |relation, type_oid| KeyRow { relation, column: "id".into(), type_oid };
        Snapshot::new(SnapshotRows {
            utf8: true,
            search_path: Some("public".into()),
            schemas: vec![SchemaRow { oid: 2200, name: "public".into(), users: vec![0] }],
            roles: vec![RoleRow { oid: 10, name: "app".into(), superuser: false }],
            relations: vec![relation(20_001, "n"), relation(20_002, "u"), relation(20_003, "t")],
            keys: vec![key(20_001, 23), key(20_002, 2950), key(20_003, 1043)],
            ..SnapshotRows::default()
        })
    }

    fn found(text: &str, bound: Option<Bound<'_>>) -> Option<Vec<Row>> {
        let statement = Analyzer::default().analyze(text);
        let meaning = snapshot().meaning(&statement, "app");
        match written(&meaning, text.as_bytes(), bound) {
            None => read(&meaning, text.as_bytes(), bound).map(|row| vec![row]),
            rows => rows,
        }
    }

    fn number(number: i64) -> Option<Vec<Row>> {
        let number = KeyType::Integer.of_binary(&number.to_be_bytes())?;
        Some(vec![Row { relation: RelationOid(20_001), key: KeyType::Integer.named("id"), number }])
    }

    fn text(text: &str) -> Option<Vec<Row>> {
        let number = KeyType::Text.of_text(text.as_bytes())?;
        Some(vec![Row { relation: RelationOid(20_003), key: KeyType::Text.named("id"), number }])
    }

    #[test]
    fn a_literal_is_found_in_the_text_of_each_request() {
        let analyzer = Analyzer::default();
        let snapshot = snapshot();
        // All of one shape: what is remembered of the first is all that is known of the others.
        for (value, expected) in [("5", 5), ("60", 60), ("00000000000", 0), ("9223372036854775807", i64::MAX)] {
            for other in ["'x'", "'it''s 7'"] {
                let text = format!("select v -- 1 'a'\n from n where w = {other} /* 2 */ and id = {value}");
                let meaning = snapshot.meaning(&analyzer.analyze(&text), "app");
                assert_eq!(read(&meaning, text.as_bytes(), None).map(|row| vec![row]), number(expected), "{text}");
            }
        }
        let too_long = "select v from n where id = 9223372036854775808";
        assert_eq!(found(too_long, None), None);
    }

    #[test]
    fn a_literal_that_would_have_to_be_understood_is_no_key() {
        for (sql, expected) in [
            ("select 1 from n where id = '5'", number(5)),
            ("delete from n where id = '-5'", number(-5)),
            ("delete from n where id = ' 5'", None),
            ("delete from n where id = 5.0", None),
            ("delete from n where id = 5e0", None),
            ("delete from n where id = 0x5", None),
            ("delete from n where id = E'5'", None),
            ("delete from n where id = $$5$$", None),
            ("delete from n where id = U&'5'", None),
            ("delete from n where id = '5'\n'6'", None),
            ("delete from n where id = true", None),
            ("select 1 from t where id = 'x'", text("x")),
            ("select 1 from t where id = ''", text("")),
            ("select 1 from t where id = 'x '", text("x ")),
            ("select 1 from t where id = 'it''s'", None),
            ("select 1 from t where id = 'ä'", None),
            ("select 1 from t where id = 5", None),
            ("insert into t (id) values ('x')", text("x")),
            ("insert into t (id) values ('x ')", None),
            ("insert into n (id) values (5), (x)", None),
        ] {
            assert_eq!(found(sql, None), expected, "{sql}");
        }
        let two = [number(5), number(6)].into_iter().flatten().flatten().collect();
        assert_eq!(found("insert into n (v, id) values (1, 5), (2, 6)", None), Some(two));
    }

    /// The body of a Bind behind its names: formats, then values.
    fn values(formats: &[i16], values: &[Option<&[u8]>]) -> Vec<u8> {
        let mut body = (formats.len() as u16).to_be_bytes().to_vec();
        formats.iter().for_each(|format| body.extend(format.to_be_bytes()));
        body.extend((values.len() as u16).to_be_bytes());
        for value in values {
            body.extend(value.map_or(-1, |value| value.len() as i32).to_be_bytes());
            body.extend(value.unwrap_or_default());
        }
        body.extend([0, 0]);
        body
    }

    fn types(types: &[u32]) -> Vec<u8> {
        let count = (types.len() as u16).to_be_bytes().to_vec();
        types.iter().fold(count, |body, oid| [body, oid.to_be_bytes().to_vec()].concat())
    }

    #[track_caller]
    fn check_bound(sql: &str, declared: &[u32], formats: &[i16], given: &[Option<&[u8]>], expected: Option<Vec<Row>>) {
        let (values, types) = (values(formats, given), types(declared));
        assert_eq!(
            found(sql, Some(Bound::new(&values, &types, true))),
            expected,
            "{sql} {declared:?} {formats:?} {given:?}"
        );
    }

    #[test]
    fn a_parameter_is_the_same_key_in_either_format_and_of_each_type() {
        let sql = "select 1 from n where w = $1 and id = $2";
        let five = number(5);
        for declared in [&[][..], &[0, 0], &[25, 21], &[0, 23], &[0, 20]] {
            check_bound(sql, declared, &[], &[Some(b"x"), Some(b"5")], five.clone());
            check_bound(sql, declared, &[0, 1], &[Some(b"x"), Some(&5_i32.to_be_bytes())], five.clone());
            check_bound(sql, declared, &[1], &[None, Some(&5_i64.to_be_bytes())], five.clone());
        }
        check_bound("delete from n where id = $1", &[], &[1], &[Some(&(-5_i16).to_be_bytes())], number(-5));
        check_bound("delete from t where id = $1", &[25], &[1], &[Some(b"x")], text("x"));
        check_bound("insert into t (id) values ($1)", &[], &[], &[Some(b"x ")], None);
    }

    #[test]
    fn a_parameter_that_may_be_of_another_type_is_no_key() {
        let sql = "select 1 from n where id = $1";
        for declared in [1700, 701, 700, 25, 705, 1043, 2950, 40_000] {
            check_bound(sql, &[declared], &[], &[Some(b"5")], None);
        }
        check_bound(sql, &[], &[], &[None], None);
        check_bound(sql, &[], &[], &[], None);
        check_bound(sql, &[], &[2], &[Some(b"5")], None);
        check_bound(sql, &[], &[1], &[Some(b"123")], None);
        // Where it stands twice, the other place may have given it its type.
        let twice = "select $1::float8 from n where id = $1";
        check_bound(twice, &[], &[], &[Some(b"5")], None);
        check_bound(twice, &[23], &[], &[Some(b"5")], number(5));
    }

    #[test]
    fn a_parameter_whose_type_the_server_has_found_out_before_a_change_of_definitions_is_no_key() {
        let (sql, five) = ("delete from n where id = $1", values(&[], &[Some(b"5")]));
        for (declared, expected) in [(&[][..], None), (&[0], None), (&[23], number(5))] {
            assert_eq!(found(sql, Some(Bound::new(&five, &types(declared), false))), expected, "{declared:?}");
        }
    }

    #[test]
    fn a_row_is_only_read_by_one_who_names_one() {
        let statement = Analyzer::default().analyze("select 1 from n where v = 5");
        let meaning = Arc::clone(&snapshot().meaning(&statement, "app"));
        assert_eq!(read(&meaning, b"select 1 from n where v = 5", None), None);
    }
}
