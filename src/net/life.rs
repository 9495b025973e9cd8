//! Tells another process for certain that one of ours has ended, whatever ended it: the kernel closes its pipe.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use tokio::net::unix::pipe::Receiver;

/// The end of a pipe whose other end is open for as long as a process lives.
#[derive(Debug)]
pub struct Life(OwnedFd);

impl Life {
    /// Of the calling process, from now on. Nobody but the kernel closes the other end.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn of_this_process() -> io::Result<Self> {
        let (life, held) = io::pipe()?;
        std::mem::forget(held);
        Ok(Self(life.into()))
    }

    /// Of the process that has sent this descriptor.
    #[must_use]
    pub fn of_sender(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }

    /// To be sent to another process.
    #[must_use]
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Waits until that process has ended. Cancel safe.
    ///
    /// # Errors
    /// It is not the end of a pipe.
    pub async fn end(&self) -> io::Result<()> {
        let pipe = Receiver::from_owned_fd(self.0.try_clone()?)?;
        loop {
            pipe.readable().await?;
            match pipe.try_read(&mut [0]) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn it_ends_with_the_last_who_holds_the_other_end() {
        let (life, held) = io::pipe().unwrap();
        let life = Life::of_sender(life.into());
        let copy = held.try_clone().unwrap();
        drop(held);
        assert!(tokio::time::timeout(Duration::from_millis(50), life.end()).await.is_err());
        drop(copy);
        life.end().await.unwrap();
        life.end().await.unwrap();
    }
}
