//! What leaves for a collector: a bounded queue, batches, and a task that sends them.
//!
//! Invariant: whoever hands something over never waits. What does not fit is counted and dropped, and so is a batch that its
//! collector did not take: a collector that is away or slow costs at most one queue of memory, and no request anything.

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use prometheus::{IntCounter, IntCounterVec, Opts};
use std::{fmt, sync::Arc, time::Duration};
use tokio::{sync::mpsc, task::JoinHandle, time::Instant};

use super::{Metrics, names};
use routing::cluster::ClusterName;

/// Items that may wait.
pub(super) const QUEUED: usize = 4096;
/// Items that are sent together.
const BATCH: usize = 512;
/// How long the first of a batch waits for others.
const GATHER: Duration = Duration::from_secs(1);
/// How often it is looked for others: to be woken for each of them would cost those who hand them over more than these do.
const LOOK: Duration = Duration::from_millis(20);
/// How long a batch may take where the configuration does not say.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// Pause after a failure, doubled with each up to the last.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(16));

/// Who takes what is sent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Destination {
    /// A service of the mesh: reached as requests reach it, TLS included.
    Cluster(ClusterName),
    /// A host and a port outside of it, in the clear.
    Address(Arc<str>, u16),
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Destination::Cluster(name) => f.write_str(name.as_str()),
            Destination::Address(host, port) => write!(f, "{host}:{port}"),
        }
    }
}

/// What is spoken to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// As the service says.
    Http,
    /// HTTP/2, for gRPC.
    Grpc,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// Status.
    pub status: StatusCode,
    /// Headers, trailers among them.
    pub headers: HeaderMap,
    /// The body, cut where it is longer than anybody reads.
    pub body: Bytes,
}

/// Carries one message to a collector and its answer back.
#[async_trait]
pub trait Courier: Send + Sync {
    /// Sends it. The request's target is a path; its headers have all but `host` and the framing.
    ///
    /// # Errors
    /// Why there is no answer, in a few words.
    async fn carry(
        &self,
        to: &Destination,
        protocol: Protocol,
        message: Request<Bytes>,
    ) -> Result<Answer, String>;
}

/// Makes one message of a batch, and reads what the collector says to it.
pub(super) trait Encode: Send + Sync + 'static {
    /// What is handed over.
    type Item: Send + Sync + 'static;
    /// The message's body.
    fn encode(&self, batch: Vec<Self::Item>) -> Bytes;
    /// How many records a batch has.
    fn count(&self, batch: &[Self::Item]) -> u64;
    /// How many of them the collector says that it did not take.
    fn rejected(&self, answer: &[u8]) -> u64;
}

/// How a collector is spoken to.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Address {
    /// Who it is.
    pub to: Destination,
    /// What is spoken.
    pub protocol: Protocol,
    /// Path.
    pub path: String,
    /// Content type of the body; gRPC has its own.
    pub content_type: &'static str,
    /// Name in `host`.
    pub authority: String,
    /// Headers that the configuration adds; a token may be among them.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// How long a message may take.
    pub patience: Duration,
}

/// Where a queue's items are handed over. Dropping the last one sends what is left and ends the task.
pub(super) struct Queue<T> {
    sender: mpsc::Sender<T>,
    dropped: IntCounter,
}

impl<T> Queue<T> {
    /// Hands an item over, or counts it.
    pub(super) fn offer(&self, item: T) {
        if self.sender.try_send(item).is_err() {
            self.dropped.inc();
        }
    }
}

/// Counters of what is exported, by signal (`traces`, `logs`).
#[derive(Clone)]
pub struct Exported {
    sent: IntCounterVec,
    dropped: IntCounterVec,
}

impl Exported {
    /// Registers them.
    ///
    /// # Errors
    /// When they are registered already.
    pub fn register(metrics: &Metrics) -> prometheus::Result<Self> {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let vec = IntCounterVec::new(Opts::new(name, help), labels)?;
            metrics.register(Box::new(vec.clone()))?;
            Ok::<_, prometheus::Error>(vec)
        };
        Ok(Self {
            sent: counter(names::EXPORTED, "Spans and log records that collectors took.", &["signal"])?,
            dropped: counter(
                names::EXPORT_DROPPED,
                "Spans and log records that did not reach a collector: for want of room, or because it did not take them.",
                &["signal", "reason"],
            )?,
        })
    }

    pub(super) fn dropped(&self, signal: &str, reason: &str) -> IntCounter {
        self.dropped.with_label_values(&[signal, reason])
    }
}

