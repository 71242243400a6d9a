//! The flags about clients, and MeshConfig's word for the same.
//!
//! Invariant: whatever has a flag can be written in MeshConfig too: in `connectionSettings` where Istio has a field for it,
//! and by the name of the flag's variable in `defaultConfig.proxyMetadata`, as Istio's proxies are given their environment.

use std::{collections::BTreeMap, time::Duration};

use clap::{Args, CommandFactory, Parser, ValueEnum};

use super::{Misdirected, Network};

/// A switch on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Allow {
    /// Served.
    Allow,
    /// Refused.
    Refuse,
}

/// What becomes of field names with an underscore, on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum UnderscoresFlag {
    /// They pass.
    Allow,
    /// The request is refused with 400.
    Refuse,
    /// The field is left out.
    Drop,
}

/// The flags. What is not given is MeshConfig's.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
#[command(next_help_heading = "Limits on clients (what is not given is MeshConfig's)")]
pub struct EdgeFlags {
    /// Time for a TLS handshake, or for the bytes that tell one protocol from another
    #[arg(long, value_name = "DURATION", env = "LIMEN_HANDSHAKE_TIMEOUT", value_parser = crate::cli::duration)]
    pub handshake_timeout: Option<Duration>,
    /// Time to the first byte of a connection's first request
    #[arg(long, value_name = "DURATION", env = "LIMEN_FIRST_BYTE_TIMEOUT", value_parser = crate::cli::duration)]
    pub first_byte_timeout: Option<Duration>,
    /// Time for a request's head, from its first byte
    #[arg(long, value_name = "DURATION", env = "LIMEN_REQUEST_HEADERS_TIMEOUT", value_parser = crate::cli::duration)]
    pub request_headers_timeout: Option<Duration>,
    /// Time for a whole request; 0s: no limit
    #[arg(long, value_name = "DURATION", env = "LIMEN_REQUEST_TIMEOUT", value_parser = crate::cli::duration)]
    pub request_timeout: Option<Duration>,
    /// Time without progress of a request; 0s: no limit
    #[arg(long, value_name = "DURATION", env = "LIMEN_STREAM_IDLE_TIMEOUT", value_parser = crate::cli::duration)]
    pub stream_idle_timeout: Option<Duration>,
    /// Time without a request on a connection
    #[arg(long, value_name = "DURATION", env = "LIMEN_IDLE_TIMEOUT", value_parser = crate::cli::duration)]
    pub idle_timeout: Option<Duration>,
    /// Life of a connection, after which its client is asked to go; 0s: no limit
    #[arg(long, value_name = "DURATION", env = "LIMEN_MAX_CONNECTION_DURATION", value_parser = crate::cli::duration)]
    pub max_connection_duration: Option<Duration>,
    /// Bytes of a request's head
    #[arg(long, value_name = "N", env = "LIMEN_MAX_HEADER_BYTES", value_parser = clap::value_parser!(u32).range(1024..=1_000_000))]
    pub max_header_bytes: Option<u32>,
    /// Fields of a request's head
    #[arg(long, value_name = "N", env = "LIMEN_MAX_HEADERS", value_parser = clap::value_parser!(u32).range(1..=250))]
    pub max_headers: Option<u32>,
    /// Streams open on one HTTP/2 connection
    #[arg(long, value_name = "N", env = "LIMEN_MAX_CONCURRENT_STREAMS")]
    pub max_concurrent_streams: Option<u32>,
    /// Bytes of an HTTP/2 stream's window
    #[arg(long, value_name = "BYTES", env = "LIMEN_H2_STREAM_WINDOW", value_parser = clap::value_parser!(u32).range(65_535..=0x7fff_ffff))]
    pub h2_stream_window: Option<u32>,
    /// Bytes of an HTTP/2 connection's window
    #[arg(long, value_name = "BYTES", env = "LIMEN_H2_CONNECTION_WINDOW", value_parser = clap::value_parser!(u32).range(65_535..=0x7fff_ffff))]
    pub h2_connection_window: Option<u32>,
    /// Connections of all listeners; 0: no limit
    #[arg(long, value_name = "N", env = "LIMEN_MAX_CONNECTIONS")]
    pub max_connections: Option<usize>,
    /// Connections of one listener; 0: no limit
    #[arg(long, value_name = "N", env = "LIMEN_MAX_CONNECTIONS_PER_LISTENER")]
    pub max_connections_per_listener: Option<usize>,
    /// Connections of one client address; 0: no limit
    #[arg(long, value_name = "N", env = "LIMEN_MAX_CONNECTIONS_PER_CLIENT")]
    pub max_connections_per_client: Option<usize>,
    /// TLS handshakes that go on at one time
    #[arg(long, value_name = "N", env = "LIMEN_MAX_HANDSHAKES", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_handshakes: Option<u32>,
    /// Bytes of memory that the process may use, as 900Mi; what its control group says when not given
    #[arg(long, value_name = "BYTES", env = "LIMEN_MEMORY_LIMIT", value_parser = bytes)]
    pub memory_limit: Option<u64>,
    /// File descriptors that the process may use; what it was given when not given here
    #[arg(long, value_name = "N", env = "LIMEN_FILE_LIMIT", value_parser = clap::value_parser!(u64).range(1..))]
    pub file_limit: Option<u64>,
    /// Percent of memory or file descriptors from which on clients are asked to go after their request
    #[arg(long, value_name = "PERCENT", env = "LIMEN_SHED_KEEPALIVE_AT", value_parser = clap::value_parser!(u8).range(1..=100))]
    pub shed_keepalive_at: Option<u8>,
    /// Percent of memory or file descriptors from which on requests get 503
    #[arg(long, value_name = "PERCENT", env = "LIMEN_SHED_REQUESTS_AT", value_parser = clap::value_parser!(u8).range(1..=100))]
    pub shed_requests_at: Option<u8>,
    /// Percent of memory or file descriptors from which on no connection is accepted
    #[arg(long, value_name = "PERCENT", env = "LIMEN_SHED_CONNECTIONS_AT", value_parser = clap::value_parser!(u8).range(1..=100))]
    pub shed_connections_at: Option<u8>,
    /// Field names with an underscore
    #[arg(long, value_enum, env = "LIMEN_UNDERSCORES")]
    pub underscores: Option<UnderscoresFlag>,
    /// HTTP/1.0
    #[arg(long, value_enum, env = "LIMEN_HTTP10")]
    pub http10: Option<Allow>,
    /// The method TRACE
    #[arg(long, value_enum, env = "LIMEN_TRACE")]
    pub trace: Option<Allow>,
    /// Lines that end with LF alone
    #[arg(long, value_enum, env = "LIMEN_BARE_LF")]
    pub bare_lf: Option<Allow>,
    /// Proxies in front that append to X-Forwarded-For
    #[arg(long, value_name = "N", env = "LIMEN_NUM_TRUSTED_PROXIES")]
    pub num_trusted_proxies: Option<usize>,
    /// Networks whose connections begin with a PROXY header (`0.0.0.0/0,::/0` for all)
    #[arg(long, value_name = "CIDR,…", env = "LIMEN_PROXY_PROTOCOL_FROM", value_delimiter = ',')]
    pub proxy_protocol_from: Vec<Network>,
    /// A request for another server of the same port on one TLS connection
    #[arg(long, value_enum, env = "LIMEN_MISDIRECTED")]
    pub misdirected: Option<Misdirected>,
}

