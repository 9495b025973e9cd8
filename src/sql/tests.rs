//! What the lexer, the fingerprint, the hints and the memo promise.

use std::{sync::Arc, time::Duration};

use proptest::prelude::*;

use super::{
    fingerprint::{KeyedHash, fingerprint},
    lexer::{Kind, Lexer},
    normalize::normalize,
    *,
};

fn tokens(text: &str) -> Vec<(Kind, &str)> {
    Lexer::new(text, true).map(|token| (token.kind, &text[token.start..token.end])).collect()
}

fn memo_key(text: &str) -> u128 {
    KeyedHash::new(7).shape(text, true).0
}

/// Have they one fingerprint? Texts that have not must never share what was understood of one of them.
fn same(a: &str, b: &str) -> bool {
    let same = fingerprint(a, true) == fingerprint(b, true);
    assert!(same || memo_key(a) != memo_key(b), "{a} / {b}");
    same
}

#[test]
fn literals_and_comments_do_not_change_the_memo_key() {
    for (a, b) in [
        ("select * from t where a = 1 and b = 'x'", "select * from t where a = 22 and b = 'it''s'"),
        ("select $$a$$, X'1f', 1.5", "select $t$b$t$, X'', 2e9"),
        ("/* trace 1 */ select 1 -- one", "/* trace 22 */ select 2 -- two, and more"),
        ("select 1", "select 0x1f"),
    ] {
        assert_eq!(memo_key(a), memo_key(b), "{a} / {b}");
    }
    for (a, b) in [
        ("select 1 a", "select 1a"),
        ("select '1', 1", "select 1, '1'"),
        ("select 'a' b", "select a 'b'"),
        ("select 1, 2", "select 1, 2, 3"),
        ("select \u{1}1", "select 1"),
    ] {
        assert_ne!(memo_key(a), memo_key(b), "{a} / {b}");
    }
}

