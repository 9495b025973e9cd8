//! Drivers of other languages, and the scripts that use them.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// Where the scripts are.
pub const HERE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/drivers");

/// Where `install.sh` has put the drivers.
pub fn installed() -> &'static Path {
    static INSTALLED: OnceLock<PathBuf> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        let output = Command::new(format!("{HERE}/install.sh")).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "the drivers need python3-venv, nodejs and npm: apt-get install them, or run tests/run.sh\n{said}"
        );
        PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
    })
}
