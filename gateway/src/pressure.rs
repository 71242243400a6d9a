//! How near the process is to the end of its memory and of its file descriptors, and what it does about that.
//!
//! Invariant: nothing here ends a request that has begun, or the process. What it asks for grows in steps: clients are asked
//! to go, then new requests get 503, then nothing more is accepted and who is idle is closed; each step is taken back by itself. The data path reads
//! one number; usage is sampled elsewhere.

mod usage;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use prometheus::{IntGauge, IntGaugeVec, Opts};
use tokio::sync::Notify;

use crate::{
    listener::ListenerManager,
    telemetry::{self, names},
};

pub use usage::{Part, System, Usage, UsageReader};

/// How often usage is looked at while there is plenty (Envoy's overload manager: `refresh_interval` of the edge page).
const PERIOD: Duration = Duration::from_millis(250);

/// And from half of the first mark on: the kernel does not wait for the next look.
const CLOSE: Duration = Duration::from_millis(50);

/// A step is taken back when usage is this many percent below its mark, so that it does not flutter.
const SLACK: u8 = 2;

/// What the process asks of clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[must_use]
pub enum Level {
    /// Nothing.
    #[default]
    Calm,
    /// To go after what they have begun: `Connection: close`, GOAWAY.
    Reluctant,
    /// To come back later: 503 with `Retry-After`.
    Shedding,
    /// Nothing more is accepted, and whoever has no request under way is closed: otherwise silent clients could keep it so.
    Full,
}

/// Shares of a limit, in percent, from which on something is asked of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks {
    /// [`Level::Reluctant`].
    pub keepalive: u8,
    /// [`Level::Shedding`].
    pub requests: u8,
    /// [`Level::Full`].
    pub connections: u8,
}

impl Default for Marks {
    /// Envoy's page about edges begins at 92 and goes up to 98 of a limit that it counts itself; a limit of the kernel's is hit
    /// between two looks, so these are lower.
    fn default() -> Marks {
        Marks { keepalive: 85, requests: 92, connections: 95 }
    }
}

impl Marks {
    fn level(&self, share: u8) -> Level {
        match share {
            share if share >= self.connections => Level::Full,
            share if share >= self.requests => Level::Shedding,
            share if share >= self.keepalive => Level::Reluctant,
            _ => Level::Calm,
        }
    }
}

/// What the process may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory; `None`: what the control group says.
    pub memory: Option<u64>,
    /// File descriptors; `None`: what the process was given (`RLIMIT_NOFILE`).
    pub files: Option<u64>,
    /// When something is done.
    pub marks: Marks,
}

/// The level, for everybody who asks.
#[derive(Debug, Default)]
pub struct Pressure {
    level: AtomicU8,
    changed: Notify,
}

impl Pressure {
    /// Now.
    pub fn level(&self) -> Level {
        match self.level.load(Ordering::Relaxed) {
            0 => Level::Calm,
            1 => Level::Reluctant,
            2 => Level::Shedding,
            _ => Level::Full,
        }
    }

    /// The level that what was seen leads to, where it is another.
    pub(crate) fn next(&self, share: u8, marks: &Marks) -> Option<Level> {
        let now = self.level();
        let (up, down) = (marks.level(share), marks.level(share.saturating_add(SLACK)));
        let next = if up > now { up } else { down.min(now) };
        (next != now).then_some(next)
    }

    /// What holds from here on; who waits for room is told.
    pub(crate) fn set(&self, level: Level) {
        self.level.store(level as u8, Ordering::Relaxed);
        self.changed.notify_waiters();
    }

    /// Takes up what was seen.
    #[cfg(test)]
    pub(crate) fn note(&self, share: u8, marks: &Marks) {
        if let Some(level) = self.next(share, marks) {
            self.set(level);
        }
    }

    /// Returns when connections may be accepted; at once while they may.
    pub(crate) async fn room(&self) {
        while self.level() == Level::Full {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.level() == Level::Full {
                changed.await;
            }
        }
    }
}

/// What the metrics show of it.
#[derive(Clone, Debug)]
pub struct Gauges {
    level: IntGauge,
    used: IntGaugeVec,
    limit: IntGaugeVec,
}

