//! Where the programs of PostgreSQL and Redis are, and as whom they run.

use std::{
    env, fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use nix::{
    sys::resource::{Resource, getrlimit, setrlimit},
    unistd::{Uid, User},
};

/// A program of PostgreSQL's server packages. The newest installed version wins; `PGBIN` names another.
pub fn postgres_program(name: &str) -> PathBuf {
    let candidates = postgres_directories();
    candidates.iter().map(|directory| directory.join(name)).find(|program| program.is_file()).unwrap_or_else(|| {
        panic!("{name} not found in PGBIN, /usr/lib/postgresql/*/bin or PATH: apt-get install postgresql")
    })
}

/// A program found in `PATH` or where Debian puts daemons.
pub fn program(name: &str, package: &str) -> PathBuf {
    path_directories()
        .into_iter()
        .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/usr/bin")])
        .map(|directory| directory.join(name))
        .find(|program| program.is_file())
        .unwrap_or_else(|| panic!("{name} not found: apt-get install {package}"))
}

fn path_directories() -> Vec<PathBuf> {
    env::var_os("PATH").map_or_else(Vec::new, |path| env::split_paths(&path).collect())
}

fn postgres_directories() -> &'static [PathBuf] {
    static DIRECTORIES: OnceLock<Vec<PathBuf>> = OnceLock::new();
    DIRECTORIES.get_or_init(|| {
        let mut versions: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| {
                let version = entry.file_name().to_str()?.parse().ok()?;
                Some((version, entry.path().join("bin")))
            })
            .collect();
        versions.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
        let mut directories: Vec<PathBuf> = env::var_os("PGBIN").map(PathBuf::from).into_iter().collect();
        directories.extend(versions.into_iter().map(|(_, directory)| directory));
        directories.extend(path_directories());
        directories
    })
}

/// Whom servers run as when the tests run as root: PostgreSQL and pgweir both refuse root.
pub fn unprivileged() -> Option<&'static User> {
    static USER: OnceLock<Option<User>> = OnceLock::new();
    USER.get_or_init(|| {
        if !Uid::effective().is_root() {
            return None;
        }
        let named = |name| User::from_name(name).ok().flatten();
        Some(named("postgres").or_else(|| named("nobody")).expect("neither postgres nor nobody is a user here"))
    })
    .as_ref()
}

/// A command that runs as the unprivileged user, without input, without output.
pub fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    if let Some(user) = unprivileged() {
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.current_dir("/").env_remove("PGHOST").env_remove("PGPORT").env_remove("PGUSER");
    command
}

/// Hands a file or directory to the unprivileged user.
pub fn hand_over(path: &Path) {
    if let Some(user) = unprivileged() {
        std::os::unix::fs::chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw()))
            .unwrap_or_else(|error| panic!("chown {}: {error}", path.display()));
    }
}

/// Runs to the end and panics with what the command said unless it succeeded.
pub fn run(mut command: Command) -> String {
    let shown = format!("{command:?}");
    let output = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output()
        .unwrap_or_else(|error| panic!("{shown}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{shown} ended with {}\n{text}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

/// Descriptors beside those of the clients that a test opens.
const OTHER_DESCRIPTORS: u64 = 300;

/// Room for as many sockets, here and in what is started from now on. The whole process must be asked for at once: its
/// tests run side by side.
#[track_caller]
pub fn allow_descriptors(sockets: usize) {
    let wanted = sockets as u64 + OTHER_DESCRIPTORS;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    assert!(hard >= wanted, "{wanted} descriptors are needed, the hard limit is {hard}: raise it");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
}
