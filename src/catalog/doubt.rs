//! Errors that say more about the definitions than about the statement.

use crate::protocol::SqlState;

/// Does an error of a server say that something is missing, or is not what it was? Then definitions may have changed
/// without passing the proxy.
///
/// `routine` is the error's field `R`: the same in every language that messages are in.
///
/// <https://www.postgresql.org/docs/current/errcodes-appendix.html>
pub fn casts_doubt(sqlstate: SqlState, routine: Option<&[u8]>) -> bool {
    match &sqlstate.0 {
        // undefined_table, _function, _column, _object, invalid_schema_name
        b"42P01" | b"42883" | b"42703" | b"42704" | b"3F000" => true,
        // feature_not_supported: "cached plan must not change result type"
        b"0A000" => routine == Some(b"RevalidateCachedQuery"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_or_not_what_it_was_casts_doubt() {
        for (state, routine, expected) in [
            (b"42P01", None, true),
            (b"42883", Some(&b"ParseFuncOrColumn"[..]), true),
            (b"0A000", Some(b"RevalidateCachedQuery"), true),
            (b"0A000", Some(b"transformLockingClause"), false),
            (b"0A000", None, false),
            (b"23505", None, false),
        ] {
            assert_eq!(casts_doubt(SqlState(*state), routine), expected, "{state:?}");
        }
    }
}
