//! Traces: whether a request is traced, the context that it carries on, and its spans.
//!
//! Invariant: a request that is not traced has no span, and no memory is taken for one; where a collector is configured it carries a
//! context all the same, so that whoever comes after it takes the same decision. Who asked for a trace, or against one, is
//! heard (W3C, B3); else the request's id decides, as Envoy has it.

pub mod context;
mod otlp;
mod record;
mod span;
mod tags;
mod zipkin;

pub use context::Width;
pub use record::{Attempt, Exchange, Outcome};
pub use tags::Tags;

use self::{
    context::{Extracted, Format, Incoming, SpanId, TraceId},
    span::Span,
};
use super::export::{self, Address, Courier, Encode, Exported, Queue};
use crate::settings::TraceDecision;
use bytes::Bytes;
use http::{HeaderMap, HeaderName};
use smallvec::SmallVec;
use std::{net::IpAddr, sync::Arc};
use tokio::task::JoinHandle;

pub(crate) use otlp::{attribute, nanos, text};

/// A client's own name for a request that it wants traced.
pub(crate) const CLIENT_TRACE_ID: HeaderName = HeaderName::from_static("x-client-trace-id");
/// Percentages have two digits after the point (Istio: `PILOT_TRACE_SAMPLING`).
const ALL: u32 = 10_000;

/// How requests are traced under one configuration.
#[derive(Debug, Default)]
pub struct Tracing {
    /// Requests of ten thousand that are traced where nobody asked.
    pub sampling: Sampling,
    /// Whether requests carry a context on.
    pub propagation: Propagation,
    /// Where spans go; `None`: nowhere, and a client's context is passed on as it came.
    pub tracer: Option<Arc<Tracer>>,
    /// Who decides about a trace that a client began.
    pub decision: TraceDecision,
}

/// How many requests are traced where nobody asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sampling {
    /// None.
    #[default]
    Never,
    /// So many of ten thousand, by their ids.
    ById(u32),
    /// All, whatever their ids (Istio: `useRequestIdForTraceSampling: false`).
    Always,
}

impl Sampling {
    /// A percentage; what is out of range is cut to it.
    #[must_use]
    pub fn percent(percent: f64) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is within 0 and 10,000, checked on the same line"
        )]
        match (percent * 100.0).round().clamp(0.0, f64::from(ALL)) as u32 {
            0 => Self::Never,
            share => Self::ById(share),
        }
    }
}

/// Whether requests carry a context on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Propagation {
    /// They do.
    #[default]
    On,
    /// They carry what they came with (Istio: `disableContextPropagation`).
    Off,
}

/// Why a request is traced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It is not, as far as it is up to the gateway.
    None,
    /// It was drawn.
    Sampled,
    /// Its client asked, in Envoy's way.
    Client,
}

impl Reason {
    /// The digit that stands for it in the request's id (Envoy: `UUIDRequestIDExtension`).
    pub(crate) fn digit(self) -> u8 {
        match self {
            Self::None => b'4',
            Self::Sampled => b'9',
            Self::Client => b'b',
        }
    }

    /// The reason that this digit stands for; `None`: nobody has decided yet. (`a` is Envoy's for a service that asked.)
    pub(crate) fn of_digit(digit: u8) -> Option<Self> {
        match digit {
            b'9' => Some(Self::Sampled),
            b'a' | b'b' => Some(Self::Client),
            _ => None,
        }
    }
}

impl Tracing {
    /// Decides about a request; `draw` is the beginning of its id.
    pub(crate) fn decide(&self, headers: &HeaderMap, draw: u32) -> Reason {
        if self.tracer.is_some() && headers.contains_key(&CLIENT_TRACE_ID) {
            return Reason::Client;
        }
        match self.sampling {
            Sampling::ById(share) if draw % ALL < share => Reason::Sampled,
            Sampling::ById(_) | Sampling::Never | Sampling::Always => Reason::None,
        }
    }

    /// Begins the trace of a request, and says it on in its headers; `None`: the request is not traced.
    pub(crate) fn begin(&self, reason: Reason, headers: &mut HeaderMap) -> Option<Box<Active>> {
        let tracer = self.tracer.as_ref()?;
        let extracted = context::extract(headers, tracer.format);
        let local = reason != Reason::None || self.sampling == Sampling::Always;
        let (trace, parent, sampled) = match extracted.incoming {
            Incoming::Parent { trace, span, sampled } => {
                // Envoy 1.40's OpenTelemetry tracer; its Zipkin tracer follows the client.
                let draws = self.decision == TraceDecision::Both && tracer.format == Format::W3c;
                (trace, Some(span), sampled.map_or(local, |sampled| sampled && (local || !draws)))
            }
            Incoming::Decision(sampled) => (TraceId::random(tracer.width), None, sampled),
            Incoming::Nothing => (TraceId::random(tracer.width), None, local),
        };
        let span = SpanId::random();
        if self.propagation == Propagation::On {
            extracted.inject(headers, trace, span, parent, sampled);
        }
        sampled.then(|| {
            Box::new(Active {
                tracer: tracer.clone(),
                extracted,
                propagation: self.propagation,
                trace,
                parent,
                span,
                attempts: SmallVec::new(),
            })
        })
    }
}

