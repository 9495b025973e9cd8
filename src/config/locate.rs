//! Where an entry stands in the file, for messages; pure but for reading it.

use std::{fs, path::Path};

use super::Location;

/// The lines of a configuration file; what comes from an included file has no line of its own here.
#[derive(Debug)]
pub struct Lines {
    file: String,
    text: String,
}

impl Lines {
    /// Reads a file; one that cannot be read has no lines.
    #[must_use]
    pub fn read(file: &Path) -> Self {
        let text = fs::read(file).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        Self { file: file.display().to_string(), text }
    }

    /// The file as a whole.
    #[must_use]
    pub fn file(&self) -> Option<Location> {
        Some(Location { file: self.file.clone(), line: 0 })
    }

    /// A key of the main section, under either of its names.
    #[must_use]
    pub fn of_main_key(&self, key: &str) -> Option<Location> {
        self.of_key(&["pgbouncer", "pgweir"], key)
    }

    /// An entry of `[databases]` or `[replicas]`; the last one of the same name holds.
    #[must_use]
    pub fn of_key(&self, sections: &[&str], key: &str) -> Option<Location> {
        let mut is_inside = false;
        let mut found = 0;
        for (line, number) in self.text.lines().zip(1..) {
            let line = line.trim();
            if let Some(section) = line.strip_prefix('[') {
                let section = section.split(']').next().unwrap_or_default().trim();
                is_inside = sections.contains(&section);
            } else if is_inside && key_of(line) == Some(key) {
                found = number;
            }
        }
        Some(Location { file: self.file.clone(), line: found })
    }
}

/// What stands before the `=`, without quotes.
fn key_of(line: &str) -> Option<&str> {
    let key = line.split_once('=')?.0.trim();
    if key.starts_with([';', '#']) {
        return None;
    }
    Some(key.strip_prefix('"').and_then(|key| key.strip_suffix('"')).unwrap_or(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
; auth_file = old
[databases]
shop = host=a
\"two words\" = host=b
[replicas]
shop = host=c
[pgweir]
auth_file = users.txt
[databases]
shop = host=d
";

    #[track_caller]
    fn check(sections: &[&str], key: &str, line: usize) {
        let lines = Lines { file: "p.ini".to_owned(), text: TEXT.to_owned() };
        assert_eq!(lines.of_key(sections, key), Some(Location { file: "p.ini".to_owned(), line }));
    }

    #[test]
    fn an_entry_is_found_in_its_section_and_the_last_one_holds() {
        check(&["databases"], "shop", 10);
        check(&["replicas"], "shop", 6);
        check(&["databases"], "two words", 4);
        check(&["pgbouncer", "pgweir"], "auth_file", 8);
    }

    #[test]
    fn what_is_not_in_this_file_has_the_file_alone() {
        check(&["databases"], "other", 0);
    }
}
