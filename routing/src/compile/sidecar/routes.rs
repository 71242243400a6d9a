//! Routes that no VirtualService makes: to a service as it is, to the workload, and of what no service has.
//!
//! Invariant: their VirtualService is empty, and their names are Istio's.

use super::{super::actions::Actions, scope::Rest};
use crate::{
    action::{reply::DirectReply, retry::RetryPolicy},
    cluster::ClusterName,
    path::PathMatch,
    route::{Action, Destination, Forward, Operation, Route, RouteMatch, RouteOrigin},
    table::VirtualHost,
};
use config_model::{istio::virtual_service::HttpRoute, mesh::MeshConfig, scalar::Protocol};
use std::sync::Arc;

/// Makes them, with what the mesh says of retries.
pub(super) struct Plain {
    outbound: Option<Arc<RetryPolicy>>,
    inbound: Arc<RetryPolicy>,
}

impl Plain {
    pub(super) fn new(mesh: &MeshConfig) -> Self {
        // Istio: retry.go `ConvertInboundPolicy`: what no byte of was read yet is asked again.
        let (on, statuses) = RetryPolicy::parse_on("reset-before-request");
        let inbound = RetryPolicy { on, statuses, ..RetryPolicy::istio_default() };
        Self { outbound: Actions::new(mesh).retry(&HttpRoute::default()), inbound: Arc::new(inbound) }
    }

    /// To a service's port as it is (Istio: route.go `BuildDefaultHTTPOutboundRoute`).
    pub(super) fn outbound(&self, host: &str, port: u16) -> Arc<Route> {
        forward("default", ClusterName::outbound(port, "", host), self.outbound.clone())
    }

    /// To the workload (Istio: route.go `BuildDefaultHTTPInboundRoute`).
    pub(super) fn inbound(&self, cluster: ClusterName, protocol: Option<Protocol>) -> Arc<Route> {
        let grpc = matches!(protocol, Some(Protocol::Grpc | Protocol::GrpcWeb));
        forward("default", cluster, (!grpc).then(|| Arc::clone(&self.inbound)))
    }
}

/// What becomes of requests for what no service has (Istio: httproute.go `buildCatchAllVirtualHost`).
pub(super) fn of_the_rest(rest: &Rest<'_>, proxy: impl Fn() -> ClusterName) -> Arc<VirtualHost> {
    let to = match rest {
        Rest::Ends => {
            let action = Action::Reply(DirectReply { status: 502, body: [].into() });
            return any("block_all", route("block_all", action));
        }
        Rest::Named => {
            let name = "allow_any_dynamic_dns";
            return any(name, forward(name, ClusterName::any_name(), None));
        }
        Rest::Passes => ClusterName::passthrough(),
        Rest::Proxied(_) => proxy(),
    };
    any("allow_any", forward("allow_any", to, None))
}

/// A virtual host for every name.
pub(super) fn any(name: &str, route: Arc<Route>) -> Arc<VirtualHost> {
    Arc::new(VirtualHost::new(name, "*", false, vec![route]))
}

fn forward(name: &str, cluster: ClusterName, retry: Option<Arc<RetryPolicy>>) -> Arc<Route> {
    let destinations = [Destination { cluster, weight: 1, headers: Arc::default() }];
    let forward = Forward {
        destinations: destinations.into(),
        total_weight: 1,
        rewrite: None,
        authority: None,
        timeout: None,
        retry,
        filters: None,
    };
    route(name, Action::Forward(forward))
}

fn route(name: &str, action: Action) -> Arc<Route> {
    Arc::new(Route {
        origin: RouteOrigin {
            virtual_service: "".into(),
            name: Some(name.into()),
            index: 0,
            match_index: 0,
            delegate: None,
            metadata: Arc::default(),
        },
        matcher: RouteMatch {
            path: PathMatch::Prefix { text: "/".into(), ignore_case: false },
            conditions: [].into(),
        },
        action,
        response_headers: Arc::default(),
        taken: Arc::default(),
        operation: Operation::default(),
    })
}