/// The trace of a request that is being served.
pub(crate) struct Active {
    tracer: Arc<Tracer>,
    extracted: Extracted,
    propagation: Propagation,
    trace: TraceId,
    parent: Option<SpanId>,
    span: SpanId,
    attempts: SmallVec<[(SpanId, Attempt); 1]>,
}

impl Active {
    /// Begins an attempt; one before it that nobody ended ended now.
    pub(crate) fn attempt(&mut self, attempt: Attempt) {
        self.attempts.push((SpanId::random(), attempt));
    }

    /// The attempt under way.
    pub(crate) fn current(&mut self) -> Option<&mut Attempt> {
        self.attempts.last_mut().map(|(_, attempt)| attempt)
    }

    /// Says the trace on in the headers of the attempt under way.
    pub(crate) fn inject(&self, headers: &mut HeaderMap) {
        if let (Some((span, _)), Propagation::On) = (self.attempts.last(), self.propagation) {
            self.extracted.inject(headers, self.trace, *span, Some(self.span), true);
        }
    }

    /// Hands the spans of a request that is over to its collector.
    pub(crate) fn finish(self, exchange: &Exchange<'_>) {
        let tracer = self.tracer.clone();
        for span in record::spans(self, exchange) {
            tracer.queue.offer(span);
        }
    }
}

/// Makes spans of one collector.
pub struct Tracer {
    format: Format,
    width: Width,
    max_path: usize,
    tags: Tags,
    node: String,
    queue: Queue<Span>,
}

impl std::fmt::Debug for Tracer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tracer").field("format", &self.format).finish_non_exhaustive()
    }
}

/// What a tracer is made of; two that are equal need not be made twice.
#[derive(Clone, PartialEq)]
pub struct Recipe {
    /// Where its spans go.
    pub address: Address,
    /// As what.
    pub encoding: Encoding,
    /// Bits of the ids of traces that begin here.
    pub width: Width,
    /// Longest path in an attribute, in bytes.
    pub max_path: usize,
    /// What the configuration adds to each span.
    pub tags: Tags,
    /// Envoy's id of the proxy.
    pub node: String,
}

/// As what spans go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// OTLP, with what is said of the gateway.
    Otlp(Vec<(String, String)>),
    /// Zipkin's JSON, with name and address of the gateway.
    Zipkin(String, Option<IpAddr>),
}

impl Tracer {
    /// Starts the task that sends spans; it ends when the tracer is dropped.
    pub fn start(
        recipe: Recipe,
        courier: Arc<dyn Courier>,
        exported: &Exported,
        runtime: &tokio::runtime::Handle,
    ) -> (Self, JoinHandle<()>) {
        let Recipe { address, encoding, width, max_path, tags, node } = recipe;
        let format = match &encoding {
            Encoding::Otlp(_) => Format::W3c,
            Encoding::Zipkin(..) => Format::B3,
        };
        let encoder = match encoding {
            Encoding::Otlp(resource) => Encoder::Otlp(resource),
            Encoding::Zipkin(name, ip) => Encoder::Zipkin(zipkin::Endpoint::new(name, ip)),
        };
        let (queue, task) = export::start("traces", encoder, address, courier, exported, runtime);
        (Self { format, width, max_path, tags, node, queue }, task)
    }
}

/// Path of OTLP's service in gRPC.
pub(super) const OTLP_GRPC_PATH: &str = otlp::GRPC_PATH;

enum Encoder {
    Otlp(Vec<(String, String)>),
    Zipkin(zipkin::Endpoint),
}

impl Encode for Encoder {
    type Item = Span;

    fn encode(&self, batch: Vec<Span>) -> Bytes {
        match self {
            Encoder::Otlp(resource) => otlp::encode(resource, batch),
            Encoder::Zipkin(from) => zipkin::encode(from, &batch),
        }
    }

    fn count(&self, batch: &[Span]) -> u64 {
        batch.len() as u64
    }

    fn rejected(&self, answer: &[u8]) -> u64 {
        match self {
            Encoder::Otlp(_) => otlp::rejected(answer),
            Encoder::Zipkin(_) => 0,
        }
    }
}
