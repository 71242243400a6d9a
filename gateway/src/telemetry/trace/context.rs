//! The context of a trace: ids and the decision, as W3C's and B3's headers carry them.
//!
//! Invariant: an id is never zero, and what is not well-formed is as if it were not there (W3C Trace Context §3.2.2). Headers are
//! written in the format that they were read in, so that whoever reads only one of the two still finds its parent.

use http::{HeaderMap, HeaderName, HeaderValue};
use std::num::{NonZeroU64, NonZeroU128};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub(crate) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const B3: HeaderName = HeaderName::from_static("b3");
const B3_TRACE: HeaderName = HeaderName::from_static("x-b3-traceid");
const B3_SPAN: HeaderName = HeaderName::from_static("x-b3-spanid");
const B3_PARENT: HeaderName = HeaderName::from_static("x-b3-parentspanid");
const B3_SAMPLED: HeaderName = HeaderName::from_static("x-b3-sampled");
const B3_FLAGS: HeaderName = HeaderName::from_static("x-b3-flags");

/// Longest `traceparent` or `b3` that is looked at; later versions of W3C's may be longer than today's.
const LONGEST: usize = 512;

/// Id of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceId {
    id: NonZeroU128,
    /// Whether it is written with 64 bits in B3, as it came.
    narrow: bool,
}

/// Id of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanId(NonZeroU64);

/// Bits of the ids of traces that begin here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Width {
    /// 128 bits.
    #[default]
    Wide,
    /// 64 bits, for collectors of old.
    Narrow,
}

impl TraceId {
    /// Of a trace that begins here.
    pub(super) fn random(width: Width) -> Self {
        let narrow = width == Width::Narrow;
        let bits = if narrow { fastrand::u64(1..).into() } else { fastrand::u128(1..) };
        Self { id: NonZeroU128::new(bits).unwrap_or(NonZeroU128::MIN), narrow }
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let narrow = match text.len() {
            32 => false,
            16 => true,
            _ => return None,
        };
        Some(Self { id: NonZeroU128::new(hex(text)?)?, narrow })
    }

    /// As protobuf carries it.
    pub(super) fn to_bytes(self) -> [u8; 16] {
        self.id.get().to_be_bytes()
    }

    /// As B3 and Zipkin write it.
    pub(super) fn text(self) -> String {
        if self.narrow { format!("{:016x}", self.id) } else { format!("{:032x}", self.id) }
    }
}

impl SpanId {
    pub(super) fn random() -> Self {
        Self(NonZeroU64::new(fastrand::u64(1..)).unwrap_or(NonZeroU64::MIN))
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let bits = u64::try_from(hex(text).filter(|_| text.len() == 16)?).ok()?;
        NonZeroU64::new(bits).map(Self)
    }

    /// As protobuf carries it.
    pub(super) fn to_bytes(self) -> [u8; 8] {
        self.0.get().to_be_bytes()
    }

    /// As B3 and Zipkin write it.
    pub(super) fn text(self) -> String {
        format!("{:016x}", self.0)
    }
}

/// Lower-case hexadecimal digits (W3C Trace Context §3.2.2); B3 has no other either.
fn hex(text: &[u8]) -> Option<u128> {
    let digit = |b: &u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        _ => None,
    };
    if text.len() > 32 {
        return None;
    }
    text.iter().try_fold(0_u128, |bits, b| Some(bits << 4 | u128::from(digit(b)?)))
}

/// What a request says of the trace that it is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// Nothing that can be read.
    Nothing,
    /// Only whether it is to be traced (B3).
    Decision(bool),
    /// A span that it is a child of.
    Parent {
        /// The trace.
        trace: TraceId,
        /// The span that sent the request.
        span: SpanId,
        /// The decision, where one is taken.
        sampled: Option<bool>,
    },
}

/// The formats of headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `traceparent` and `tracestate`.
    W3c,
    /// `b3`.
    B3Single,
    /// `x-b3-traceid` and its like.
    B3,
}

/// What a request says, and in which formats it is to be said on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extracted {
    /// What it says.
    pub incoming: Incoming,
    w3c: bool,
    b3: Option<Format>,
}

