//! Where lines go: stderr, a file, or both.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tracing_subscriber::fmt::MakeWriter;

/// A file opened for appending that can be opened again under the same name.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    file: File,
}

impl LogFile {
    /// Creates it where it does not exist.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// After a rotation; the old file stays in use where that fails.
    pub fn reopen(&mut self) -> io::Result<()> {
        *self = Self::open(&self.path)?;
        Ok(())
    }
}

impl Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// The outputs of the process' log; clones share them.
#[derive(Clone, Debug)]
pub struct LogOutput {
    stderr: Arc<AtomicBool>,
    file: Arc<Mutex<Option<LogFile>>>,
}

impl LogOutput {
    /// Fails where the file cannot be opened.
    pub fn open(path: Option<&Path>, quiet: bool) -> io::Result<Self> {
        let file = path.map(LogFile::open).transpose()?;
        Ok(Self { stderr: Arc::new(AtomicBool::new(!quiet)), file: Arc::new(Mutex::new(file)) })
    }

    /// Lines go to standard error no more.
    pub(super) fn leave_stderr(&self) {
        self.stderr.store(false, Ordering::Relaxed);
    }

    /// Another file, the same one opened again, or none.
    pub fn set_file(&self, path: Option<&Path>) -> io::Result<()> {
        let file = path.map(LogFile::open).transpose()?;
        *self.file() = file;
        Ok(())
    }

    fn file(&self) -> MutexGuard<'_, Option<LogFile>> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for LogOutput {
    /// A full disk or a closed stderr must not stop the proxy: what cannot be written is dropped.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Some(file) = self.file().as_mut() {
            let _ = file.write_all(line);
        }
        if self.stderr.load(Ordering::Relaxed) {
            let _ = io::stderr().lock().write_all(line);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogOutput {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
