//! The four services of the Bookinfo sample in one program, one subcommand each, and `all` to start every pod of the
//! sample in one process.
//!
//! Arguments become services here, and nothing else happens here. With `all`, each pod listens on the loopback address
//! that `endpoints.yaml` gives it (Linux answers on all of 127/8), so the gateway sees real, distinct endpoints.

mod client;
mod details;
mod model;
mod productpage;
mod ratings;
mod reply;
mod reviews;
mod server;

use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use client::{Backend, Client, Target};
use model::Identity;
use server::Service;

/// The port every service of the sample listens on.
const PORT: u16 = 9080;

#[derive(Debug, Parser)]
#[command(name = "bookinfo", version, about = "The services of the Bookinfo sample")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The web page: asks details and reviews, and shows who answered
    Productpage {
        #[command(flatten)]
        pod: Pod,
        #[command(flatten)]
        calls: Calls,
    },
    /// What is printed on the book's last page
    Details {
        #[command(flatten)]
        pod: Pod,
    },
    /// How many stars each reviewer gave
    Ratings {
        #[command(flatten)]
        pod: Pod,
    },
    /// What readers wrote: v1 without stars, v2 with black ones, v3 with red ones
    Reviews {
        #[command(flatten)]
        pod: Pod,
        #[command(flatten)]
        calls: Calls,
    },
    /// Every pod of the sample, each on the address that endpoints.yaml gives it
    All {
        /// Send the services' calls to each other through this gateway, as http://HOST:PORT
        #[arg(long, value_name = "URL")]
        via_gateway: Option<Target>,
    },
}

#[derive(Debug, Args)]
struct Pod {
    /// Address to listen on
    #[arg(long, value_name = "ADDR")]
    listen: SocketAddr,
    /// Version label of this pod
    #[arg(long, default_value = "v1")]
    version: String,
    /// Name of this pod [default: SERVICE-VERSION]
    #[arg(long, value_name = "NAME")]
    pod: Option<String>,
}

#[derive(Debug, Args)]
struct Calls {
    /// Where details answers; several take turns
    #[arg(long, value_name = "URL")]
    details: Vec<Target>,
    /// Where reviews answers; several take turns
    #[arg(long, value_name = "URL")]
    reviews: Vec<Target>,
    /// Where ratings answers; several take turns
    #[arg(long, value_name = "URL")]
    ratings: Vec<Target>,
    /// Send all of these calls through this gateway instead, by the service's cluster name
    #[arg(long, value_name = "URL", conflicts_with_all = ["details", "reviews", "ratings"])]
    via_gateway: Option<Target>,
}

/// One pod of the sample: service, version, name, and the last three octets of its 127.x address.
const PODS: [(&str, &str, &str, [u8; 3]); 6] = [
    ("productpage", "v1", "productpage-v1-6f4d9", [0, 10, 1]),
    ("details", "v1", "details-v1-79b8c", [0, 20, 1]),
    ("ratings", "v1", "ratings-v1-c5d7f", [0, 30, 1]),
    ("reviews", "v1", "reviews-v1-5b9f6", [0, 41, 1]),
    ("reviews", "v2", "reviews-v2-84c7d", [0, 42, 1]),
    ("reviews", "v3", "reviews-v3-9d2b4", [0, 43, 1]),
];

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(2).build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot start the runtime: {error}")),
    };
    match runtime.block_on(run(cli.command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => fail(&message),
    }
}

fn fail(message: &str) -> ExitCode {
    // Nothing is left to tell when stderr itself is gone.
    let _ = writeln!(io::stderr(), "bookinfo: {message}");
    ExitCode::FAILURE
}

async fn run(command: Command) -> Result<(), String> {
    let (stop, stopped) = watch::channel(false);
    let mut servers = JoinSet::new();
    for (address, service) in services(command) {
        let listener = TcpListener::bind(address)
            .await
            .map_err(|error| format!("{} cannot listen on {address}: {error}", service.identity()))?;
        let _ = writeln!(io::stderr(), "bookinfo: {} listens on {address}", service.identity());
        servers.spawn(server::serve(listener, Arc::new(service), stopped.clone()));
    }
    wait_for_signal().await?;
    // Every server holds a receiver; when none is left there is nobody to tell.
    let _ = stop.send(true);
    servers.join_all().await;
    Ok(())
}

