//! Settings that are text with a meaning: lists of names, secrets, addresses, file modes.

use std::fmt;

use super::value::{SettingValue, optional};

/// Names separated by commas or blanks; case matters.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct NameList {
    text: String,
}

impl NameList {
    /// The names in their order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        let separated = |c: char| c == ',' || c.is_ascii_whitespace();
        self.text.split(separated).filter(|name| !name.is_empty())
    }

    /// Whether `name` is one of them.
    pub fn contains(&self, name: &str) -> bool {
        self.iter().any(|listed| listed == name)
    }
}

impl From<&str> for NameList {
    fn from(text: &str) -> NameList {
        NameList { text: text.to_owned() }
    }
}

impl SettingValue for NameList {
    const EXPECTED: &'static str = "names separated by commas";

    fn parse(text: &str) -> Option<NameList> {
        Some(NameList::from(text))
    }

    fn show(&self) -> Option<String> {
        Some(self.text.clone())
    }
}

const MASK: &str = "***";

/// A password or key: never printed, neither by `Debug` nor by SHOW CONFIG.
#[derive(Clone, PartialEq, Eq)]
pub struct Hidden(String);

impl Hidden {
    /// The secret itself, to be used and not to be kept.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Hidden {
    fn from(text: &str) -> Hidden {
        Hidden(text.to_owned())
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(MASK)
    }
}

impl SettingValue for Hidden {
    const EXPECTED: &'static str = "a secret";
    const SECRET: bool = true;

    fn parse(text: &str) -> Option<Hidden> {
        Some(Hidden::from(text))
    }

    fn show(&self) -> Option<String> {
        Some(MASK.to_owned())
    }
}

/// An address that may hold a password before its `@`, or behind its `?`.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretUrl(String);

impl SecretUrl {
    /// The whole address, password included.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    fn masked(&self) -> String {
        let Some((scheme, rest)) = self.0.split_once("://") else {
            return MASK.to_owned();
        };
        let (at, rest) = match rest.rsplit_once('@') {
            // The @ may stand in the middle of another secret.
            Some((secret, _)) if secret.contains("pass") => return format!("{scheme}://{MASK}"),
            Some((_, rest)) => ("***@", rest),
            None => ("", rest),
        };
        let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
        let mut masked = format!("{scheme}://{at}{rest}");
        // `pass=` and `sentinel_password=` are secrets; no other value needs to be told apart.
        for (at, pair) in query.into_iter().flat_map(|query| query.split('&')).enumerate() {
            masked.push(if at == 0 { '?' } else { '&' });
            match pair.split_once('=') {
                Some((name, _)) if name.contains("pass") => masked.extend([name, "=", MASK]),
                _ => masked.push_str(pair),
            }
        }
        masked
    }
}

impl From<&str> for SecretUrl {
    fn from(text: &str) -> SecretUrl {
        SecretUrl(text.to_owned())
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.masked())
    }
}

impl SettingValue for SecretUrl {
    const EXPECTED: &'static str = "an address such as redis://127.0.0.1:6379/0";
    const SECRET: bool = true;

    fn parse(text: &str) -> Option<SecretUrl> {
        text.contains("://").then(|| SecretUrl::from(text))
    }

    fn show(&self) -> Option<String> {
        Some(self.masked())
    }
}

/// Permissions of a file: written in octal, shown in decimal as PgBouncer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileMode(pub u32);

impl SettingValue for FileMode {
    const EXPECTED: &'static str = "permissions such as 0777";

    fn parse(text: &str) -> Option<FileMode> {
        u32::parse(text).filter(|mode| *mode <= 0o7777).map(FileMode)
    }

    fn show(&self) -> Option<String> {
        self.0.show()
    }

    fn show_default(&self) -> Option<String> {
        Some(format!("{:04o}", self.0))
    }
}

optional!(Hidden, SecretUrl);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_separated_by_commas_and_blanks_and_compared_whole() {
        let users = NameList::from("root, monitor,backup  nagios");
        assert_eq!(users.iter().collect::<Vec<_>>(), ["root", "monitor", "backup", "nagios"]);
        assert!(users.contains("backup"));
        assert!(!users.contains("back"));
        assert!(!users.contains("Root"));
        assert!(!users.contains(""));
    }

    #[test]
    fn secrets_are_printed_nowhere() {
        let secret = Hidden::from("hunter2");
        assert_eq!(format!("{secret:?}"), "***");
        assert_eq!(secret.show().as_deref(), Some("***"));
        let address = SecretUrl::from("redis://user:hunter2@cache:6379/0");
        assert_eq!(format!("{address:?}"), "redis://***@cache:6379/0");
        let address = SecretUrl::from("unix:///run/redis.sock?db=1&pass=hunter2&protocol=resp3");
        assert_eq!(format!("{address:?}"), "unix:///run/redis.sock?db=1&pass=***&protocol=resp3");
        for hidden in ["u:p?x@hunter2@a,b/main?sentinel_password=hunter2", "a/main?sentinel_password=h@hunter2"] {
            let address = SecretUrl::from(&*format!("redis+sentinel://{hidden}"));
            assert!(!format!("{address:?}").contains("hunter2"), "{address:?}");
        }
        let address = SecretUrl::from("redis://cache:6379/0");
        assert_eq!(address.show().as_deref(), Some("redis://cache:6379/0"));
    }

    #[test]
    fn a_file_mode_is_written_in_octal_and_shown_in_decimal() {
        let mode = FileMode::parse("0777").unwrap();
        assert_eq!(mode.show().as_deref(), Some("511"));
        assert_eq!(mode.show_default().as_deref(), Some("0777"));
    }
}
