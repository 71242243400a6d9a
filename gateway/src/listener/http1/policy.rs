//! How strictly heads are judged: what is a switch, and its default.
//!
//! Invariant: what two readers could read differently is no switch, but for what Istio lets through by default.

/// What becomes of field names with an underscore, which some servers take for a hyphen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Underscores {
    /// They pass (Istio's default).
    #[default]
    Allow,
    /// The request is refused with 400 (Istio's EDGE profile).
    Refuse,
    /// The field is left out.
    Drop,
}

/// A switch for what old or careless clients send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Leniency {
    /// Refused.
    #[default]
    Refuse,
    /// Served.
    Serve,
}

/// How heads are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadPolicy {
    /// Bytes of a head, from the request line to the empty line; beyond: 431.
    pub max_bytes: usize,
    /// Fields of a head; beyond: 431.
    pub max_fields: usize,
    /// Field names with an underscore.
    pub underscores: Underscores,
    /// HTTP/1.0 (Istio: `PILOT_HTTP10`); otherwise 426.
    pub http10: Leniency,
    /// TRACE; otherwise 405.
    pub trace: Leniency,
    /// Lines that end with LF alone; otherwise 400.
    pub bare_lf: Leniency,
}

impl Default for HeadPolicy {
    /// 60 KiB and 100 fields, as Envoy; everything that is a switch is refused but underscores.
    fn default() -> HeadPolicy {
        HeadPolicy {
            max_bytes: 60 * 1024,
            max_fields: 100,
            underscores: Underscores::Allow,
            http10: Leniency::Refuse,
            trace: Leniency::Refuse,
            bare_lf: Leniency::Refuse,
        }
    }
}
