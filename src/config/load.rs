//! The only place where configuration meets the file system and the environment.

use std::{env, fs, io, path::Path};

use super::{
    Config,
    error::{ConfigError, Location, Problem},
};

impl Config {
    /// Reads a configuration file and what it includes. Relative names are relative to the working directory.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let file = path.display().to_string();
        let text = read(&file).map_err(|error| {
            let whole = Location { file: file.clone(), line: 0 };
            Problem::new("a readable file", error.to_string()).at(Some(whole))
        })?;
        let mut config = Config::parse(&text, &file, &|name| env::var(name).ok(), &read)?;
        config.pgbouncer.conffile.get_or_insert(file);
        Ok(config)
    }
}

/// Another encoding than UTF-8 becomes replacement characters; the reader refuses them outside comments.
fn read(file: &str) -> io::Result<String> {
    fs::read(file).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_is_read_with_what_it_includes_and_remembers_its_own_name() {
        let directory = tempfile::tempdir().unwrap();
        let (main, more) = (directory.path().join("a.ini"), directory.path().join("b.ini"));
        fs::write(&more, b"; f\xfcr\nlisten_port = 7\n").unwrap();
        fs::write(&main, format!("[pgbouncer]\n%include {}\n", more.display())).unwrap();
        let config = Config::load(&main).unwrap();
        assert_eq!(config.pgbouncer.listen_port, 7);
        assert_eq!(config.pgbouncer.conffile.as_deref(), main.to_str());
    }

    #[test]
    fn a_file_that_is_not_there_is_an_error_that_names_it() {
        let error = Config::load(Path::new("/nowhere/a.ini")).unwrap_err().to_string();
        assert!(error.starts_with("/nowhere/a.ini: expected a readable file, got "), "{error}");
    }
}
