//! What must never change a verdict: literals, comments, white space, letter case, quotes around lower-case names.

use std::cell::Cell;

use pgweir::{
    catalog::meaning_without_catalog,
    protocol::{frame, frontend},
};
use proptest::{prelude::*, test_runner::TestRunner};

use super::{rows, support::cluster::USER, world};

/// Choices for one rewriting of a statement.
struct Draws<'d> {
    draws: &'d [u8],
    at: usize,
}

impl Draws<'_> {
    fn next(&mut self, below: usize) -> usize {
        let draw = self.draws.get(self.at % self.draws.len()).copied().unwrap_or(0);
        self.at += 1;
        usize::from(draw) % below
    }

    fn gap(&mut self) -> &'static str {
        const GAPS: &[&str] = &[" ", "\n", "\t \r\n", " /* for update; */ ", " -- 'x\n", "/*/*;*/*/", "\u{c} "];
        GAPS[self.next(GAPS.len())]
    }

    fn string(&mut self) -> &'static str {
        const STRINGS: &[&str] =
            &["''", "'x'", "'it''s; -- '", "'\\'", "$$a'b$$", "$q$ for update $q$", "'/*'", "'\u{e4}'"];
        STRINGS[self.next(STRINGS.len())]
    }

    fn number(&mut self) -> &'static str {
        const NUMBERS: &[&str] = &["0", "7", "42", "123456", "99999999999"];
        NUMBERS[self.next(NUMBERS.len())]
    }
}

/// Literals of these have a meaning, and so may those of utility statements.
const SENSITIVE: &[&str] = &["set_config", "::", "interval", "timestamp", "date ", "U&", "E'", "e'", "json", "xml"];

/// The same statement in other words. PostgreSQL's own scanner says where its tokens are.
fn rewritten(sql: &str, draws: &mut Draws<'_>, literals: bool) -> Option<String> {
    use pg_query::protobuf::{KeywordKind, Token};
    let tokens = pg_query::scan(sql).ok()?.tokens;
    let mut text = String::new();
    let mut end = 0;
    for token in &tokens {
        let (from, to) = (usize::try_from(token.start).ok()?, usize::try_from(token.end).ok()?);
        let between = sql.get(end..from)?;
        let piece = sql.get(from..to)?;
        end = to;
        // What stands together may have to: a sign, a dot, a prefix.
        text += if between.is_empty() { "" } else { draws.gap() };
        let kind = Token::try_from(token.token).ok()?;
        let is_plain_word = piece.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        let is_keyword = token.keyword_kind != KeywordKind::NoKeyword as i32;
        match kind {
            Token::SqlComment | Token::CComment => text += "/**/ ",
            Token::Sconst if literals && piece.starts_with('\'') => text += draws.string(),
            Token::Iconst if literals => text += draws.number(),
            Token::Ident if is_plain_word && draws.next(3) == 0 => text = format!("{text}\"{piece}\""),
            _ if (is_keyword || kind == Token::Ident) && is_plain_word && draws.next(2) == 0 => {
                text += &piece.to_ascii_uppercase();
            }
            _ => text += piece,
        }
    }
    Some(text + draws.gap())
}

/// A query whose literals are nothing but values.
fn takes_any_literal(sql: &str) -> bool {
    let world = world();
    let statement = world.statement(sql);
    !statement.literal_sensitive
        && statement.parts.len() == 1
        && !SENSITIVE.iter().any(|word| sql.contains(word))
        && pg_query::parse(sql, 0).is_ok()
}

#[test]
fn other_words_for_the_same_statement_never_change_its_verdict() {
    let world = world();
    let expected: Vec<_> = rows().map(|(sql, ..)| (*sql, world.verdict(sql, USER), takes_any_literal(sql))).collect();
    let mut runner =
        TestRunner::new(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() });
    let (tried, compared) = (Cell::new(0_u32), Cell::new(0_u32));
    let outcome = runner.run(&proptest::collection::vec(any::<u8>(), 64), |draws| {
        let mut draws = Draws { draws: &draws, at: 0 };
        for (sql, verdict, literals) in &expected {
            let Some(other) = rewritten(sql, &mut draws, *literals) else { continue };
            tried.set(tried.get() + 1);
            // Another literal may be one that no server takes, or no literal at all.
            if pg_query::parse(&other, 0).is_err() && world.statement(sql).parsed {
                continue;
            }
            compared.set(compared.get() + 1);
            let found = world.verdict(&other, USER);
            prop_assert_eq!(&found, verdict, "{}\n{}", sql, other);
        }
        Ok(())
    });
    outcome.unwrap();
    let (tried, compared) = (tried.get(), compared.get());
    println!("{compared} of {tried} rewritten statements parse, and mean the same");
    assert!(tried > 10_000 && compared * 10 > tried * 9, "{compared} of {tried}");
}

#[test]
fn no_bytes_make_the_analysis_panic() {
    let world = world();
    let texts: Vec<&str> = rows().map(|(sql, ..)| *sql).collect();
    let mut runner =
        TestRunner::new(ProptestConfig { cases: 1_500, failure_persistence: None, ..ProptestConfig::default() });
    let bytes = proptest::collection::vec(any::<u8>(), 0..40);
    let input = (bytes, 0..texts.len(), any::<usize>(), any::<usize>());
    runner
        .run(&input, |(bytes, row, from, length)| {
            // Noise alone, and noise in the middle of a statement that is understood.
            let sql = texts[row].as_bytes();
            let from = from % (sql.len() + 1);
            let to = (from + length % 8).min(sql.len());
            for text in
                [bytes.clone(), [&sql[..from], &bytes, &sql[to..]].concat(), [&sql[..from], &sql[to..]].concat()]
            {
                // What a session makes of a message that is no UTF-8.
                let statement = world.statement(&String::from_utf8_lossy(&text));
                meaning_without_catalog(&statement);
                world.snapshot.meaning(&statement, USER);
                world.snapshot.meaning_anywhere(&statement);
                world.snapshot.meaning_shadowed(&statement);
                pgweir::sql::mentions(&String::from_utf8_lossy(&text));
            }
            for tag in [frontend::tag::PARSE, frontend::tag::BIND, frontend::tag::EXECUTE, frontend::tag::QUERY] {
                // The length is true: whoever cuts frames has seen to that.
                let mut message = Vec::new();
                frame::put(&mut message, tag, |body| body.extend_from_slice(&bytes));
                let _outcomes = (frontend::parse(&message), frontend::execute(&message), frontend::query(&message));
                let _target = frontend::target(&message);
                if let Ok((_, _, rest)) = frontend::bind(&message) {
                    frontend::parameters(rest).take(100).for_each(drop);
                }
            }
            Ok(())
        })
        .unwrap();
}