/// Reads the headers of a request; of two formats the collector's `own` is believed.
pub fn extract(headers: &HeaderMap, own: Format) -> Extracted {
    if !headers.keys().any(carries) {
        let native = own == Format::W3c;
        return Extracted { incoming: Incoming::Nothing, w3c: native, b3: (!native).then_some(own) };
    }
    let w3c = headers.get(TRACEPARENT).map(|value| traceparent(value.as_bytes()));
    let b3 = b3(headers);
    let (of_w3c, of_b3) =
        (w3c.unwrap_or(Incoming::Nothing), b3.map_or(Incoming::Nothing, |(incoming, _)| incoming));
    let native = own == Format::W3c;
    let (first, second) = if native { (of_w3c, of_b3) } else { (of_b3, of_w3c) };
    let incoming = if first == Incoming::Nothing { second } else { first };
    // Of another trace than the one that goes on, nothing is known that could be said.
    let goes_on = |other: Incoming| match (other, incoming) {
        (Incoming::Parent { trace: theirs, .. }, Incoming::Parent { trace, .. }) => theirs.id == trace.id,
        (other, incoming) => other == incoming,
    };
    Extracted {
        incoming,
        w3c: native || (w3c.is_some() && goes_on(of_w3c)),
        b3: b3.filter(|_| !native || goes_on(of_b3)).map(|(_, format)| format).or((!native).then_some(own)),
    }
}

impl Extracted {
    /// Writes a context into the headers of a request that goes on.
    pub(super) fn inject(
        &self,
        headers: &mut HeaderMap,
        trace: TraceId,
        span: SpanId,
        parent: Option<SpanId>,
        sampled: bool,
    ) {
        if self.w3c {
            headers.insert(TRACEPARENT, w3c_value(trace, span, sampled));
        }
        match self.b3 {
            None | Some(Format::W3c) => {}
            Some(Format::B3Single) => {
                headers.insert(B3, b3_value(trace, span, parent, sampled));
            }
            Some(Format::B3) => {
                headers.insert(B3_TRACE, text_value(&trace.text()));
                headers.insert(B3_SPAN, text_value(&span.text()));
                match parent {
                    Some(parent) => headers.insert(B3_PARENT, text_value(&parent.text())),
                    None => headers.remove(B3_PARENT),
                };
                headers.insert(B3_SAMPLED, HeaderValue::from_static(if sampled { "1" } else { "0" }));
            }
        }
    }
}

/// Whether a header is of a format that is read. Most requests have none: one look at each of their names tells it.
fn carries(name: &HeaderName) -> bool {
    matches!(name.as_str(), "traceparent" | "b3") || name.as_str().starts_with("x-b3-")
}

/// `version-trace-span-flags`; of later versions the part that is known is read (W3C Trace Context §4.3).
fn traceparent(value: &[u8]) -> Incoming {
    let parsed = || {
        let [version, trace, span, flags] = parts(value)?;
        let rest = value.get(55);
        let sound = version.len() == 2
            && flags.len() == 2
            && trace.len() == 32
            && value.len() <= LONGEST
            && hex(version).is_some_and(|version| version < 0xff && (version > 0 || rest.is_none()))
            && rest.is_none_or(|b| *b == b'-');
        let flags = hex(flags).filter(|_| sound)?;
        Some(Incoming::Parent {
            trace: TraceId::parse(trace)?,
            span: SpanId::parse(span)?,
            sampled: Some(flags & 1 == 1),
        })
    };
    parsed().unwrap_or(Incoming::Nothing)
}

/// The first four parts between hyphens; what may follow the fourth is no part of it.
fn parts(value: &[u8]) -> Option<[&[u8]; 4]> {
    let mut parts = value.split(|b| *b == b'-');
    Some([parts.next()?, parts.next()?, parts.next()?, parts.next()?])
}

/// B3, in one header or in several; the one is looked at first (B3 propagation: "single header takes precedence").
fn b3(headers: &HeaderMap) -> Option<(Incoming, Format)> {
    if let Some(value) = headers.get(B3) {
        return Some((b3_single(value.as_bytes()), Format::B3Single));
    }
    let value = |name: &HeaderName| headers.get(name).map(HeaderValue::as_bytes);
    let (trace, said) = (value(&B3_TRACE), value(&B3_SAMPLED));
    let debug = value(&B3_FLAGS) == Some(b"1");
    if trace.is_none() && said.is_none() && !debug {
        return None;
    }
    let sampled = match said {
        _ if debug => Some(true),
        Some(b"1" | b"true") => Some(true),
        Some(b"0" | b"false") => Some(false),
        _ => None,
    };
    let parent = trace.and_then(TraceId::parse).zip(value(&B3_SPAN).and_then(SpanId::parse));
    let incoming = match (parent, sampled) {
        (Some((trace, span)), sampled) => Incoming::Parent { trace, span, sampled },
        (None, Some(sampled)) => Incoming::Decision(sampled),
        (None, None) => Incoming::Nothing,
    };
    Some((incoming, Format::B3))
}

