//! The YAML that most tests begin with.

use std::net::SocketAddr;

/// A rule that forwards everything to the service of [`config`].
pub const FORWARD: &str =
    "  - name: main\n    route: [{destination: {host: up.example, port: {number: 80}}}]\n";

/// A gateway on port 80 whose `a.example` has these rules (a list of `spec.http`, indented by two), and a service `up.example` with
/// these endpoints, of this protocol.
#[must_use]
pub fn config(rules: &str, endpoints: &[SocketAddr], protocol: &str) -> String {
    let endpoints: String = endpoints
        .iter()
        .map(|e| format!("  - address: {}\n    ports: {{main: {}}}\n", e.ip(), e.port()))
        .collect();
    format!(
        "apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: gw, namespace: default}}
spec:
  selector: {{istio: ingressgateway}}
  servers:
  - port: {{number: 80, name: http, protocol: HTTP}}
    hosts: ['*']
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: vs, namespace: default}}
spec:
  hosts: [a.example]
  gateways: [gw]
  http:
{rules}---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: up, namespace: default}}
spec:
  hosts: [up.example]
  location: MESH_INTERNAL
  resolution: STATIC
  ports:
  - {{number: 80, name: main, protocol: {protocol}}}
  endpoints:
{endpoints}"
    )
}

/// One more service, `name.example` with one endpoint, to be put behind other documents.
#[must_use]
pub fn service(name: &str, at: SocketAddr, protocol: &str) -> String {
    format!(
        "---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {name}, namespace: default}}
spec:
  hosts: [{name}.example]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{{number: 80, name: main, protocol: {protocol}}}]
  endpoints: [{{address: {}, ports: {{main: {}}}}}]
",
        at.ip(),
        at.port()
    )
}