/// The flags alone, to read them from something else than a command line.
#[derive(Parser)]
#[command(name = "proxyMetadata", disable_help_flag = true)]
struct Alone {
    #[command(flatten)]
    flags: EdgeFlags,
}

impl EdgeFlags {
    /// What `proxyMetadata` says, and what is wrong with it: a value that cannot be read counts as not given.
    #[must_use]
    pub fn from_metadata(metadata: &BTreeMap<String, String>) -> (EdgeFlags, Vec<String>) {
        let mut found = (EdgeFlags::default(), Vec::new());
        if !metadata.keys().any(|name| name.starts_with("LIMEN_")) {
            return found;
        }
        // Without its variables: the environment is the flags' business.
        let command = Alone::command().mut_args(|arg| arg.env(None::<&str>));
        for arg in Alone::command().get_arguments() {
            let value = arg.get_env().and_then(|name| metadata.get(name.to_str()?));
            let (Some(value), Some(long)) = (value, arg.get_long()) else { continue };
            let words = ["limen".to_owned(), format!("--{long}={value}")];
            let read = command.clone().try_get_matches_from(words);
            match read.and_then(|matches| <Alone as clap::FromArgMatches>::from_arg_matches(&matches)) {
                Ok(one) => found.0 = found.0.or(one.flags),
                Err(error) => {
                    let text = error.to_string();
                    let first = text.lines().next().unwrap_or_default();
                    found.1.push(format!("proxyMetadata: {}", first.trim_start_matches("error: ")));
                }
            }
        }
        found
    }

