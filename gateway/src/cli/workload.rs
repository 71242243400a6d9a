//! What a sidecar takes for its workload's addresses and ports.
//!
//! Invariant: what is said by flag is all that holds; nothing is sent to find out the rest.

use std::{
    env,
    net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket},
};

use routing::compile::Workload;

use super::args::SidecarArgs;

/// Where Kubernetes' downward API says a pod's address to Istio's agent; several have commas between.
const NAMES: [&str; 2] = ["INSTANCE_IP", "POD_IP"];

pub(super) fn of(args: &SidecarArgs) -> Workload {
    let addresses = if args.workload_addresses.is_empty() {
        found(|name| env::var(name).ok(), own())
    } else {
        args.workload_addresses.clone()
    };
    Workload { outbound: args.outbound_port, inbound: args.inbound_port, ..Workload::at(addresses) }
}

/// What the environment says, then `own`, each once.
fn found(environment: impl Fn(&str) -> Option<String>, own: Vec<IpAddr>) -> Vec<IpAddr> {
    let said: Vec<String> = NAMES.into_iter().filter_map(environment).collect();
    let said = said.iter().flat_map(|text| text.split(',')).filter_map(|text| text.trim().parse().ok());
    let mut addresses = Vec::new();
    for address in said.chain(own) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses
}

/// The addresses by which the machine's routes have it speak to others: a socket that is connected, and never written to, has one.
fn own() -> Vec<IpAddr> {
    // Nobody's, by RFC 5737 and RFC 3849: where they lead is where the default route does.
    let elsewhere = [
        SocketAddr::from(([192, 0, 2, 1], 9)),
        SocketAddr::from((Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 9)),
    ];
    let of_route = |there: SocketAddr| {
        let any = if there.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any).ok()?;
        socket.connect(there).ok()?;
        let address = socket.local_addr().ok()?.ip();
        (!address.is_loopback() && !address.is_unspecified()).then_some(address)
    };
    elsewhere.into_iter().filter_map(of_route).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_is_known_once_and_what_is_none_is_left_out() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let environment = |name: &str| match name {
            "INSTANCE_IP" => Some("10.0.0.1, fd00::1".to_owned()),
            "POD_IP" => Some("10.0.0.1,nonsense,".to_owned()),
            _ => None,
        };
        let own = vec![ip("fd00::1"), ip("192.168.0.1")];
        assert_eq!(found(environment, own), [ip("10.0.0.1"), ip("fd00::1"), ip("192.168.0.1")]);
        assert_eq!(found(|_| None, Vec::new()), Vec::<IpAddr>::new());
    }
}
