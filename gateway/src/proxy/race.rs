//! One connection to whichever of several addresses of a host answers first (RFC 8305 §5, Envoy's happy eyeballs).
//!
//! Invariant: at most one connection comes out of it, and the others are closed before it is used. The order is the
//! caller's; how long the whole may take is the caller's too.

use futures::stream::{FuturesUnordered, StreamExt as _};
use std::{future::Future, io, net::SocketAddr, time::Duration};

/// How long an attempt has before the next address is tried beside it (Envoy: 300 ms; RFC 8305 §8 asks for 100 ms to 2 s).
pub(super) const NEXT_AFTER: Duration = Duration::from_millis(300);

/// Connects to one of `addresses`. An attempt that fails is followed by the next at once, one that hangs after
/// [`NEXT_AFTER`].
///
/// # Errors
/// Why the first address could not be connected to, where none could.
pub(super) async fn first<T, F>(
    addresses: impl IntoIterator<Item = SocketAddr>,
    mut connect: impl FnMut(SocketAddr) -> F,
) -> io::Result<(T, SocketAddr)>
where
    F: Future<Output = io::Result<T>>,
{
    let mut waiting = addresses.into_iter().peekable();
    let mut attempts = FuturesUnordered::new();
    let mut failure: Option<(usize, io::Error)> = None;
    let mut started = 0;
    loop {
        if let Some(address) = waiting.next() {
            let attempt = connect(address);
            let index = started;
            attempts.push(async move { (index, address, attempt.await) });
            started += 1;
        }
        tokio::select! {
            Some((index, address, outcome)) = attempts.next() => match outcome {
                Ok(connection) => return Ok((connection, address)),
                Err(error) if failure.as_ref().is_none_or(|(known, _)| index < *known) => {
                    failure = Some((index, error));
                }
                Err(_) => {}
            },
            () = tokio::time::sleep(NEXT_AFTER), if waiting.peek().is_some() => {}
            else => {}
        }
        if attempts.is_empty() && waiting.peek().is_none() {
            let why = failure.map(|(_, error)| error);
            return Err(why.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use tokio::time::Instant;

    fn address(n: u8) -> SocketAddr {
        ([10, 0, 0, n], 80).into()
    }

    /// What becomes of an attempt.
    #[derive(Clone, Copy)]
    enum Fate {
        Connects(u64),
        Fails(u64),
        Hangs,
    }

    async fn race(fates: &[Fate]) -> (io::Result<SocketAddr>, Duration, Vec<Duration>) {
        let (begun, starts) = (Instant::now(), RefCell::new(Vec::new()));
        let addresses = (0_u8..).map(address).take(fates.len());
        let outcome = first(addresses, |address| {
            starts.borrow_mut().push(begun.elapsed());
            let SocketAddr::V4(v4) = address else { unreachable!() };
            let fate = fates[usize::from(v4.ip().octets()[3])];
            async move {
                match fate {
                    Fate::Connects(after) => {
                        tokio::time::sleep(Duration::from_millis(after)).await;
                        Ok(())
                    }
                    Fate::Fails(after) => {
                        tokio::time::sleep(Duration::from_millis(after)).await;
                        Err(io::Error::other(format!("{address}")))
                    }
                    Fate::Hangs => std::future::pending().await,
                }
            }
        });
        let outcome = outcome.await.map(|((), address)| address);
        (outcome, begun.elapsed(), starts.into_inner())
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_that_connects_wins_and_nothing_else_is_begun() {
        let (won, after, starts) = race(&[Fate::Connects(20), Fate::Connects(0)]).await;
        assert_eq!((won.unwrap(), after, starts), (address(0), ms(20), vec![ms(0)]));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_hangs_is_overtaken_after_the_delay() {
        let (won, after, starts) = race(&[Fate::Hangs, Fate::Hangs, Fate::Connects(5)]).await;
        assert_eq!((won.unwrap(), after), (address(2), ms(605)));
        assert_eq!(starts, [ms(0), ms(300), ms(600)]);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_fails_is_followed_at_once() {
        let (won, after, _) = race(&[Fate::Fails(7), Fate::Connects(3)]).await;
        assert_eq!((won.unwrap(), after), (address(1), ms(10)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_first_still_wins_over_a_hanging_second() {
        let (won, after, _) = race(&[Fate::Connects(500), Fate::Hangs]).await;
        assert_eq!((won.unwrap(), after), (address(0), ms(500)));
    }

    #[tokio::test(start_paused = true)]
    async fn where_none_connects_the_first_addresss_failure_is_told() {
        let (won, after, _) = race(&[Fate::Fails(400), Fate::Fails(1)]).await;
        assert_eq!((won.unwrap_err().to_string(), after), ("10.0.0.0:80".to_owned(), ms(400)));
        assert!(race(&[]).await.0.is_err());
    }
}
