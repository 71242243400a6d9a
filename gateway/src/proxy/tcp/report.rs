//! What metrics are told of one connection that is not HTTP: from time to time while it lives, and at its end.
//!
//! Invariant: all that is told of a connection has the labels that it had when it was first told of; its opening is told of together
//! with the first bytes (istio_stats.cc, reportHelper).

use super::Outcome;
use crate::{
    proxy::record::{Way, target},
    telemetry::{
        Flags, IstioMetrics,
        istio::{Target, Values},
    },
};
use std::sync::Arc;

/// Makes the labels of a connection that the configuration asks for.
pub(super) type Made<'m> = dyn Fn(&Outcome) -> Option<Values> + Send + Sync + 'm;

/// Tells metrics of a connection.
pub(super) struct Report<'m> {
    metrics: &'m IstioMetrics,
    made: &'m Made<'m>,
    begun: Option<(Arc<Target>, Flags, Option<Values>)>,
    /// Bytes that were told of: from the client, and to it.
    told: (u64, u64),
}

impl<'m> Report<'m> {
    pub(super) fn new(metrics: &'m IstioMetrics, made: &'m Made<'m>) -> Self {
        Self { metrics, made, begun: None, told: (0, 0) }
    }

    /// Tells of the bytes until now: from the client, and to it.
    pub(super) fn update(&mut self, outcome: &Outcome, (received, sent): (u64, u64)) {
        let metrics = self.metrics;
        let (target, flags, values) = self.begun.get_or_insert_with(|| {
            let way = Way {
                cluster: outcome.cluster.as_ref(),
                endpoint: outcome.endpoint.as_ref(),
                principals: outcome.principals.as_ref(),
            };
            let target = target(metrics, way);
            let values = (self.made)(outcome);
            metrics.tcp_opened(&target, outcome.flags, values.as_ref());
            (target, outcome.flags, values)
        });
        let new = (received.saturating_sub(self.told.0), sent.saturating_sub(self.told.1));
        metrics.tcp_moved(target, *flags, values.as_ref(), new);
        self.told = (received, sent);
    }

    /// Tells of the end, and of the bytes that there were.
    pub(super) fn end(mut self, outcome: &Outcome) {
        self.update(outcome, (outcome.received, outcome.sent));
        if let Some((target, flags, values)) = &self.begun {
            self.metrics.tcp_closed(target, *flags, values.as_ref());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{Flag, Identity, Metrics, names};

    #[test]
    fn a_connection_is_told_of_while_it_lives_with_the_labels_of_its_beginning() {
        let metrics = Metrics::new(Identity::default(), "test").unwrap();
        let read = |name: &str| -> Vec<String> {
            let text = String::from_utf8(metrics.encode()).unwrap();
            text.lines().filter(|line| line.starts_with(name)).map(str::to_owned).collect()
        };
        let mut outcome = Outcome::default();
        let mut report = Report::new(&metrics.istio, &|_| None);
        assert!(read(names::TCP_OPENED).is_empty(), "nobody knows yet where it goes");
        report.update(&outcome, (3, 5));
        report.update(&outcome, (10, 5));
        for (name, value) in [
            (names::TCP_OPENED, "1"),
            (names::TCP_RECEIVED, "10"),
            (names::TCP_SENT, "5"),
            (names::TCP_CLOSED, "0"),
        ] {
            let lines = read(name);
            assert!(lines.len() == 1 && lines[0].ends_with(&format!("}} {value}")), "{lines:?}");
        }
        outcome.flags.insert(Flag::StreamIdleTimeout);
        (outcome.received, outcome.sent) = (11, 6);
        report.end(&outcome);
        for (name, value) in [(names::TCP_CLOSED, "1"), (names::TCP_RECEIVED, "11"), (names::TCP_SENT, "6")] {
            let lines = read(name);
            assert!(lines.len() == 1 && lines[0].ends_with(&format!("}} {value}")), "{lines:?}");
            assert!(
                lines[0].contains("response_flags=\"-\"") && lines[0].contains("request_protocol=\"tcp\"")
            );
        }
    }

    #[test]
    fn a_connection_that_ends_at_once_says_why() {
        let metrics = Metrics::new(Identity::default(), "test").unwrap();
        let mut outcome = Outcome::default();
        outcome.flags.insert(Flag::NoHealthyUpstream);
        Report::new(&metrics.istio, &|_| None).end(&outcome);
        let text = String::from_utf8(metrics.encode()).unwrap();
        let opened = text.lines().find(|line| line.starts_with(names::TCP_OPENED)).unwrap();
        assert!(opened.contains("response_flags=\"UH\""), "{opened}");
    }
}