/// Starts the task of one collector.
pub(super) fn start<E: Encode>(
    signal: &'static str,
    encode: E,
    address: Address,
    courier: Arc<dyn Courier>,
    exported: &Exported,
    runtime: &tokio::runtime::Handle,
) -> (Queue<E::Item>, JoinHandle<()>) {
    let (sender, items) = mpsc::channel(QUEUED);
    let worker = Worker {
        encode,
        address,
        courier,
        sent: exported.sent.with_label_values(&[signal]),
        failed: exported.dropped(signal, "failed"),
        rejected: exported.dropped(signal, "rejected"),
        failures: 0,
    };
    let task = runtime.spawn(worker.run(items));
    (Queue { sender, dropped: exported.dropped(signal, "queue_full") }, task)
}

struct Worker<E> {
    encode: E,
    address: Address,
    courier: Arc<dyn Courier>,
    sent: IntCounter,
    failed: IntCounter,
    rejected: IntCounter,
    /// In a row.
    failures: u32,
}

impl<E: Encode> Worker<E> {
    async fn run(mut self, mut items: mpsc::Receiver<E::Item>) {
        let mut batch = Vec::new();
        while items.recv_many(&mut batch, BATCH).await > 0 {
            let full = Instant::now() + GATHER;
            while batch.len() < BATCH && !items.is_closed() && Instant::now() < full {
                tokio::time::sleep(LOOK).await;
                let room = BATCH - batch.len();
                if !items.is_empty() {
                    items.recv_many(&mut batch, room).await;
                }
            }
            self.send(std::mem::take(&mut batch)).await;
            if self.failures > 0 && !items.is_closed() {
                let (shortest, longest) = PAUSES;
                let pause = shortest.saturating_mul(1 << (self.failures - 1).min(8)).min(longest);
                tokio::time::sleep(pause).await;
            }
        }
    }

    async fn send(&mut self, batch: Vec<E::Item>) {
        let count = self.encode.count(&batch);
        let sending = self.courier.carry(&self.address.to, self.address.protocol, self.message(batch));
        let outcome = match tokio::time::timeout(self.address.patience, sending).await {
            Ok(answer) => answer.and_then(|answer| taken(self.address.protocol, answer)),
            Err(_) => Err(format!("no answer in {:?}", self.address.patience)),
        };
        match outcome {
            Ok(body) => {
                let rejected = self.encode.rejected(&body).min(count);
                self.rejected.inc_by(rejected);
                self.sent.inc_by(count - rejected);
                if self.failures > 0 {
                    tracing::info!(collector = %self.address.to, "the collector is back");
                }
                self.failures = 0;
            }
            Err(why) => {
                self.failed.inc_by(count);
                // Said once until it works again: the process log must not fill up with a collector's troubles.
                if self.failures == 0 {
                    tracing::warn!(collector = %self.address.to, why, "a collector takes nothing: what is meant for it is dropped");
                }
                self.failures = self.failures.saturating_add(1);
            }
        }
    }

    fn message(&self, batch: Vec<E::Item>) -> Request<Bytes> {
        let body = self.encode.encode(batch);
        let address = &self.address;
        let grpc = address.protocol == Protocol::Grpc;
        let mut message = Request::new(if grpc { framed(&body) } else { body });
        *message.method_mut() = Method::POST;
        *message.uri_mut() = address.path.parse().unwrap_or_default();
        let headers = message.headers_mut();
        if let Ok(host) = HeaderValue::from_str(&address.authority) {
            headers.insert(header::HOST, host);
        }
        headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(address.content_type));
        if grpc {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
        for (name, value) in &address.headers {
            headers.insert(name.clone(), value.clone());
        }
        message
    }
}

const USER_AGENT: &str = concat!("limen/", env!("CARGO_PKG_VERSION"));

/// A message of gRPC: not compressed, and its length (gRPC over HTTP/2: "Length-Prefixed-Message").
fn framed(body: &[u8]) -> Bytes {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&[0], &length[..], body].concat().into()
}

