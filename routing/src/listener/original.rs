//! From where a redirected connection was going to the listener that serves it.
//!
//! Invariant: the very address comes before any address (Envoy: `getBalancedHandlerByAddress`), and a listener that has a
//! socket of its own is served as what it is: nobody gets by a redirect where it does not lead without one.

use super::{Bind, Listener, ListenerKey, Listeners, Reached};
use std::{net::SocketAddr, sync::Arc};

/// The listener that serves a connection which `accepted` has taken in and which was going to `destination`.
#[must_use]
pub fn of_original_destination<'l>(
    listeners: &'l Listeners,
    accepted: &'l Arc<Listener>,
    destination: SocketAddr,
) -> &'l Arc<Listener> {
    if accepted.reached != Reached::Redirected {
        return accepted;
    }
    let at = |bind| listeners.get(&ListenerKey { bind, port: destination.port() });
    let fits = |listener: &&Arc<Listener>| {
        listener.direction == accepted.direction && listener.reached == Reached::HandedOver
    };
    let ip = destination.ip().to_canonical();
    let exact = at(Bind::Ip(ip)).filter(fits);
    exact.or_else(|| at(Bind::Any).filter(fits)).unwrap_or(accepted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listener::{Chains, Direction, Matched};

    fn listener(
        bind: Bind,
        port: u16,
        direction: Direction,
        reached: Reached,
    ) -> (ListenerKey, Arc<Listener>) {
        let key = ListenerKey { bind, port };
        let chains = Chains::Matched(Arc::new(Matched::new(Vec::new(), None)));
        (key.clone(), Arc::new(Listener { key, direction, reached, chains }))
    }

    #[test]
    fn the_very_address_then_any_then_what_was_redirected_to() {
        let ip = |text: &str| Bind::Ip(text.parse().unwrap());
        let listeners: Listeners = [
            listener(Bind::Any, 15001, Direction::Outbound, Reached::Redirected),
            listener(Bind::Any, 15006, Direction::Inbound, Reached::Redirected),
            listener(Bind::Any, 80, Direction::Outbound, Reached::HandedOver),
            listener(ip("10.0.0.1"), 80, Direction::Outbound, Reached::HandedOver),
            listener(ip("10.0.0.2"), 3306, Direction::Outbound, Reached::HandedOver),
            listener(ip("127.0.0.1"), 9000, Direction::Outbound, Reached::Bound),
        ]
        .into();
        let goes = |from: u16, to: &str| {
            let accepted = &listeners[&ListenerKey { bind: Bind::Any, port: from }];
            of_original_destination(&listeners, accepted, to.parse().unwrap()).name()
        };
        assert_eq!(goes(15001, "10.0.0.1:80"), "10.0.0.1_80");
        assert_eq!(goes(15001, "[::ffff:10.0.0.1]:80"), "10.0.0.1_80");
        assert_eq!(goes(15001, "10.9.9.9:80"), "0.0.0.0_80");
        assert_eq!(goes(15001, "10.0.0.2:3306"), "10.0.0.2_3306");
        assert_eq!(goes(15001, "10.0.0.1:3306"), "virtualOutbound");
        assert_eq!(goes(15001, "127.0.0.1:9000"), "virtualOutbound");
        assert_eq!(goes(15006, "10.0.0.1:80"), "virtualInbound");
        assert_eq!(goes(80, "10.0.0.1:80"), "0.0.0.0_80");
    }
}