#[test]
fn tokens_are_cut_as_postgresql_cuts_them() {
    use Kind::*;
    let rows: &[(&str, &[(Kind, &str)])] = &[
        ("select 1", &[(Word, "select"), (Integer, "1")]),
        ("'it''s'", &[(String, "'it''s'")]),
        (r"'a\' b", &[(String, r"'a\'"), (Word, "b")]),
        (r"E'a\' b'", &[(EscapeString, r"E'a\' b'")]),
        (r"e'\\' b", &[(EscapeString, r"e'\\'"), (Word, "b")]),
        ("B'01' x'fF' N'a'", &[(BitString, "B'01'"), (HexString, "x'fF'"), (NationalString, "N'a'")]),
        (r#"U&'\0061' u&"b""#, &[(UnicodeString, r"U&'\0061'"), (UnicodeQuoted, r#"u&"b""#)]),
        ("u & 1", &[(Word, "u"), (Operator, "&"), (Integer, "1")]),
        ("'a'\n'b'", &[(String, "'a'\n'b'")]),
        ("'a' -- c\n 'b'", &[(String, "'a' -- c\n 'b'")]),
        ("'a' 'b'", &[(String, "'a'"), (String, "'b'")]),
        ("'a' /* c */\n'b'", &[(String, "'a'"), (Comment, "/* c */"), (String, "'b'")]),
        ("$$a'b$$", &[(DollarString, "$$a'b$$")]),
        ("$x$ $$ $y$ $x$", &[(DollarString, "$x$ $$ $y$ $x$")]),
        ("$é$a$é$", &[(DollarString, "$é$a$é$")]),
        ("a$b$c", &[(Word, "a$b$c")]),
        ("$1+$23", &[(Param, "$1"), (Operator, "+"), (Param, "$23")]),
        ("$a b", &[(Symbol, "$"), (Word, "a"), (Word, "b")]),
        (r#""A ""b"#, &[(Unterminated, r#""A ""b"#)]),
        (r#""A ""b""""#, &[(Quoted, r#""A ""b""""#)]),
        ("/* a /* b */ c */ d", &[(Comment, "/* a /* b */ c */"), (Word, "d")]),
        ("/* a /* b */", &[(Unterminated, "/* a /* b */")]),
        ("a -- b\nc", &[(Word, "a"), (Comment, "-- b"), (Word, "c")]),
        (
            "1.5 .5 1. 1e5 1.5E-3",
            &[(Numeric, "1.5"), (Numeric, ".5"), (Numeric, "1."), (Numeric, "1e5"), (Numeric, "1.5E-3")],
        ),
        ("1..10", &[(Integer, "1"), (Operator, ".."), (Integer, "10")]),
        ("0x1F 0b01 0o17 1_000", &[(Integer, "0x1F"), (Integer, "0b01"), (Integer, "0o17"), (Integer, "1_000")]),
        ("1from", &[(Integer, "1"), (Word, "from")]),
        ("1e", &[(Integer, "1"), (Word, "e")]),
        ("a=-1", &[(Word, "a"), (Operator, "="), (Operator, "-"), (Integer, "1")]),
        ("a@-1", &[(Word, "a"), (Operator, "@-"), (Integer, "1")]),
        ("a<--1", &[(Word, "a"), (Operator, "<"), (Comment, "--1")]),
        ("a*/*c*/b", &[(Word, "a"), (Operator, "*"), (Comment, "/*c*/"), (Word, "b")]),
        ("a::int", &[(Word, "a"), (Operator, "::"), (Word, "int")]),
        ("a->>'b'", &[(Word, "a"), (Operator, "->>"), (String, "'b'")]),
        ("a?|b", &[(Word, "a"), (Operator, "?|"), (Word, "b")]),
        ("a[1:2]", &[(Word, "a"), (Symbol, "["), (Integer, "1"), (Symbol, ":"), (Integer, "2"), (Symbol, "]")]),
        ("größe", &[(Word, "größe")]),
        ("'", &[(Unterminated, "'")]),
        (r"E'\", &[(Unterminated, r"E'\")]),
    ];
    for (text, expected) in rows {
        assert_eq!(tokens(text), *expected, "{text}");
    }
}

#[test]
fn backslashes_escape_in_plain_strings_once_the_session_says_so() {
    let kinds = |standard| Lexer::new(r"'a\' c'", standard).map(|token| token.kind).collect::<Vec<_>>();
    assert_eq!(kinds(true), [Kind::String, Kind::Word, Kind::Unterminated]);
    assert_eq!(kinds(false), [Kind::String]);
}

#[test]
fn texts_of_one_shape_have_one_fingerprint() {
    for (a, b) in [
        ("select * from t where a = 1", "SELECT  *\nFROM T WHERE a=22 -- c"),
        ("select 'a'", "select 'it''s'"),
        ("select 'a'", "select 'a'/* c */"),
        ("select -1", "select - 2"),
        ("select a from t", "select A from T"),
        ("select $$a$$", "select $x$b$x$"),
        ("select 1", "select 0x1f"),
    ] {
        assert!(same(a, b), "{a} / {b}");
    }
}

#[test]
fn texts_that_may_mean_different_things_have_different_fingerprints() {
    for (a, b) in [
        ("select a.t", "select a . \"t\""),
        ("select \"A\"", "select a"),
        ("select \"select\"", "select select"),
        ("select * from a.t", "select * from b.t"),
        ("select 1 as a", "select 1 as b"),
        ("select 1", "select '1'"),
        ("select 1", "select 1.0"),
        ("select 1", "select $1"),
        ("select $1", "select $2"),
        ("select 'a'", "select E'a'"),
        ("select 'a'", "select B'1'"),
        ("select b'1'", "select x'1'"),
        ("select 1 in (1)", "select 1 in (1, 2)"),
        ("select 'a' 'b'", "select 'a'\n'b'"),
        ("select a@-1", "select a@ -1"),
        ("select a<-1", "select a <<-1"),
        ("select ab", "select a b"),
        ("select 1from t", "select 1 from t"),
        ("select é", "select É"),
        ("select 'now'", "select 'new'"),
        ("select \"a\" \"b\"", "select \"a\"\"b\""),
        ("select 1; select 2", "select 1 select 2"),
        ("begin", "commit"),
        ("select true", "select false"),
    ] {
        assert!(!same(a, b), "{a} / {b}");
    }
}

#[test]
fn hints_change_the_memo_key_but_not_the_fingerprint() {
    let (hinted, plain) = ("/* pgweir: primary */ select 1", "select 1");
    assert_eq!(fingerprint(hinted, true), fingerprint(plain, true));
    let analyzer = Analyzer::with_seed(100, 1);
    assert_ne!(analyzer.analyze(hinted).identity(), analyzer.analyze(plain).identity());
    let traced = |trace: &str| analyzer.analyze(&format!("/* {trace} */ select 2")).identity();
    assert_eq!(traced("request 1"), traced("request 22"));
}

#[test]
fn a_fingerprint_is_the_same_in_every_process() {
    assert_eq!(fingerprint("select * from t where a = 1", true).to_string().len(), 32);
    let (a, b) = (Analyzer::with_seed(10, 1), Analyzer::with_seed(10, 2));
    let text = "select * from t where a = 1";
    assert_eq!(a.analyze(text).fingerprint, b.analyze(text).fingerprint);
    assert_ne!(a.analyze(text).identity(), b.analyze(text).identity());
}

#[test]
fn normalised_text_holds_no_literal_and_no_comment() {
    for (text, expected) in [
        ("SELECT  * FROM \"T\" -- secret\n WHERE a='x' AND b = -1", "select * from \"T\" where a=? and b = -?"),
        ("/* secret */ alter role x password 'secret'", "alter role x password ?"),
        ("select $$secret$$, E'secret', X'AB', 1.5, $1", "select ?, ?, ?, ?, $1"),
        ("select 'secret", "select ?"),
        ("select \"secret", "select ?"),
    ] {
        assert_eq!(&*normalize(text, true), expected);
    }
    assert!(normalize(&"select é, ".repeat(10_000), true).len() <= 4096);
}

#[test]
fn hints_are_read_from_leading_and_trailing_comments_only() {
    let hints = |text: &str| Hints::read(text, true);
    let primary = Hints { route: Some(RouteHint::Primary), ..Hints::default() };
    assert_eq!(hints("/* pgweir: primary */ select 1"), primary);
    assert_eq!(hints("select 1 /* pgweir: primary */;"), primary);
    assert_eq!(hints("select 1 -- pgweir: primary"), primary);
    assert_eq!(hints("/* app */ /*pgweir:primary*/ select 1"), primary);
    assert_eq!(hints("select /* pgweir: primary */ 1"), Hints::default());
    assert_eq!(hints("select '/* pgweir: primary */'"), Hints::default());
    assert_eq!(hints("select $$ /* pgweir: primary */ $$"), Hints::default());
    assert_eq!(hints("/* not pgweir: primary */ select 1"), Hints::default());
}

#[test]
fn hints_are_separated_by_commas_and_unknown_ones_are_counted() {
    let read = |text: &str| Hints::read(&format!("/* pgweir: {text} */ select 1"), true);
    assert_eq!(read("replica, nocache").route, Some(RouteHint::Replica));
    assert_eq!(read("replica, nocache").cache, Some(CacheHint::No));
    assert_eq!(read("cache").cache, Some(CacheHint::On));
    assert_eq!(read("cache ttl=30s").cache, Some(CacheHint::Ttl(Duration::from_secs(30))));
    assert_eq!(read("cache ttl=0.5").cache, Some(CacheHint::Ttl(Duration::from_millis(500))));
    assert!(read("cache strict").strict);
    assert_eq!(read("max_staleness=2s").max_staleness, Some(Duration::from_secs(2)));
    assert_eq!(read("max_staleness = 200ms").max_staleness, Some(Duration::from_millis(200)));
    for (unknown, text) in [
        (0, "primary"),
        (1, "fast"),
        (2, "fast, faster, primary"),
        (1, "cache ttl=x"),
        (1, "max_staleness=-1s"),
        (1, "max_staleness=9999999999999999999999d"),
        (1, ""),
    ] {
        assert_eq!(read(text).unknown, unknown, "{text}");
    }
}

#[test]
fn a_shape_is_parsed_once() {
    let analyzer = Analyzer::with_seed(100, 1);
    let first = analyzer.analyze("select * from t where a = 1");
    let second = analyzer.analyze("select * from t where a = 22");
    assert!(Arc::ptr_eq(&first, &second));
    assert_eq!(analyzer.len(), 1);
}

#[test]
fn statements_whose_literals_decide_are_told_apart() {
    let analyzer = Analyzer::with_seed(100, 1);
    for (a, b) in [
        ("set timezone = 'a'", "set timezone = 'b'"),
        ("select set_config('a', 'b', false)", "select set_config('search_path', 'b', false)"),
        ("prepare transaction 'a'", "prepare transaction 'b'"),
        ("explain (analyze 0) select 1", "explain (analyze 1) select 1"),
        ("select U&\"d!0061t\" uescape '!'", "select U&\"d!0061t\" uescape '?'"),
    ] {
        let (first, second) = (analyzer.analyze(a), analyzer.analyze(b));
        assert!(first.literal_sensitive && first.parsed, "{a}");
        assert_ne!(first.identity(), second.identity(), "{a}");
        assert!(Arc::ptr_eq(&first, &analyzer.analyze(a)), "{a} is remembered");
    }
}

#[test]
fn a_text_that_does_not_parse_says_nothing_about_its_shape() {
    let analyzer = Analyzer::with_seed(100, 1);
    let broken = analyzer.analyze(r"select E'\u12'");
    let fine = analyzer.analyze("select E'a'");
    assert!(!broken.parsed && fine.parsed);
    assert!(!analyzer.analyze(r"select E'\u12'").parsed);
}

#[test]
fn what_nests_too_deep_or_is_too_long_is_not_understood() {
    let analyzer = Analyzer::with_seed(100, 1);
    for text in [
        format!("select 1{}", " + 1".repeat(50_000)),
        format!("select {}1{}", "(".repeat(50_000), ")".repeat(50_000)),
        format!("select {}1{}", "(select ".repeat(500), ")".repeat(500)),
        format!("select 1{}", " union select 1".repeat(5_000)),
        format!("select '{}'", "a".repeat(2 << 20)),
        "select 1 \0".to_owned(),
    ] {
        assert!(!analyzer.analyze(&text).parsed, "{} bytes", text.len());
    }
    let rows = format!("insert into t values (1){}", ", (1)".repeat(5_000));
    assert!(analyzer.analyze(&rows).parsed);
}

#[test]
fn the_memo_stays_within_its_bound_and_keeps_what_is_used() {
    let analyzer = Analyzer::with_seed(64, 1);
    let hot = "select * from hot where id = 1";
    let first = analyzer.analyze(hot);
    for number in 0..1000 {
        analyzer.analyze(&format!("select column_{number} from t"));
        analyzer.analyze(hot);
        assert!(analyzer.len() <= 64);
    }
    assert!(Arc::ptr_eq(&first, &analyzer.analyze(hot)));
}

#[test]
fn a_session_with_nonstandard_strings_is_described_but_not_understood() {
    let statement = Analyzer::with_seed(64, 1).describe_nonstandard(r"select 'a\' or 1'");
    assert!(!statement.parsed);
    assert_eq!(&*statement.normalized, "select ?");
}

#[test]
fn ctes_hide_relations_only_where_they_are_in_scope() {
    let reads = |sql: &str| {
        let statement = Analyzer::with_seed(64, 1).analyze(sql);
        assert!(statement.parsed, "{sql}");
        let names = statement.parts.iter().flat_map(|part| part.facts.reads.iter());
        names.map(|name| name.name.to_string()).collect::<Vec<_>>().join(" ")
    };
    for (sql, expected) in [
        ("with a as (select * from x) select * from a", "x"),
        ("with a as (select * from b), b as (select * from a) select * from b", "b"),
        ("with recursive a as (select * from b), b as (select 1) select * from a", ""),
        ("with a as (select * from a) select * from a", "a"),
        ("with a as (select 1) select * from s.a", "a"),
        ("with a as (select 1) select * from (select * from a) q", ""),
        ("select * from (with a as (select 1) select * from a) q, a", "a"),
        ("with a as (select 1) delete from t using a where t.id = a.id", ""),
        ("with a as (select 1) insert into t select * from a union all select * from u", "u"),
        ("select 1 from x where exists (select from y) and a in (table z)", "x y z"),
        ("update t set a = (select max(b) from u) from v where true returning (select 1 from w)", "u v w"),
        ("select * from x tablesample system (1), rows from (f(1)) r, lateral g((select 1 from y)) z", "x y"),
        ("select json_object('a': (select 1 from x)), xmlelement(name a, (select 1 from y))", "x y"),
        ("select * from json_table((select d from x), '$[*]' columns (a int path '$.a')) j", "x"),
        ("select array(select 1 from x), case when true then (select 1 from y) end", "x y"),
        ("select sum(a) over w from x window w as (partition by (select 1 from y))", "x y"),
        ("select 1 from x order by (select 1 from y) limit (select 1 from z)", "x y z"),
        ("copy (select * from x) to stdout", "x"),
        ("prepare p as select * from x", "x"),
        ("declare c cursor for select * from x", "x"),
    ] {
        assert_eq!(reads(sql), expected, "{sql}");
    }
}

#[test]
fn every_node_of_common_queries_is_known() {
    for sql in [
        "select distinct on (a) a, b from t group by rollup (a, b), cube (c), grouping sets ((a), ()) having true",
        "select a[1:2], (r).f, array[1, 2], row(1, 2), t.*, not a, a is null, a is true, a collate \"C\" from t",
        "select nullif(a, b), greatest(a, 1), coalesce(a, 2), a between 1 and 2, a like 'x' escape '!' from t",
        "select cast(a as numeric(10, 2)), interval '1' day, extract(year from a), a at time zone 'x' from t",
        "select overlay(a placing 'b' from 1), substring(a from 1 for 2), trim(both 'x' from a), position('a' in b) from t",
        "select xmlparse(document '<a/>'), xmlserialize(content a as text), xmlforest(a as b), a is document from t",
        "select * from xmltable('/a' passing d columns b int path 'c' default 1) x",
        "select json_value(a, '$.b' returning int default 1 on error), json_query(a, '$' with wrapper) from t",
        "select json_exists(a, '$.b' passing 1 as x), a is json object, json_arrayagg(a order by b), json_objectagg(a: b) from t",
        "select json_array(select 1), json_scalar(1), json_serialize(a), json('{}') from t",
        "select f(a => 1, variadic b), count(distinct a order by a) filter (where b) from t",
        "select * from a natural join b cross join c full join d using (x) as j",
        "select * from t for update of t skip locked",
        "insert into t (a, b[1], c.d) overriding system value values (default, 1, 2) returning *",
        "insert into t values (1) on conflict (lower(a)) where b do update set a = excluded.a where true",
        "insert into t values (1) on conflict on constraint c do nothing",
        "update t set (a, b) = (1, default), c[1] = 2 where current of cur",
        "merge into t using s on true when not matched by source then delete when matched and a then update set b = 1 returning merge_action()",
        "select * from f() with ordinality as x, rows from (g() as (a int, b text)) y",
        "with recursive t as (select 1) search depth first by a set b cycle a set c using d select * from t",
        "select grouping(a), current_date, localtime(3), user from t group by a",
        "select a, sum(b) over (order by c rows between 1 preceding and unbounded following exclude ties) from t",
        "select 1 where a operator(pg_catalog.=) any (array[1]) and (a, b) < all (select 1, 2)",
    ] {
        let statement = Analyzer::with_seed(64, 1).analyze(sql);
        assert!(statement.parsed, "{sql}");
        let known = |part: &Part| !part.facts.flags.contains(Flags::UNKNOWN);
        assert!(statement.parts.iter().all(known), "{sql}");
    }
}

#[test]
fn proxy_settings_are_told_from_server_settings() {
    let kind = |sql: &str| Analyzer::with_seed(64, 1).analyze(sql).parts[0].kind.clone();
    let set = |name: &str, value: Option<&str>, local| StatementKind::ProxySet {
        name: name.into(),
        value: value.map(Into::into),
        local,
    };
    assert_eq!(kind("SET pgweir.route = 'primary'"), set("route", Some("primary"), false));
    assert_eq!(kind("set PGWEIR.Route to replica"), set("route", Some("replica"), false));
    assert_eq!(kind("set local pgweir.max_staleness = 2"), set("max_staleness", Some("2"), true));
    assert_eq!(kind("reset pgweir.cache"), set("cache", None, false));
    assert_eq!(kind("set pgweir.cache to default"), set("cache", None, false));
    assert_eq!(kind("show pgweir.route"), StatementKind::ProxyShow { name: "route".into() });
    assert_eq!(kind("show pgweird.route"), StatementKind::Show { name: "pgweird.route".into() });
}

#[test]
fn words_that_stand_for_the_clock_are_found_in_values() {
    for text in
        ["now", "NOW", " today ", "tomorrow 12:00", "12:00 yesterday", "{now,infinity}", "[\"now\",)", "(1,now)"]
    {
        assert!(names_the_clock(text.as_bytes()), "{text}");
    }
    for text in ["", "snow", "known", "nowhere", "unknown", "2024-01-01", "tomorrows", "epoch", "infinity"] {
        assert!(!names_the_clock(text.as_bytes()), "{text}");
    }
}

/// Pieces that statements are made of; each may be followed by any other.
fn piece() -> impl Strategy<Value = std::string::String> {
    prop_oneof![
        "[a-z_][a-z0-9_]{0,8}",
        "\"[a-zA-Z ]{1,6}\"",
        "[0-9]{1,5}(\\.[0-9]{1,3})?",
        "'[a-m ]{0,8}'",
        "\\$[1-9]",
        prop::sample::select(vec!["=", "<>", "->>", "(", ")", ",", ";", ".", "*", "::", "@>"]).prop_map(Into::into),
    ]
}

proptest! {
    #[test]
    fn any_text_is_cut_into_tokens_that_cover_it(text in "\\PC*") {
        let mut end = 0;
        for token in Lexer::new(&text, true) {
            prop_assert!(token.start >= end && token.end > token.start && token.end <= text.len());
            prop_assert!(text.is_char_boundary(token.start) && text.is_char_boundary(token.end));
            prop_assert!(text[end..token.start].bytes().all(lexer::is_space));
            end = token.end;
        }
        prop_assert!(text[end..].bytes().all(lexer::is_space));
    }

    #[test]
    fn quotes_dollars_and_comments_never_run_past_the_end(text in "['\"$a/*\\-\nEeUu&\\\\]{0,40}") {
        for standard in [true, false] {
            let _ = Lexer::new(&text, standard).count();
            let _ = normalize(&text, standard);
            let _ = fingerprint(&text, standard);
        }
        let _ = words(&text);
    }

    #[test]
    fn any_text_is_analysed(text in "\\PC{0,60}") {
        let statement = Analyzer::with_seed(64, 1).analyze(&text);
        prop_assert!(statement.parsed || statement.parts.is_empty());
    }

    #[test]
    fn white_space_comments_and_case_do_not_change_a_fingerprint(
        pieces in prop::collection::vec(piece(), 1..20),
        seams in prop::collection::vec(prop::sample::select(vec!["  ", "\t", " /* c */ ", " -- c\n"]), 20),
    ) {
        let plain = pieces.join(" ");
        let mut other = std::string::String::new();
        for (piece, seam) in pieces.iter().zip(seams) {
            // A newline between two strings joins them.
            let seam = if piece.ends_with('\'') { " " } else { seam };
            let quoted = piece.starts_with(['"', '\'']);
            other.push_str(&if quoted { piece.clone() } else { piece.to_uppercase() });
            other.push_str(seam);
        }
        prop_assert!(same(&plain, &other), "{plain} / {other}");
    }

    #[test]
    fn literals_do_not_change_a_fingerprint(a in "'[a-m ]{0,12}'", b in "'[a-m ]{0,12}'", n in 0_u32.., m in 0_u32..) {
        let (first, second) = (format!("select {a}, {n} from t"), format!("select {b}, {m} from t"));
        prop_assert!(same(&first, &second));
    }

    #[test]
    fn another_token_changes_a_fingerprint(
        pieces in prop::collection::vec(piece(), 1..12),
        at in any::<prop::sample::Index>(),
        added in piece(),
    ) {
        let mut longer = pieces.clone();
        longer.insert(at.index(pieces.len() + 1), added);
        prop_assert!(!same(&pieces.join(" "), &longer.join(" ")));
    }
}
