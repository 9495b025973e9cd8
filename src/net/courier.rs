//! Messages between two processes of ours over a unix socket: a length, so many bytes, and with the first of them at
//! most one descriptor.

use std::{
    collections::VecDeque,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{BorrowedFd, OwnedFd},
    sync::{Mutex, MutexGuard, PoisonError},
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use tokio::{io::Interest, net::UnixStream};

/// Longest message.
const MESSAGE_LIMIT_BYTES: usize = 64 << 20;

/// Our end. One task may send while another one receives.
#[derive(Debug)]
pub struct Courier {
    stream: UnixStream,
    inbound: Mutex<Inbound>,
}

/// What has arrived and is not a whole message yet, and descriptors in the order of their messages.
#[derive(Debug, Default)]
struct Inbound {
    bytes: Vec<u8>,
    descriptors: VecDeque<OwnedFd>,
}

impl Inbound {
    fn take_message(&mut self) -> io::Result<Option<Vec<u8>>> {
        let Some((length, rest)) = self.bytes.split_first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_be_bytes(*length) as usize;
        if length > MESSAGE_LIMIT_BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let Some(body) = rest.get(..length).map(<[u8]>::to_vec) else { return Ok(None) };
        self.bytes.drain(..4 + length);
        Ok(Some(body))
    }
}

impl Courier {
    /// Takes a connection over.
    #[must_use]
    pub fn new(stream: UnixStream) -> Self {
        Self { stream, inbound: Mutex::default() }
    }

    /// Gives the connection back.
    #[must_use]
    pub fn into_stream(self) -> UnixStream {
        self.stream
    }

    /// From now on nothing can be sent, by neither side. What has been sent can still be received.
    pub fn shut_down(&self) {
        if let Err(error) = socket2::SockRef::from(&self.stream).shutdown(std::net::Shutdown::Both) {
            tracing::debug!(%error, "the other process has gone already");
        }
    }

    /// Sends a message; not cancel safe. The caller keeps its descriptor.
    ///
    /// # Errors
    /// The peer has gone, or the message is too long.
    pub async fn send(&self, body: &[u8], descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
        if body.len() > MESSAGE_LIMIT_BYTES {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut message = (body.len() as u32).to_be_bytes().to_vec();
        message.extend_from_slice(body);
        let (mut rest, mut descriptor) = (message.as_slice(), descriptor);
        while !rest.is_empty() {
            let sent = self.stream.async_io(Interest::WRITABLE, || send_once(&self.stream, rest, descriptor)).await?;
            descriptor = None;
            rest = rest.get(sent..).unwrap_or_default();
        }
        Ok(())
    }

    /// The next message; `None` when the peer has closed. Cancel safe.
    ///
    /// # Errors
    /// The socket failed, or what came is no message.
    pub async fn receive(&self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(message) = self.inbound().take_message()? {
                return Ok(Some(message));
            }
            if self.stream.async_io(Interest::READABLE, || self.receive_once()).await? == 0 {
                let is_whole = self.inbound().bytes.is_empty();
                return if is_whole { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
        }
    }

    /// The descriptor of the message that has just been received, if it has one.
    pub fn descriptor(&self) -> Option<OwnedFd> {
        self.inbound().descriptors.pop_front()
    }

    fn inbound(&self) -> MutexGuard<'_, Inbound> {
        self.inbound.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn receive_once(&self) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut buffer = [0; 16 * 1024];
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let received = recvmsg(&self.stream, &mut [IoSliceMut::new(&mut buffer)], &mut control, flags)?;
        let mut inbound = self.inbound();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                inbound.descriptors.extend(descriptors);
            }
        }
        inbound.bytes.extend_from_slice(buffer.get(..received.bytes).unwrap_or_default());
        Ok(received.bytes)
    }
}

fn send_once(stream: &UnixStream, bytes: &[u8], descriptor: Option<BorrowedFd<'_>>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = descriptor.as_slice();
    if !descriptors.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    Ok(sendmsg(stream, &[IoSlice::new(bytes)], &mut control, flags)?)
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        io::{Read, Seek, Write},
        os::fd::AsFd,
    };

    use super::*;

    fn pair() -> (Courier, Courier) {
        let (left, right) = UnixStream::pair().unwrap();
        (Courier::new(left), Courier::new(right))
    }

    #[tokio::test]
    async fn each_descriptor_arrives_with_its_own_message() {
        let (left, right) = pair();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"inside").unwrap();
        left.send(b"one", None).await.unwrap();
        left.send(b"two", Some(file.as_fd())).await.unwrap();
        left.send(b"", None).await.unwrap();
        drop(left);
        assert_eq!(right.receive().await.unwrap().unwrap(), b"one");
        assert_eq!(right.receive().await.unwrap().unwrap(), b"two");
        let (mut received, mut text) = (File::from(right.descriptor().unwrap()), String::new());
        received.rewind().unwrap();
        received.read_to_string(&mut text).unwrap();
        assert_eq!(text, "inside");
        assert_eq!(right.receive().await.unwrap().unwrap(), b"");
        assert!(right.descriptor().is_none());
        assert!(right.receive().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_message_longer_than_the_sockets_buffer_arrives_whole() {
        let (left, right) = pair();
        let long = vec![7; 3 << 20];
        let (sent, received) = tokio::join!(left.send(&long, None), right.receive());
        sent.unwrap();
        assert!(received.unwrap().is_some_and(|body| body == long));
    }

    #[tokio::test]
    async fn what_was_sent_before_the_end_is_still_received_and_nothing_is_sent_behind_it() {
        let (left, right) = pair();
        left.send(b"in time", None).await.unwrap();
        right.shut_down();
        assert!(left.send(b"too late", None).await.is_err());
        assert_eq!(right.receive().await.unwrap().unwrap(), b"in time");
        assert!(right.receive().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn what_is_no_message_of_ours_is_refused_before_room_is_made_for_it() {
        let (left, right) = pair();
        left.stream.try_write(b"R\0\0\0\x08").unwrap();
        assert_eq!(right.receive().await.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
