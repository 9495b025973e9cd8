//! A directory for everything a demonstration writes, and free ports.

use std::{
    fs::{self, DirBuilder},
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::{DirBuilderExt, PermissionsExt, chown},
    path::{Path, PathBuf},
};

use nix::unistd::User;

use super::error::DemoError;

/// Removed when dropped.
pub(super) struct Scratch {
    root: PathBuf,
    owner: Option<User>,
}

impl Scratch {
    /// Nobody but the owner of the servers may look inside.
    pub(super) fn create(owner: Option<&User>) -> Result<Self, DemoError> {
        let draw = getrandom::u64().unwrap_or_else(|_| u64::from(std::process::id()));
        let root = std::env::temp_dir().join(format!("pgweir-demo-{draw:016x}"));
        let made = DirBuilder::new().mode(0o700).create(&root);
        made.map_err(DemoError::doing(format!("create {}", root.display())))?;
        let scratch = Self { root, owner: owner.cloned() };
        scratch.hand_over(&scratch.root)?;
        Ok(scratch)
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// A file that the servers' user may read.
    pub(super) fn write(&self, name: &str, text: &str) -> Result<PathBuf, DemoError> {
        let path = self.path(name);
        fs::write(&path, text).map_err(DemoError::doing(format!("write {}", path.display())))?;
        self.hand_over(&path)?;
        Ok(path)
    }

    /// A program that the servers' user may run, wherever the original lies: builds in a home directory are closed to
    /// others.
    pub(super) fn install(&self, program: &Path, name: &str) -> Result<PathBuf, DemoError> {
        let path = self.path(name);
        let copied =
            fs::copy(program, &path).and_then(|_| fs::set_permissions(&path, PermissionsExt::from_mode(0o755)));
        copied.map_err(DemoError::doing(format!("copy {}", program.display())))?;
        self.hand_over(&path)?;
        Ok(path)
    }

    fn hand_over(&self, path: &Path) -> Result<(), DemoError> {
        let Some(owner) = &self.owner else {
            return Ok(());
        };
        let given = chown(path, Some(owner.uid.as_raw()), Some(owner.gid.as_raw()));
        given.map_err(DemoError::doing(format!("give {} to {}", path.display(), owner.name)))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.root) {
            super::say_wrong(format_args!("pgweir demo: cannot remove {}: {error}", self.root.display()));
        }
    }
}

/// Below the ports that the kernel gives to outgoing connections: one of those could take it before the server does.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
const PORTS_TRIED: usize = 1000;

/// A port that was free a moment ago.
pub(super) fn free_port() -> Result<u16, DemoError> {
    let draw = || getrandom::u32().map_err(|error| DemoError::doing("draw a port")(error.into()));
    for _ in 0..PORTS_TRIED {
        let port = PORTS.start + (draw()? % u32::from(PORTS.end - PORTS.start)) as u16;
        if is_free(port) {
            return Ok(port);
        }
    }
    Err(DemoError::NoFreePort)
}

pub(super) fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}
