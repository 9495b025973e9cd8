//! `${NAME}` in a value is replaced from the environment.

use super::error::Problem;

/// How a variable is looked up.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

fn is_name(name: &str) -> bool {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_';
    name.starts_with(first) && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn look_up(name: &str, environment: Environment<'_>) -> Result<String, Problem> {
    let missing = || Problem::new(format!("the environment variable {name}"), "none of that name");
    environment(name).ok_or_else(missing)
}

/// Replaces every `${NAME}` in `text`; what only looks like one stays.
pub(super) fn replace(text: &str, environment: Environment<'_>) -> Result<String, Problem> {
    let mut replaced = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        replaced.push_str(before);
        match after.split_once('}') {
            Some((name, after)) if is_name(name) => {
                replaced.push_str(&look_up(name, environment)?);
                rest = after;
            }
            _ => {
                replaced.push_str("${");
                rest = after;
            }
        }
    }
    replaced.push_str(rest);
    Ok(replaced)
}

/// Replaces `text` if it is nothing but one `${NAME}`: passwords that hold `${` by chance stay as they are.
pub(super) fn replace_whole(text: &str, environment: Environment<'_>) -> Result<String, Problem> {
    let name = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
    match name {
        Some(name) if is_name(name) => look_up(name, environment),
        _ => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(name: &str) -> Option<String> {
        (name == "HOST").then(|| "db${HOST}".to_owned())
    }

    #[test]
    fn variables_are_replaced_once_wherever_they_stand() {
        assert_eq!(replace("a${HOST}b$${HOST}", &environment).unwrap(), "adb${HOST}b$db${HOST}");
    }

    #[test]
    fn what_only_looks_like_a_variable_stays() {
        for text in ["$HOST", "${", "${}", "${1A}", "${A B}", "${HOST", "a}"] {
            assert_eq!(replace(text, &environment).unwrap(), text);
        }
    }

    #[test]
    fn a_missing_variable_is_an_error_that_names_it() {
        let problem = replace("redis://${NOWHERE}", &environment).unwrap_err();
        assert_eq!(problem.expected, "the environment variable NOWHERE");
    }

    #[test]
    fn a_password_is_replaced_only_as_a_whole() {
        assert_eq!(replace_whole("${HOST}", &environment).unwrap(), "db${HOST}");
        assert_eq!(replace_whole("p${HOST}", &environment).unwrap(), "p${HOST}");
        assert!(replace_whole("${NOWHERE}", &environment).is_err());
    }
}
