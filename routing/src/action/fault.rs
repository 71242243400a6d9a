//! `fault`: delays and aborts, before anything is sent upstream.
//!
//! Invariant: the dice for delay and abort are independent. Time limits, retries and mirrors see nothing of a fault
//! (Envoy: the fault filter stands before the router).

use super::share::{Share, Throw};
use config_model::istio::virtual_service::GRPC_STATUS_NAMES;
use std::time::Duration;

/// What may be injected; a fault with neither is not compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Wait first.
    pub delay: Option<Delay>,
    /// Then, or at once, answer with an error.
    pub abort: Option<Abort>,
}

/// A fixed delay for a share of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delay {
    /// How many requests.
    pub share: Share,
    /// How long; more than zero.
    pub time: Duration,
}

/// An error for a share of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abort {
    /// How many requests.
    pub share: Share,
    /// Which error.
    pub status: AbortStatus,
}

/// The error that an abort answers with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AbortStatus {
    /// An HTTP status, 200 to 599.
    Http(u16),
    /// A gRPC status code, 0 to 16.
    Grpc(u8),
}

impl AbortStatus {
    /// The code of a gRPC status by its canonical name, as in `UNAVAILABLE`.
    #[must_use]
    pub fn grpc(name: &str) -> Option<Self> {
        let code = GRPC_STATUS_NAMES.iter().position(|known| *known == name)?;
        u8::try_from(code).ok().map(Self::Grpc)
    }
}

/// What one request suffers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct FaultPlan {
    /// Wait this long first.
    pub delay: Option<Duration>,
    /// Then answer with this.
    pub abort: Option<AbortStatus>,
}

impl Fault {
    /// Throws the dice for one request; each value is uniform over all of `u64`.
    pub fn plan(&self, mut entropy: impl FnMut() -> u64) -> FaultPlan {
        let mut takes = |share: Share| share.throw(entropy()) == Throw::Takes;
        FaultPlan {
            delay: self.delay.filter(|delay| takes(delay.share)).map(|delay| delay.time),
            abort: self.abort.filter(|abort| takes(abort.share)).map(|abort| abort.status),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dice_are_independent() {
        let half = Share::of_percent(50).unwrap();
        let time = Duration::from_secs(1);
        let status = AbortStatus::Http(500);
        let fault =
            Fault { delay: Some(Delay { share: half, time }), abort: Some(Abort { share: half, status }) };
        for (dice, delay, abort) in [
            ([0, 0], Some(time), Some(status)),
            ([0, u64::MAX], Some(time), None),
            ([u64::MAX, 0], None, Some(status)),
            ([u64::MAX, u64::MAX], None, None),
        ] {
            let mut dice = dice.into_iter();
            assert_eq!(fault.plan(|| dice.next().unwrap()), FaultPlan { delay, abort });
        }
    }

    #[test]
    fn a_grpc_status_is_named_as_grpc_does() {
        assert_eq!(AbortStatus::grpc("OK"), Some(AbortStatus::Grpc(0)));
        assert_eq!(AbortStatus::grpc("UNAUTHENTICATED"), Some(AbortStatus::Grpc(16)));
        assert_eq!(AbortStatus::grpc("unavailable"), None);
    }
}
