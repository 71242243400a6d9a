//! Panics: counted and named, wherever they happen.
//!
//! Invariant: a panic ends its task and nothing else. What it says is not written down, for it may hold what a user sent; where it
//! happened is.

use std::panic::PanicHookInfo;

use prometheus::{IntCounter, Opts};

use crate::telemetry::{Metrics, names};

/// The counter of panics.
///
/// # Errors
/// When it is registered already.
pub fn register(metrics: &Metrics) -> prometheus::Result<IntCounter> {
    let counter = IntCounter::with_opts(Opts::new(names::PANICS, "Tasks that ended in a panic."))?;
    metrics.register(Box::new(counter.clone()))?;
    Ok(counter)
}

/// What is done at a panic, as the process's hook.
pub fn hook(counter: IntCounter) -> impl Fn(&PanicHookInfo<'_>) + Send + Sync + 'static {
    move |panic| {
        counter.inc();
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "a task panicked: what it served is cut, everything else goes on");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_counted_wherever_it_happens() {
        let metrics = Metrics::new(Default::default(), "test").unwrap();
        let counter = register(&metrics).unwrap();
        let (ours, before) = (hook(counter.clone()), std::panic::take_hook());
        // The hook is the process's, whose other tests want to be heard too.
        std::panic::set_hook(Box::new(move |panic| {
            ours(panic);
            before(panic);
        }));
        let counted = counter.get();
        assert!(std::thread::spawn(|| panic!("on purpose")).join().is_err());
        assert!(counter.get() > counted);
    }
}