/// `trace-span`, `trace-span-decision`, `trace-span-decision-parent`, or the decision alone.
fn b3_single(value: &[u8]) -> Incoming {
    let decision = |text: &[u8]| match text {
        b"1" | b"d" => Some(true),
        b"0" => Some(false),
        _ => None,
    };
    if let Some(sampled) = decision(value) {
        return Incoming::Decision(sampled);
    }
    let mut parts = value.split(|b| *b == b'-');
    let parent = parts.next().and_then(TraceId::parse).zip(parts.next().and_then(SpanId::parse));
    let sampled = parts.next().map(decision);
    match (parent, sampled) {
        // A decision that is none makes the whole nothing.
        (Some(_), Some(None)) | (None, _) => Incoming::Nothing,
        (Some((trace, span)), sampled) if value.len() <= LONGEST => {
            Incoming::Parent { trace, span, sampled: sampled.flatten() }
        }
        _ => Incoming::Nothing,
    }
}

fn w3c_value(trace: TraceId, span: SpanId, sampled: bool) -> HeaderValue {
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
    // Written in place: a gateway that samples one request in a hundred writes this for each of them.
    let [_, _, _, digits @ .., _, _, flag] = &mut text;
    write_hex(digits, &trace.to_bytes());
    if let Some((_, [_, digits @ ..])) = digits.split_at_mut_checked(32) {
        write_hex(digits, &span.to_bytes());
    }
    *flag = b'0' + u8::from(sampled);
    HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// Writes as many digits as there are bytes for.
fn write_hex(digits: &mut [u8], bytes: &[u8]) {
    const fn digit(half: u8) -> u8 {
        if half < 10 { b'0' + half } else { b'a' + half - 10 }
    }
    /// The two digits of each byte.
    const PAIRS: [[u8; 2]; 256] = {
        let mut pairs = [[0; 2]; 256];
        let mut byte = 0;
        while byte < 256 {
            #[expect(clippy::indexing_slicing, reason = "byte is below 256")]
            {
                pairs[byte] = [digit(byte as u8 >> 4), digit(byte as u8 & 0xf)];
            }
            byte += 1;
        }
        pairs
    };
    let (pairs, _) = digits.as_chunks_mut::<2>();
    for (pair, byte) in pairs.iter_mut().zip(bytes) {
        #[expect(clippy::indexing_slicing, reason = "the table has an entry for every byte")]
        {
            *pair = PAIRS[usize::from(*byte)];
        }
    }
}

fn b3_value(trace: TraceId, span: SpanId, parent: Option<SpanId>, sampled: bool) -> HeaderValue {
    let mut text = format!("{}-{}-{}", trace.text(), span.text(), u8::from(sampled));
    if let Some(parent) = parent {
        text.push('-');
        text.push_str(&parent.text());
    }
    text_value(&text)
}

/// Digits and hyphens are what any header takes.
fn text_value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(n, v)| (HeaderName::from_static(n), v.parse().unwrap())).collect()
    }

    fn parent(sampled: Option<bool>) -> Incoming {
        Incoming::Parent {
            trace: TraceId::parse(TRACE.as_bytes()).unwrap(),
            span: SpanId::parse(SPAN.as_bytes()).unwrap(),
            sampled,
        }
    }

    #[test]
    fn contexts_are_read_in_every_format() {
        let w3c = |flags: &str| format!("00-{TRACE}-{SPAN}-{flags}");
        for (pairs, want) in [
            (vec![], Incoming::Nothing),
            (vec![("traceparent", w3c("01"))], parent(Some(true))),
            (vec![("traceparent", w3c("00"))], parent(Some(false))),
            (vec![("traceparent", w3c("03"))], parent(Some(true))),
            (vec![("traceparent", format!("01-{TRACE}-{SPAN}-01-more"))], parent(Some(true))),
            (vec![("b3", format!("{TRACE}-{SPAN}-1"))], parent(Some(true))),
            (vec![("b3", format!("{TRACE}-{SPAN}-d-{SPAN}"))], parent(Some(true))),
            (vec![("b3", format!("{TRACE}-{SPAN}"))], parent(None)),
            (vec![("b3", "0".into())], Incoming::Decision(false)),
            (vec![("b3", "d".into())], Incoming::Decision(true)),
            (vec![("x-b3-traceid", TRACE.into()), ("x-b3-spanid", SPAN.into())], parent(None)),
            (
                vec![
                    ("x-b3-traceid", TRACE.into()),
                    ("x-b3-spanid", SPAN.into()),
                    ("x-b3-sampled", "0".into()),
                ],
                parent(Some(false)),
            ),
            (
                vec![
                    ("x-b3-traceid", TRACE.into()),
                    ("x-b3-spanid", SPAN.into()),
                    ("x-b3-flags", "1".into()),
                ],
                parent(Some(true)),
            ),
            (vec![("x-b3-sampled", "1".into())], Incoming::Decision(true)),
        ] {
            let map = headers(&pairs.iter().map(|(n, v)| (*n, v.as_str())).collect::<Vec<_>>());
            for own in [Format::W3c, Format::B3] {
                assert_eq!(extract(&map, own).incoming, want, "{pairs:?}");
            }
        }
    }

    #[test]
    fn what_is_not_well_formed_is_not_there() {
        for bad in [
            String::new(),
            format!("00-{TRACE}-{SPAN}"),
            format!("00-{TRACE}-{SPAN}-1"),
            format!("00-{TRACE}-{SPAN}-01-more"),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            format!("00-{}-{SPAN}-01", "0".repeat(32)),
            format!("00-{TRACE}-{}-01", "0".repeat(16)),
            format!("00-{SPAN}-{SPAN}-01"),
            format!("0-{TRACE}-{SPAN}-01x"),
            format!("01-{TRACE}-{SPAN}-01x"),
            "----".to_owned(),
        ] {
            let map = headers(&[("traceparent", &bad)]);
            assert_eq!(extract(&map, Format::W3c).incoming, Incoming::Nothing, "{bad:?}");
        }
        for bad in [format!("{TRACE}-{SPAN}-x"), format!("{TRACE}-"), "2".to_owned(), "-".to_owned()] {
            assert_eq!(extract(&headers(&[("b3", &bad)]), Format::B3).incoming, Incoming::Nothing, "{bad:?}");
        }
    }

    #[test]
    fn a_context_is_said_on_in_the_formats_that_it_came_in() {
        let (w3c, single) = (format!("00-{TRACE}-{SPAN}-01"), format!("{TRACE}-{SPAN}-1"));
        let other = format!("00-{}-{SPAN}-01", TRACE.replace('0', "1"));
        let multi = [("x-b3-traceid", TRACE), ("x-b3-spanid", SPAN)];
        let (trace, span) =
            (TraceId::parse(TRACE.as_bytes()).unwrap(), SpanId::parse(b"1111111111111111").unwrap());
        let said = |pairs: &[(&'static str, &str)], own| {
            let mut map = headers(pairs);
            let extracted = extract(&map, own);
            extracted.inject(&mut map, trace, span, SpanId::parse(SPAN.as_bytes()), false);
            let mut said: Vec<String> = map
                .iter()
                .filter(|(_, value)| value.to_str().unwrap().contains("1111111111111111"))
                .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
                .collect();
            said.sort();
            said
        };
        let new = |name: &str| match name {
            "traceparent" => format!("traceparent: 00-{TRACE}-1111111111111111-00"),
            "b3" => format!("b3: {TRACE}-1111111111111111-0-{SPAN}"),
            _ => "x-b3-spanid: 1111111111111111".to_owned(),
        };
        assert_eq!(said(&[], Format::W3c), [new("traceparent")]);
        assert_eq!(said(&[], Format::B3), [new("x-b3-spanid")]);
        assert_eq!(said(&[("traceparent", &w3c)], Format::W3c), [new("traceparent")]);
        assert_eq!(said(&[("traceparent", &w3c)], Format::B3), [new("traceparent"), new("x-b3-spanid")]);
        assert_eq!(said(&[("b3", &single)], Format::W3c), [new("b3"), new("traceparent")]);
        assert_eq!(said(&multi, Format::W3c), [new("traceparent"), new("x-b3-spanid")]);
        // Of the other trace nothing is changed.
        assert_eq!(said(&[("b3", &single), ("traceparent", &other)], Format::B3), [new("b3")]);
        assert_eq!(said(&[("b3", &single), ("traceparent", &other)], Format::W3c), [new("traceparent")]);
    }

    #[test]
    fn a_narrow_trace_stays_narrow_in_b3_and_is_filled_up_in_w3c() {
        let mut map = headers(&[("x-b3-traceid", SPAN), ("x-b3-spanid", SPAN)]);
        let extracted = extract(&map, Format::W3c);
        let Incoming::Parent { trace, .. } = extracted.incoming else { panic!() };
        extracted.inject(&mut map, trace, SpanId::parse(b"1111111111111111").unwrap(), None, true);
        assert_eq!(map["traceparent"], format!("00-0000000000000000{SPAN}-1111111111111111-01"));
        assert_eq!(map["x-b3-traceid"], SPAN);
        assert_eq!(map["x-b3-sampled"], "1");
        assert_eq!(TraceId::random(Width::Narrow).text().len(), 16);
        assert_eq!(TraceId::random(Width::Wide).text().len(), 32);
    }
}