async fn wait_for_signal() -> Result<(), String> {
    let install = |kind| signal(kind).map_err(|error| format!("cannot listen for signals: {error}"));
    let mut interrupt = install(SignalKind::interrupt())?;
    let mut terminate = install(SignalKind::terminate())?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

fn services(command: Command) -> Vec<(SocketAddr, Service)> {
    match command {
        Command::Productpage { pod, calls } => vec![single("productpage", pod, &calls)],
        Command::Details { pod } => vec![single("details", pod, &Calls::none())],
        Command::Ratings { pod } => vec![single("ratings", pod, &Calls::none())],
        Command::Reviews { pod, calls } => vec![single("reviews", pod, &calls)],
        Command::All { via_gateway } => {
            let calls = Calls {
                details: targets("details"),
                reviews: targets("reviews"),
                ratings: targets("ratings"),
                via_gateway,
            };
            PODS.iter()
                .map(|(service, version, name, octets)| {
                    let pod = Pod {
                        listen: address(*octets),
                        version: (*version).to_owned(),
                        pod: Some((*name).to_owned()),
                    };
                    single(service, pod, &calls)
                })
                .collect()
        }
    }
}

fn single(service: &'static str, pod: Pod, calls: &Calls) -> (SocketAddr, Service) {
    let name = pod.pod.unwrap_or_else(|| format!("{service}-{}", pod.version));
    let identity = Identity { service: service.to_owned(), version: pod.version, pod: name };
    let client = Client::new();
    let service = match service {
        "details" => Service::Details(details::Details::new(identity)),
        "ratings" => Service::Ratings(ratings::Ratings::new(identity)),
        "reviews" => Service::Reviews(reviews::Reviews::new(identity, client, calls.backend("ratings"))),
        _ => Service::ProductPage(productpage::ProductPage::new(
            identity,
            client,
            productpage::Backends {
                details: calls.backend("details"),
                reviews: calls.backend("reviews"),
                ratings: calls.backend("ratings"),
                through_gateway: calls.via_gateway.is_some(),
            },
        )),
    };
    (pod.listen, service)
}

fn address([b, c, d]: [u8; 3]) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(127, b, c, d), PORT))
}

fn targets(service: &str) -> Vec<Target> {
    PODS.iter()
        .filter(|(name, ..)| *name == service)
        .map(|(_, _, _, octets)| Target::from(address(*octets)))
        .collect()
}

impl Calls {
    fn none() -> Self {
        Self { details: Vec::new(), reviews: Vec::new(), ratings: Vec::new(), via_gateway: None }
    }

    /// Through a gateway a service is asked for by the host name that it has in the cluster.
    fn backend(&self, service: &'static str) -> Backend {
        let direct = match service {
            "details" => &self.details,
            "reviews" => &self.reviews,
            _ => &self.ratings,
        };
        match &self.via_gateway {
            Some(gateway) => Backend::through_gateway(service, gateway.clone()),
            None => Backend::direct(service, direct.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn a_gateway_and_direct_addresses_exclude_each_other() {
        let both = [
            "bookinfo",
            "reviews",
            "--listen",
            "127.0.0.1:0",
            "--ratings",
            "http://a:1",
            "--via-gateway",
            "http://b:2",
        ];
        assert!(Cli::try_parse_from(both).is_err());
    }

    /// The addresses are written twice, here and in the configuration; they must not drift apart.
    #[test]
    fn endpoints_yaml_names_every_pod_with_its_address_and_version() {
        let yaml = include_str!("../../endpoints.yaml");
        let document = |lines: &[&str]| {
            yaml.split("\n---")
                .any(|text| lines.iter().all(|line| text.lines().any(|have| have.trim() == *line)))
        };
        for (service, version, name, octets) in PODS {
            let (name, service) = (format!("name: {name}"), format!("app: {service}"));
            let (version, ip) = (format!("version: {version}"), format!("podIP: {}", address(octets).ip()));
            assert!(document(&["kind: Pod", &name, &service, &version, &ip]), "{name}");
            let slice = service.replace("app:", "kubernetes.io/service-name:");
            let endpoint = format!("- addresses: [{}]", address(octets).ip());
            assert!(document(&["kind: EndpointSlice", &slice, &endpoint, &name]), "{name}");
        }
    }
}
