//! When a connection without a request is closed because room is wanted, or because the process goes.
//!
//! Invariant: who was let in a moment ago is not idle yet. Otherwise a level that swings would let clients in and close them unheard.

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

/// Returns when it is asked for, and not before `fair`; never once nobody is left who could ask.
pub(super) async fn closed(mut close_idle: watch::Receiver<bool>, fair: Instant) {
    loop {
        if close_idle.wait_for(|close| *close).await.is_err() {
            std::future::pending::<()>().await;
        }
        sleep_until(fair).await;
        // It may have been taken back meanwhile.
        if *close_idle.borrow() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_newcomer_has_its_time_and_an_older_connection_none() {
        let (ask, asked) = watch::channel(true);
        let begin = Instant::now();
        closed(asked.clone(), begin + SECOND).await;
        assert_eq!(begin.elapsed(), SECOND);
        closed(asked.clone(), begin).await;
        assert_eq!(begin.elapsed(), SECOND, "at once");

        ask.send_replace(false);
        let waiting = tokio::spawn(closed(asked.clone(), begin));
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        ask.send_replace(true);
        waiting.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_taken_back_in_time_closes_nothing() {
        let (ask, asked) = watch::channel(true);
        let fair = Instant::now() + SECOND;
        let waiting = tokio::spawn(closed(asked, fair));
        tokio::task::yield_now().await;
        ask.send_replace(false);
        tokio::time::sleep(2 * SECOND).await;
        assert!(!waiting.is_finished());
        drop(ask);
        let waited = timeout(SECOND, waiting).await;
        assert!(waited.is_err(), "nobody asks any more");
    }
}