impl Gauges {
    /// # Errors
    /// When metrics of these names are registered already.
    pub fn register(metrics: &telemetry::Metrics) -> prometheus::Result<Gauges> {
        let by_resource = |name: &str, help: &str| {
            let gauge = IntGaugeVec::new(Opts::new(name, help), &["resource"])?;
            metrics.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let level = IntGauge::new(
            names::OVERLOAD_LEVEL,
            "What is asked of clients: 0 nothing, 1 to go after a request, 2 to come back later, 3 not to come.",
        )?;
        metrics.register(Box::new(level.clone()))?;
        Ok(Gauges {
            level,
            used: by_resource(names::RESOURCE_USED, "Memory in bytes, and file descriptors, in use.")?,
            limit: by_resource(
                names::RESOURCE_LIMIT,
                "Memory in bytes, and file descriptors, that there are.",
            )?,
        })
    }

    fn show(&self, resource: &str, part: Option<Part>) {
        let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        if let Some(Part { used, limit }) = part {
            self.used.with_label_values(&[resource]).set(number(used));
            self.limit.with_label_values(&[resource]).set(number(limit));
        }
    }
}

/// Looks at usage for as long as it is polled, and has `listeners` do what follows from it. `limits` is asked each time, because
/// they are configuration.
pub async fn follow(
    mut reader: impl UsageReader,
    limits: impl Fn() -> Limits + Send,
    listeners: ListenerManager,
    gauges: Option<Gauges>,
) {
    loop {
        let limits = limits();
        let share = look(&mut reader, &limits, &listeners, gauges.as_ref());
        let near = share >= limits.marks.keepalive / 2;
        if listeners.pressure().level() != Level::Calm {
            give_back();
        }
        tokio::time::sleep(if near { CLOSE } else { PERIOD }).await;
    }
}

/// Has the allocator look for memory that it keeps for later, and give it back. It does so only when blocks come and go that are
/// a page by themselves, and a gateway that lets nobody in has none: it would stay full for ever.
fn give_back() {
    const WHOLE_PAGE: usize = 4 << 20;
    drop(std::hint::black_box(Vec::<u8>::with_capacity(WHOLE_PAGE)));
}

/// The share that is in use, in percent, of what there is least of.
fn look(
    reader: &mut impl UsageReader,
    limits: &Limits,
    listeners: &ListenerManager,
    gauges: Option<&Gauges>,
) -> u8 {
    let usage = reader.read(limits);
    let shares = [("memory", usage.memory), ("file descriptors", usage.files)];
    let share = |part: Option<Part>| part.map_or(0, Part::percent);
    let (what, most) = shares.into_iter().max_by_key(|(_, part)| share(*part)).unwrap_or_default();
    let pressure = listeners.pressure();
    if let Some(level) = pressure.next(share(most), &limits.marks) {
        // Before anybody is let in by the new level: who came in between would be taken for one that is idle, and closed.
        listeners.relieve(level);
        pressure.set(level);
        let (used, limit) = most.map_or((0, 0), |part| (part.used, part.limit));
        match level {
            Level::Calm => tracing::info!(used, limit, "{what}: enough again"),
            Level::Reluctant => tracing::warn!(used, limit, "{what}: clients are asked to go"),
            Level::Shedding => tracing::warn!(used, limit, "{what}: requests are answered 503"),
            Level::Full => tracing::warn!(used, limit, "{what}: no connection is accepted"),
        }
    }
    if let Some(gauges) = gauges {
        gauges.level.set(listeners.pressure().level() as i64);
        gauges.show("memory", usage.memory);
        gauges.show("files", usage.files);
    }
    share(most)
}

/// A handle to a new [`Pressure`].
pub(crate) fn calm() -> Arc<Pressure> {
    Arc::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_taken_at_once_and_taken_back_with_some_slack() {
        let (pressure, marks) = (Pressure::default(), Marks::default());
        for (share, level) in [
            (0, Level::Calm),
            (84, Level::Calm),
            (85, Level::Reluctant),
            (84, Level::Reluctant),
            (82, Level::Calm),
            (93, Level::Shedding),
            (90, Level::Shedding),
            (89, Level::Reluctant),
            (100, Level::Full),
            (255, Level::Full),
            (94, Level::Full),
            (92, Level::Shedding),
            (0, Level::Calm),
        ] {
            pressure.note(share, &marks);
            assert_eq!(pressure.level(), level, "{share}");
        }
    }

    #[tokio::test]
    async fn whoever_waits_for_room_goes_on_when_there_is_some() {
        let pressure = calm();
        pressure.room().await;
        pressure.note(99, &Marks::default());
        let waiting = tokio::spawn({
            let pressure = pressure.clone();
            async move { pressure.room().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        pressure.note(92, &Marks::default());
        waiting.await.unwrap();
    }
}
