//! Chains of outbound listeners in the making, and how those of several services share a listener.
//!
//! Invariant: who came first stays; what cannot be told from it is left out (Istio: listener.go `buildSidecarOutboundListener`,
//! `mergeTCPFilterChains`).

use crate::listener::{Bind, ChainMatch, ListenerKey, PLAIN_HTTP, TcpRoute, Transport};
use config_model::scalar::Protocol;
use std::{collections::BTreeMap, sync::Arc};

/// Names a table: the egress listener, the port or socket, and the service where the table is of one alone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TableKey {
    /// Number of the egress listener.
    pub(super) egress: usize,
    /// What ports are told by: the port, or 0 where the listener is for services of all ports.
    pub(super) port: u16,
    /// The service whose alone it is.
    pub(super) service: Option<Arc<str>>,
    /// Istio's name of it.
    pub(super) name: Arc<str>,
}

/// A chain in the making.
#[derive(Clone)]
pub(super) struct Draft {
    pub(super) condition: ChainMatch,
    pub(super) carries: Carries,
}

/// What the connections of a chain carry.
#[derive(Clone)]
pub(super) enum Carries {
    /// Requests, which go by this table.
    Requests(TableKey),
    /// Bytes.
    Bytes {
        /// Where they go.
        route: Arc<TcpRoute>,
        /// Whether they are TLS that goes on as it is.
        passed: bool,
    },
}

impl Draft {
    /// Requests; `sniffed`: only what begins like one in the clear.
    pub(super) fn requests(table: TableKey, sniffed: bool) -> Self {
        let condition = if sniffed {
            ChainMatch {
                transport: Some(Transport::Raw),
                protocols: PLAIN_HTTP.into(),
                ..ChainMatch::default()
            }
        } else {
            ChainMatch::default()
        };
        Self { condition, carries: Carries::Requests(table) }
    }
}

/// What services on a listener have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Http,
    Tcp,
    /// Both: told apart by the first bytes.
    Either,
}

/// A listener in the making.
pub(super) struct Entry {
    /// Port that it is for; 0 for a unix socket.
    pub(super) port: u16,
    /// Whether it has a socket of its own.
    pub(super) bound: bool,
    /// Its chains.
    pub(super) chains: Vec<Draft>,
    family: Family,
    protocol: Option<Protocol>,
    /// An explicit listener: what is not on its port explicitly does not come to it.
    locked: bool,
}

/// Listeners by address.
#[derive(Default)]
pub(super) struct Entries(BTreeMap<ListenerKey, Entry>);

/// What a service brings to a listener.
pub(super) struct Offer {
    /// Where.
    pub(super) key: ListenerKey,
    /// Port that it is for.
    pub(super) port: u16,
    /// Whether it is to have a socket of its own.
    pub(super) bound: bool,
    /// What the port carries.
    pub(super) protocol: Option<Protocol>,
}

impl Entries {
    /// From here on explicit listeners are closed to others.
    pub(super) fn lock(&mut self) {
        self.0.values_mut().for_each(|entry| entry.locked = true);
    }

    /// Adds what a service has on a port. `requests` is the table of its requests, `bytes` makes its other chains.
    pub(super) fn add(&mut self, offer: Offer, requests: TableKey, bytes: impl FnOnce() -> Vec<Draft>) {
        let Offer { key, port, bound, protocol } = offer;
        let known = self.0.get(&key);
        if known.is_some_and(|known| known.locked) {
            return;
        }
        let (family, chains) = match protocol {
            Some(Protocol::HttpProxy) if known.is_none() => {
                (Family::Http, vec![Draft::requests(requests, false)])
            }
            Some(protocol) if protocol.is_http() => {
                // One table is for all services: only the first brings it.
                if known.is_some_and(|known| known.family != Family::Tcp) {
                    return;
                }
                let sniffed = key.bind == Bind::Any;
                let family = if sniffed { Family::Either } else { Family::Http };
                (family, vec![Draft::requests(requests, sniffed)])
            }
            Some(Protocol::Udp) => return,
            Some(_) => (Family::Tcp, bytes()),
            None => {
                let mut chains = bytes();
                if known.is_none_or(|known| known.family != Family::Either) {
                    chains.push(Draft::requests(requests, true));
                }
                (Family::Either, chains)
            }
        };
        let fresh = Entry { port, bound, chains, family, protocol, locked: false };
        let Some(known) = self.0.get_mut(&key) else {
            self.0.insert(key, fresh);
            return;
        };
        // Whoever waits for the server to speak first cannot be looked at first.
        let speaks_first = |p: Option<Protocol>| matches!(p, Some(Protocol::Mongo | Protocol::Mysql));
        if (speaks_first(protocol) || speaks_first(known.protocol)) && protocol != known.protocol {
            return;
        }
        if family == Family::Either && known.family == Family::Http {
            *known = fresh;
            return;
        }
        if family != known.family {
            known.family = Family::Either;
            known.protocol = None;
        }
        for chain in fresh.chains {
            if !known.chains.iter().any(|other| other.condition == chain.condition) {
                known.chains.push(chain);
            }
        }
    }

    /// All of them.
    pub(super) fn finish(self) -> impl Iterator<Item = (ListenerKey, Entry)> {
        self.0.into_iter()
    }

    /// The tables that they need.
    pub(super) fn tables(&self) -> impl Iterator<Item = &TableKey> {
        let chains = self.0.values().flat_map(|entry| &entry.chains);
        chains.filter_map(|chain| match &chain.carries {
            Carries::Requests(table) => Some(table),
            Carries::Bytes { .. } => None,
        })
    }
}