    /// These, and where they say nothing the others.
    #[must_use]
    pub fn or(self, others: EdgeFlags) -> EdgeFlags {
        macro_rules! each {
            ($($name:ident)*) => {
                EdgeFlags {
                    $($name: self.$name.or(others.$name),)*
                    proxy_protocol_from: match self.proxy_protocol_from.is_empty() {
                        true => others.proxy_protocol_from,
                        false => self.proxy_protocol_from,
                    },
                }
            };
        }
        each!(
            handshake_timeout first_byte_timeout request_headers_timeout request_timeout stream_idle_timeout
            idle_timeout max_connection_duration max_header_bytes max_headers max_concurrent_streams
            h2_stream_window h2_connection_window max_connections max_connections_per_listener
            max_connections_per_client max_handshakes memory_limit file_limit shed_keepalive_at shed_requests_at
            shed_connections_at underscores http10 trace bare_lf num_trusted_proxies misdirected
        )
    }
}

/// A number of bytes, with Kubernetes' binary or decimal suffix.
fn bytes(text: &str) -> Result<u64, String> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let factor: u64 = match unit {
        "" => 1,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        _ => return Err(format!("{text:?} is not a number of bytes such as 900Mi")),
    };
    let number = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    number
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| format!("{text:?} is not a number of bytes such as 900Mi"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(entries: &[(&str, &str)]) -> (EdgeFlags, Vec<String>) {
        EdgeFlags::from_metadata(&entries.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn every_flag_can_be_written_in_mesh_config() {
        let flags = Alone::command();
        let names: Vec<_> = flags.get_arguments().filter_map(|arg| arg.get_env()?.to_str()).collect();
        assert_eq!(names.len(), 28);
        for name in names {
            let good = ["1", "1s", "allow", "404", "10.0.0.0/8", "65535", "1024"].into_iter();
            let read = good.map(|value| written(&[(name, value)])).find(|(_, problems)| problems.is_empty());
            let (read, _) = read.expect(name);
            assert_ne!(read, EdgeFlags::default(), "{name}");
            assert_eq!(EdgeFlags::default().or(read.clone()), read, "{name}");
            assert_eq!(read.clone().or(EdgeFlags::default()), read, "{name}");
        }
    }

    #[test]
    fn what_cannot_be_read_says_so_and_the_rest_counts() {
        let (flags, problems) = written(&[
            ("LIMEN_MAX_CONNECTIONS_PER_CLIENT", "7"),
            ("LIMEN_HANDSHAKE_TIMEOUT", "soon"),
            ("LIMEN_MEMORY_LIMIT", "2Gi"),
            ("OTHER", "x"),
        ]);
        assert_eq!((flags.max_connections_per_client, flags.memory_limit), (Some(7), Some(2 << 30)));
        assert_eq!(flags.handshake_timeout, None);
        assert_eq!(problems.len(), 1);
        assert!(problems[0].contains("--handshake-timeout"), "{problems:?}");
    }

    #[test]
    fn bytes_have_kubernetes_suffixes() {
        for (text, number) in [("1", Some(1)), ("900Mi", Some(943_718_400)), ("2G", Some(2_000_000_000))] {
            assert_eq!(bytes(text).ok(), number);
        }
        for bad in ["", "0", "-1", "1.5Gi", "1 Mi", "Mi", "99999999999999Gi"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }
}
