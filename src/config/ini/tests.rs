use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

/// What the sink was given: `[section]` or `key=value`, with the line.
type Seen = Vec<(usize, String)>;

fn seen(text: &str, files: &HashMap<&str, &str>) -> Result<Seen, String> {
    let include = |name: &str| files.get(name).map(ToString::to_string).ok_or(io::ErrorKind::NotFound.into());
    let mut seen = Vec::new();
    let mut sink = |location: &Location, event: Event<'_>| {
        let event = match event {
            Event::Section(name) => format!("[{name}]"),
            Event::Pair { key, value } => format!("{key}={value}"),
        };
        seen.push((location.line, event));
        Ok(())
    };
    read(text, "a.ini", &include, &mut sink).map_err(|error| error.to_string())?;
    Ok(seen)
}

/// The only place that reads a file without includes.
#[track_caller]
fn check(text: &str, expected: Result<&[(usize, &str)], &str>) {
    let owned = |seen: &[(usize, &str)]| seen.iter().map(|(line, text)| (*line, (*text).to_owned())).collect();
    assert_eq!(seen(text, &HashMap::new()), expected.map(owned).map_err(str::to_owned), "{text:?}");
}

#[test]
fn sections_and_pairs_are_read_in_order() {
    check("[a]\nx = 1\ny=2\n\n[b]\n", Ok(&[(1, "[a]"), (2, "x=1"), (3, "y=2"), (5, "[b]")]));
    check("", Ok(&[]));
}

#[test]
fn comments_are_whole_lines() {
    check("; one = 1\n  # two = 2\nx = 1", Ok(&[(3, "x=1")]));
}

#[test]
fn what_looks_like_a_comment_after_a_value_is_part_of_it() {
    check("x = 1 ; one # two", Ok(&[(1, "x=1 ; one # two")]));
}

#[test]
fn blanks_around_keys_and_values_are_dropped() {
    check("\t x \t= \t1  \t\r\n", Ok(&[(1, "x=1")]));
    check("x =\ny=2", Ok(&[(1, "x="), (2, "y=2")]));
}

#[test]
fn keys_are_letters_digits_and_four_signs() {
    check("a_b.c-d*9 = 1", Ok(&[(1, "a_b.c-d*9=1")]));
    check("* = host=a", Ok(&[(1, "*=host=a")]));
    check("my db = 1", Err("a.ini:1: my: expected key = value, got `d`"));
    check("a/b = 1", Err("a.ini:1: a: expected key = value, got `/`"));
    check("ä = 1", Err("a.ini:1: expected key = value, got `ä`"));
}

#[test]
fn other_names_stand_in_single_quotes_which_they_cannot_hold() {
    check("'my db/1' = 1", Ok(&[(1, "my db/1=1")]));
    check("'it''s' = 1", Err("a.ini:1: it: expected key = value, got `'`"));
    check("'' = 1", Err("a.ini:1: expected a name between single quotes, got none"));
    check("'open = 1", Err("a.ini:1: expected a name between single quotes, got none"));
}

#[test]
fn double_quotes_do_not_quote() {
    check("x = 1\n\"my db\" = 1", Err("a.ini:2: expected a name in single quotes, or without, got `\"`"));
}

#[test]
fn a_line_without_an_equals_sign_is_an_error() {
    check("x = 1\n\nlonely\n", Err("a.ini:3: lonely: expected key = value, got the end of the line"));
}

#[test]
fn a_section_ends_with_its_bracket_and_the_line_goes_on() {
    check("[a] x = 1", Ok(&[(1, "[a]"), (1, "x=1")]));
    check("[a] ; comment", Ok(&[(1, "[a]")]));
    check("[ a ]", Ok(&[(1, "[ a ]")]));
    check("[a\n]", Err("a.ini:1: a: expected ] after the name of the section, got the end of the line"));
}

#[test]
fn another_encoding_harms_no_comment_and_is_refused_in_a_value() {
    check("; f\u{fffd}r\nx = 1", Ok(&[(2, "x=1")]));
    check("x = f\u{fffd}r", Err("a.ini:1: x: expected UTF-8, got another encoding"));
}

/// The only place that reads files which include each other, from `a.ini`.
#[track_caller]
fn check_files(files: &[(&str, &str)], expected: Result<&[&str], &str>) {
    let files: HashMap<_, _> = files.iter().copied().collect();
    let text = files.get("a.ini").copied().unwrap_or_default();
    let events = seen(text, &files).map(|seen| seen.into_iter().map(|(_, event)| event).collect::<Vec<_>>());
    let owned = |events: &[&str]| events.iter().map(ToString::to_string).collect();
    assert_eq!(events, expected.map(owned).map_err(str::to_owned));
}

#[test]
fn an_included_file_is_read_in_place() {
    check_files(
        &[("a.ini", "[a]\nx=1\n%include \t b b.ini \r\nz=3"), ("b b.ini", "y=2\n[b]")],
        Ok(&["[a]", "x=1", "y=2", "[b]", "z=3"]),
    );
}

#[test]
fn a_missing_file_is_reported_where_it_is_included() {
    check_files(
        &[("a.ini", "\n%include no.ini")],
        Err("a.ini:2: %include: expected a readable file, got no.ini (entity not found)"),
    );
}

#[test]
fn an_error_in_an_included_file_names_that_file() {
    check_files(&[("a.ini", "%include b.ini"), ("b.ini", "x=1\n!")], Err("b.ini:2: expected key = value, got `!`"));
}

#[test]
fn files_include_each_other_ten_deep_and_no_deeper() {
    check_files(
        &[("a.ini", "%include a.ini")],
        Err("a.ini:1: %include: expected at most 10 files inside each other, got a.ini"),
    );
    let names: Vec<String> = (0..=11).map(|at| if at == 0 { "a.ini".into() } else { format!("{at}.ini") }).collect();
    let texts: Vec<String> = (1..=11).map(|at| format!("%include {at}.ini")).collect();
    let mut files: Vec<(&str, &str)> = names.iter().map(String::as_str).zip(texts.iter().map(String::as_str)).collect();
    files[10].1 = "x=1";
    check_files(&files, Ok(&["x=1"]));
}

#[test]
fn include_needs_a_blank_after_it() {
    check("%included = 1", Err("a.ini:1: expected key = value, got `%`"));
    check("%include", Err("a.ini:1: expected key = value, got `%`"));
}

proptest! {
    #[test]
    fn no_text_is_too_strange(like_ini in r#"([\[\]=;#%'" \t\r\na.é-]|%include a\n){0,60}"#, any in ".*") {
        let files = HashMap::from([("a", "x=1\n[y]")]);
        let _ = seen(&like_ini, &files);
        let _ = seen(&any, &files);
    }
}
