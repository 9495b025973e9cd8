//! One temporary directory per test process, and the watchdog that clears up after it.

use std::{
    env, fs,
    net::TcpListener,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{self, Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use super::programs;

/// Waits on a pipe that only the test process holds, so it acts when that process is gone: by a
/// normal end, a panic or a kill. Its own process group keeps Ctrl-C away from it.
const WATCHDOG: &str = r#"
cat >/dev/null
for file in "$1"/pids/*; do
    [ -e "$file" ] && kill -9 "${file##*/}" 2>/dev/null
done
postmasters=$(head -qn 1 "$1"/*/*/postmaster.pid 2>/dev/null)
for pid in $postmasters; do kill -QUIT "$pid" 2>/dev/null; done
for attempt in $(seq 200); do
    alive=
    for pid in $postmasters; do kill -0 "$pid" 2>/dev/null && alive=1; done
    [ -z "$alive" ] && break
    sleep 0.05
done
for pid in $postmasters; do kill -9 "$pid" 2>/dev/null; done
rm -rf "$1"
"#;

/// The directory of this test process.
pub struct Scratch {
    root: PathBuf,
    counter: AtomicU32,
    /// Its standard input is the pipe that the watchdog waits on.
    _watchdog: Child,
}

/// The one of this process.
pub fn scratch() -> &'static Scratch {
    static SCRATCH: OnceLock<Scratch> = OnceLock::new();
    SCRATCH.get_or_init(Scratch::create)
}

impl Scratch {
    fn create() -> Self {
        let root = env::temp_dir().join(format!("pgweir-tests-{}", process::id()));
        fs::create_dir_all(root.join("pids")).unwrap();
        programs::hand_over(&root);
        let watchdog = Command::new("/bin/sh")
            .args(["-c", WATCHDOG, "watchdog"])
            .arg(&root)
            .process_group(0)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh");
        Self { root, counter: AtomicU32::new(0), _watchdog: watchdog }
    }

    /// A number nobody else in this process has.
    pub fn unique(&self) -> u32 {
        self.counter.fetch_add(1, Ordering::Relaxed)
    }

    /// A fresh directory that the unprivileged user owns.
    pub fn directory(&self, name: &str) -> PathBuf {
        let directory = self.root.join(format!("{name}-{}", self.unique()));
        fs::create_dir(&directory).unwrap();
        programs::hand_over(&directory);
        directory
    }

    /// A file of this content that the unprivileged user owns.
    pub fn write(&self, path: &Path, content: &str) {
        fs::write(path, content).unwrap();
        programs::hand_over(path);
    }

    /// The unprivileged user may not reach the build directory, so it gets the program here.
    pub fn reachable(&self, program: &Path) -> PathBuf {
        if programs::unprivileged().is_none() || program.starts_with("/usr") {
            return program.to_path_buf();
        }
        let name = program.file_name().expect("a program has a name");
        let own = self.root.join(name);
        if !own.exists() {
            let fresh = self.root.join(format!("{}.{}", name.to_string_lossy(), self.unique()));
            fs::hard_link(program, &fresh).or_else(|_| fs::copy(program, &fresh).map(drop)).unwrap();
            fs::rename(&fresh, &own).unwrap();
        }
        own
    }
}

/// A child process that dies with its owner, and with the test process.
pub struct Owned {
    child: Child,
}

impl Owned {
    /// Starts it and tells the watchdog about it.
    pub fn spawn(mut command: Command) -> Self {
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        fs::write(pid_file(child.id()), "").unwrap();
        Self { child }
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<process::ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Sends a signal to it.
    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(self.child.id().try_into().unwrap());
        nix::sys::signal::kill(pid, signal).unwrap();
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        drop(fs::remove_file(pid_file(self.child.id())));
    }
}

/// A process that is nobody's child: the watchdog ends it, too.
pub struct Adopted(u32);

impl Adopted {
    /// Takes charge of it.
    pub fn new(pid: u32) -> Self {
        fs::write(pid_file(pid), "").unwrap();
        Self(pid)
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.0
    }

    /// Sends a signal to it; false if it is gone.
    pub fn signal(&self, signal: nix::sys::signal::Signal) -> bool {
        let pid = nix::unistd::Pid::from_raw(self.0.try_into().unwrap());
        nix::sys::signal::kill(pid, signal).is_ok()
    }
}

impl Drop for Adopted {
    fn drop(&mut self) {
        self.signal(nix::sys::signal::Signal::SIGKILL);
        drop(fs::remove_file(pid_file(self.0)));
    }
}

fn pid_file(pid: u32) -> PathBuf {
    scratch().root.join("pids").join(pid.to_string())
}

/// A port nobody listens on, below the range from which the kernel takes outgoing ports: those
/// could be taken between our look and the server's bind.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        // Test processes run side by side: those whose numbers are close begin far from each other.
        let offset = (process::id().wrapping_mul(7411).wrapping_add(step)) % 12_000;
        let port = 20_000 + u16::try_from(offset).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
