//! The one timer of a connection.
//!
//! Invariant: a request on a connection that has its idle timer costs no turn of the runtime's clock.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};
use tokio::time::{Instant, Sleep};

/// An idle connection is looked at so often within its idle time.
const IDLE_LOOKS: u32 = 4;

/// The one timer of a connection. Set for an idle connection it is not moved with each request, which would cost every request
/// a turn of the runtime's clock; it looks whether there was one meanwhile.
#[derive(Default)]
pub(super) struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
    waker: Option<Waker>,
    /// Requests at the last look, and how many looks have found no other.
    heads: u64,
    quiet: u32,
    purpose: Purpose,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Purpose {
    #[default]
    Idle,
    Deadline,
}

impl Timer {
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(sleep) = &mut self.sleep else { return Poll::Pending };
        let polled = sleep.as_mut().poll(cx);
        if polled.is_pending() {
            self.waker = Some(cx.waker().clone());
        }
        polled
    }

    pub(super) fn set(&mut self, deadline: Instant, purpose: Purpose) {
        self.purpose = purpose;
        self.waker = None;
        match &mut self.sleep {
            Some(sleep) => sleep.as_mut().reset(deadline),
            none => *none = Some(Box::pin(tokio::time::sleep_until(deadline))),
        }
    }

    /// Ready at `end`. A timer that runs already, and not for longer, is left alone until it ends: ends that move on with each
    /// request cost none of them a turn of the clock.
    pub(super) fn poll_by(&mut self, end: Instant, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match self.sleep.as_ref().map(|sleep| (sleep.deadline(), sleep.is_elapsed())) {
                Some((deadline, false)) if deadline <= end => {
                    if self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                        return Poll::Pending;
                    }
                    ready!(self.poll(cx));
                }
                Some((_, true)) if end <= Instant::now() => return Poll::Ready(()),
                _ => self.set(end, Purpose::Deadline),
            }
        }
    }

    pub(super) fn poll_deadline(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        if self.purpose != Purpose::Deadline || self.sleep.as_ref().is_none_or(|s| s.deadline() != deadline) {
            self.set(deadline, Purpose::Deadline);
        }
        self.poll(cx)
    }

    /// Ready when there was no new request for `limit`, or up to a quarter longer.
    pub(super) fn poll_idle(&mut self, limit: Duration, heads: u64, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let running = self.purpose == Purpose::Idle && self.sleep.is_some();
            let elapsed = self.sleep.as_ref().is_some_and(|s| s.is_elapsed());
            if running && !elapsed {
                if self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                    return Poll::Pending;
                }
                ready!(self.poll(cx));
                continue;
            }
            if running && self.heads == heads {
                self.quiet += 1;
                if self.quiet >= IDLE_LOOKS {
                    return Poll::Ready(());
                }
            } else {
                (self.heads, self.quiet) = (heads, 0);
            }
            self.set(Instant::now() + limit / IDLE_LOOKS, Purpose::Idle);
        }
    }
}
