//! Bytes from socket to socket by way of a pipe in the kernel: none of them is ever in this process (splice(2)).
//!
//! Invariant: what one end has sent before it is done reaches the other, then that end's end does; the other way goes on
//! (half-close). A way on which nothing moves holds no pipe.

use std::{
    io,
    net::Shutdown,
    os::fd::OwnedFd,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};
use socket2::SockRef;
use tokio::{io::Interest, net::TcpStream};

/// Bytes that a pipe takes (Linux: 16 pages).
const ROOM: usize = 64 * 1024;
/// Pipes that are kept for whoever needs one next.
const KEPT: usize = 64;
/// Bytes that are carried at a time where no pipe is to be had.
const BUFFER: usize = 16 * 1024;

/// Empty pipes.
#[derive(Debug, Default)]
pub(super) struct Pipes(Mutex<Vec<Pipe>>);

#[derive(Debug)]
struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

impl Pipes {
    fn take(&self) -> io::Result<Pipe> {
        if let Some(pipe) = self.kept().pop() {
            return Ok(pipe);
        }
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        Ok(Pipe { read, write })
    }

    /// Only empty ones: what is left in a pipe would come out of somebody else's connection.
    fn give_back(&self, pipe: Pipe) {
        let mut kept = self.kept();
        if kept.len() < KEPT {
            kept.push(pipe);
        }
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Vec<Pipe>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Each way until its end. A side that breaks, and not only ends, takes the other with it.
///
/// # Errors
/// What the side that broke reports.
pub(super) async fn both_ways(
    pipes: &Pipes,
    client: &TcpStream,
    upstream: &TcpStream,
    (received, sent): (&AtomicU64, &AtomicU64),
) -> io::Result<()> {
    tokio::try_join!(one_way(pipes, client, upstream, received), one_way(pipes, upstream, client, sent))?;
    Ok(())
}

/// Writes all of it.
///
/// # Errors
/// What the socket reports.
pub(super) async fn write_all(to: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        to.writable().await?;
        match to.try_write(bytes) {
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Why a way rests.
enum Rest {
    /// Nothing to read for now.
    Dry,
    /// Nothing more will come.
    End,
}

async fn one_way(pipes: &Pipes, from: &TcpStream, to: &TcpStream, count: &AtomicU64) -> io::Result<()> {
    loop {
        from.readable().await?;
        let rest = match pipes.take() {
            Ok(pipe) => {
                let rest = by_pipe(&pipe, from, to, count).await?;
                pipes.give_back(pipe);
                rest
            }
            // No descriptor is left; this process can carry them still.
            Err(_) => by_hand(from, to, count).await?,
        };
        if let Rest::End = rest {
            // A peer that is gone already need not be told.
            let _gone = SockRef::from(to).shutdown(Shutdown::Write);
            return Ok(());
        }
    }
}

/// Leaves the pipe empty.
async fn by_pipe(pipe: &Pipe, from: &TcpStream, to: &TcpStream, count: &AtomicU64) -> io::Result<Rest> {
    let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
    loop {
        // The pipe is empty, so that it is the socket that would block.
        let come =
            from.try_io(Interest::READABLE, || Ok(splice(from, None, &pipe.write, None, ROOM, flags)?));
        let mut left = match come {
            Ok(0) => return Ok(Rest::End),
            Ok(come) => come,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Rest::Dry),
            Err(error) => return Err(error),
        };
        count.fetch_add(left as u64, Ordering::Relaxed);
        while left > 0 {
            let gone = to.try_io(Interest::WRITABLE, || Ok(splice(&pipe.read, None, to, None, left, flags)?));
            match gone {
                Ok(gone) => left = left.saturating_sub(gone),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => to.writable().await?,
                Err(error) => return Err(error),
            }
        }
        // One that always has more must not keep the others waiting.
        tokio::task::coop::consume_budget().await;
    }
}

async fn by_hand(from: &TcpStream, to: &TcpStream, count: &AtomicU64) -> io::Result<Rest> {
    let mut buffer = vec![0; BUFFER];
    loop {
        match from.try_read(&mut buffer) {
            Ok(0) => return Ok(Rest::End),
            Ok(come) => {
                count.fetch_add(come as u64, Ordering::Relaxed);
                write_all(to, buffer.get(..come).unwrap_or_default()).await?;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Rest::Dry),
            Err(error) => return Err(error),
        }
        tokio::task::coop::consume_budget().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (client, listener.accept().await.unwrap().0)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn all_bytes_arrive_each_way_and_a_half_is_closed_by_itself() {
        const LENGTH: usize = 20 << 20;
        let ((mut client, near), (far, mut upstream)) = (pair().await, pair().await);
        let pipes = Arc::new(Pipes::default());
        let carried = tokio::spawn({
            let pipes = pipes.clone();
            async move {
                let (received, sent) = (AtomicU64::new(0), AtomicU64::new(0));
                both_ways(&pipes, &near, &far, (&received, &sent)).await.unwrap();
                (received.into_inner(), sent.into_inner())
            }
        });
        let bytes: Vec<u8> = (0..LENGTH).map(|n| (n % 251) as u8).collect();
        let answering = tokio::spawn({
            let bytes = bytes.clone();
            async move {
                let mut got = Vec::new();
                upstream.read_to_end(&mut got).await.unwrap();
                assert!(got == bytes, "the upstream got something else");
                // The client has closed its half; ours goes on.
                upstream.write_all(&bytes).await.unwrap();
                upstream.shutdown().await.unwrap();
            }
        });
        client.write_all(&bytes).await.unwrap();
        client.shutdown().await.unwrap();
        let mut back = Vec::new();
        client.read_to_end(&mut back).await.unwrap();
        assert!(back == bytes, "the client got something else");
        answering.await.unwrap();
        assert_eq!(carried.await.unwrap(), (LENGTH as u64, LENGTH as u64));
        assert!(!pipes.kept().is_empty() && pipes.kept().len() <= 2, "pipes are given back");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_side_that_breaks_takes_the_other_with_it() {
        let ((client, near), (far, mut upstream)) = (pair().await, pair().await);
        let pipes = Pipes::default();
        SockRef::from(&client).set_linger(Some(std::time::Duration::ZERO)).unwrap();
        drop(client);
        let (received, sent) = (AtomicU64::new(0), AtomicU64::new(0));
        assert!(both_ways(&pipes, &near, &far, (&received, &sent)).await.is_err());
        drop((near, far));
        assert_eq!(upstream.read(&mut [0]).await.unwrap_or(0), 0);
    }
}