/// The collector's own words, where it took the batch.
fn taken(protocol: Protocol, answer: Answer) -> Result<Bytes, String> {
    if !answer.status.is_success() {
        return Err(format!("status {}", answer.status.as_u16()));
    }
    if protocol == Protocol::Http {
        return Ok(answer.body);
    }
    let header = |name: &str| answer.headers.get(name).and_then(|value| value.to_str().ok());
    match header("grpc-status") {
        Some("0") => Ok(answer.body.get(5..).map(Bytes::copy_from_slice).unwrap_or_default()),
        Some(status) => Err(format!("gRPC status {status}: {}", header("grpc-message").unwrap_or_default())),
        None => Err("no gRPC status".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Identity;
    use std::sync::Mutex;

    struct Numbers;

    impl Encode for Numbers {
        type Item = u8;
        fn encode(&self, batch: Vec<u8>) -> Bytes {
            batch.into()
        }
        fn count(&self, batch: &[u8]) -> u64 {
            batch.len() as u64
        }
        fn rejected(&self, answer: &[u8]) -> u64 {
            answer.len() as u64
        }
    }

    enum Mood {
        Takes,
        Refuses,
        Hangs,
    }

    struct Collector(Mood, Mutex<Vec<Bytes>>);

    #[async_trait]
    impl Courier for Collector {
        async fn carry(
            &self,
            _: &Destination,
            _: Protocol,
            message: Request<Bytes>,
        ) -> Result<Answer, String> {
            self.1.lock().unwrap().push(message.into_body());
            let status = match self.0 {
                Mood::Takes => StatusCode::OK,
                Mood::Refuses => StatusCode::SERVICE_UNAVAILABLE,
                Mood::Hangs => std::future::pending().await,
            };
            Ok(Answer { status, headers: HeaderMap::new(), body: Bytes::from_static(b"x") })
        }
    }

    fn begin(mood: Mood) -> (Queue<u8>, JoinHandle<()>, Arc<Collector>, Exported) {
        let metrics = Metrics::new(Identity::default(), "test").unwrap();
        let exported = Exported::register(&metrics).unwrap();
        let collector = Arc::new(Collector(mood, Mutex::default()));
        let address = Address {
            to: Destination::Address("collector".into(), 1),
            protocol: Protocol::Http,
            path: "/v1".to_owned(),
            content_type: "text/plain",
            authority: "collector".to_owned(),
            headers: Vec::new(),
            patience: PATIENCE,
        };
        let runtime = tokio::runtime::Handle::current();
        let (queue, task) = start("traces", Numbers, address, collector.clone(), &exported, &runtime);
        (queue, task, collector, exported)
    }

    #[tokio::test(start_paused = true)]
    async fn items_go_in_batches_and_the_last_when_the_queue_is_dropped() {
        let (queue, task, collector, exported) = begin(Mood::Takes);
        for _ in 0..BATCH + 3 {
            queue.offer(7);
        }
        drop(queue);
        task.await.unwrap();
        let sizes: Vec<usize> = collector.1.lock().unwrap().iter().map(Bytes::len).collect();
        assert_eq!(sizes, [BATCH, 3]);
        // The collector says of each batch that it left one out.
        assert_eq!(exported.sent.with_label_values(&["traces"]).get(), BATCH as u64 + 1);
        assert_eq!(exported.dropped("traces", "rejected").get(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_collector_that_hangs_costs_a_queue_and_no_time() {
        let (queue, _task, collector, exported) = begin(Mood::Hangs);
        queue.offer(1);
        // The first batch is under way, for as long as the collector is given.
        tokio::time::sleep(GATHER * 2).await;
        assert_eq!(collector.1.lock().unwrap().len(), 1);
        for _ in 0..QUEUED + 10 {
            queue.offer(2);
        }
        assert_eq!(exported.dropped("traces", "queue_full").get(), 10);
        tokio::time::sleep(PATIENCE).await;
        assert_eq!(exported.dropped("traces", "failed").get(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_collector_does_not_take_is_counted_and_it_is_left_alone_for_longer_each_time() {
        let (queue, _task, collector, exported) = begin(Mood::Refuses);
        let mut asked = Vec::new();
        for _ in 0..60 {
            queue.offer(1);
            tokio::time::sleep(Duration::from_secs(1)).await;
            asked.push(collector.1.lock().unwrap().len());
        }
        assert!(asked[58] < 12, "{asked:?}");
        assert!(exported.dropped("traces", "failed").get() > 20);
        assert_eq!(exported.sent.with_label_values(&["traces"]).get(), 0);
    }

    #[test]
    fn grpc_is_told_by_its_own_status() {
        let answer = |status: &'static str, body: &'static [u8]| Answer {
            status: StatusCode::OK,
            headers: [(HeaderName::from_static("grpc-status"), HeaderValue::from_static(status))]
                .into_iter()
                .collect(),
            body: Bytes::from_static(body),
        };
        assert_eq!(taken(Protocol::Grpc, answer("0", b"\0\0\0\0\x01x")).unwrap(), "x");
        assert!(taken(Protocol::Grpc, answer("14", b"")).unwrap_err().contains("14"));
        assert_eq!(framed(b"ab"), &b"\0\0\0\0\x02ab"[..]);
    }
}
