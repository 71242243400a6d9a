//! Why a response is not simply the upstream's: Envoy's response flags, one enum for log, metric and header.
//!
//! Invariant: the text of a flag is Envoy's short name; several are joined by `,` in Envoy's order.

use std::fmt;

macro_rules! flags {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// One response flag; the order is Envoy's order of printing.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Flag { $($(#[$doc])* $name,)* }

        impl Flag {
            /// All flags in the order in which they are printed.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Envoy's short name.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// Envoy's long name.
            #[must_use]
            pub fn long(self) -> &'static str {
                let name = match self { $(Self::$name => stringify!($name),)* };
                if name == "Overloaded" { "OverloadManagerTerminated" } else { name }
            }
        }
    };
}

flags! {
    /// No endpoint is healthy.
    NoHealthyUpstream = "UH",
    /// Connecting to the upstream failed.
    UpstreamConnectionFailure = "UF",
    /// A circuit breaker is open.
    UpstreamOverflow = "UO",
    /// No route, or no virtual host.
    NoRouteFound = "NR",
    /// The route's timeout, or a try's, ran out.
    UpstreamRequestTimeout = "UT",
    /// The upstream reset the stream.
    UpstreamRemoteReset = "UR",
    /// The upstream closed the connection.
    UpstreamConnectionTermination = "UC",
    /// Every attempt failed.
    UpstreamRetryLimitExceeded = "URX",
    /// The client went away.
    DownstreamConnectionTermination = "DC",
    /// The client broke the protocol.
    DownstreamProtocolError = "DPE",
    /// The upstream broke the protocol.
    UpstreamProtocolError = "UPE",
    /// The stream was idle for too long.
    StreamIdleTimeout = "SI",
    /// A fault delayed the request.
    DelayInjected = "DI",
    /// A fault aborted the request.
    FaultInjected = "FI",
    /// Too many requests.
    RateLimited = "RL",
    /// Denied by authentication.
    UnauthorizedExternalService = "UAEX",
    /// The destination's cluster does not exist.
    NoClusterFound = "NC",
    /// The limit for the whole exchange ran out.
    DurationTimeout = "DT",
    /// The process is short of memory or of file descriptors.
    Overloaded = "OM",
    /// The name that was asked for could not be resolved.
    DnsResolutionFailed = "DF",
}

/// The flags of one response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flags(u32);

impl Flags {
    /// Adds a flag.
    pub fn insert(&mut self, flag: Flag) {
        self.0 |= 1 << flag as u8;
    }

    /// Whether it is among them.
    #[must_use]
    pub fn contains(self, flag: Flag) -> bool {
        self.0 & (1 << flag as u8) != 0
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// All of them in one word.
    pub(super) fn bits(self) -> u32 {
        self.0
    }

    /// What [`bits`](Self::bits) gave.
    pub(super) fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// The flags in the order in which they are printed.
    pub fn iter(self) -> impl Iterator<Item = Flag> {
        Flag::ALL.iter().copied().filter(move |f| self.0 & (1 << *f as u8) != 0)
    }
}

impl fmt::Display for Flags {
    /// `-` when there is none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("-");
        }
        for (i, flag) in self.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            f.write_str(flag.as_str())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_print_in_their_own_order_whatever_the_order_of_insertion() {
        let mut flags = Flags::default();
        assert_eq!(flags.to_string(), "-");
        flags.insert(Flag::UpstreamRetryLimitExceeded);
        flags.insert(Flag::UpstreamConnectionFailure);
        assert_eq!(flags.to_string(), "UF,URX");
    }
}
