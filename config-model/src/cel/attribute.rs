//! Envoy's attributes (docs: "Attributes"), as far as they are known here.

use super::Type;

macro_rules! attributes {
    ($($(#[$doc:meta])* $name:ident = $path:literal $kind:ident,)*) => {
        /// An attribute of a request that is over.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Attribute { $($(#[$doc])* $name,)* }

        impl Attribute {
            /// The attribute of that path.
            pub fn of(path: &str) -> Option<Attribute> {
                match path { $($path => Some(Attribute::$name),)* _ => None }
            }

            /// All paths.
            pub const PATHS: &'static [&'static str] = &[$($path,)*];

            /// What it is.
            pub fn kind(self) -> Type {
                match self { $(Attribute::$name => Type::$kind,)* }
            }
        }
    };
}

attributes! {
    /// Path and query.
    RequestPath = "request.path" Text,
    /// Path alone.
    RequestUrlPath = "request.url_path" Text,
    /// Query alone.
    RequestQuery = "request.query" Text,
    /// Authority.
    RequestHost = "request.host" Text,
    /// `http` or `https`.
    RequestScheme = "request.scheme" Text,
    /// Method.
    RequestMethod = "request.method" Text,
    /// `referer`.
    RequestReferer = "request.referer" Text,
    /// `user-agent`.
    RequestUserAgent = "request.useragent" Text,
    /// `x-request-id`.
    RequestId = "request.id" Text,
    /// `HTTP/1.1` or `HTTP/2`.
    RequestProtocol = "request.protocol" Text,
    /// From its first byte to the last of the response.
    RequestDuration = "request.duration" Duration,
    /// Bytes of its body.
    RequestSize = "request.size" Number,
    /// Status; 0 where none was sent.
    ResponseCode = "response.code" Number,
    /// Envoy's word for where the response came from.
    ResponseCodeDetails = "response.code_details" Text,
    /// Bytes of the body.
    ResponseSize = "response.size" Number,
    /// Status of a gRPC call.
    ResponseGrpcStatus = "response.grpc_status" Number,
    /// The request's duration in milliseconds, which CEL of Envoy does not have.
    ResponseDuration = "response.duration" Number,
    /// Whether both ends of the client's connection showed certificates.
    ConnectionMtls = "connection.mtls" Bool,
    /// Name that the client asked for in TLS.
    ConnectionServerName = "connection.requested_server_name" Text,
    /// The client's address and port.
    SourceAddress = "source.address" Text,
    /// The client's port.
    SourcePort = "source.port" Number,
    /// The gateway's address and port.
    DestinationAddress = "destination.address" Text,
    /// The gateway's port.
    DestinationPort = "destination.port" Number,
    /// The endpoint's address and port.
    UpstreamAddress = "upstream.address" Text,
    /// The endpoint's port.
    UpstreamPort = "upstream.port" Number,
    /// Why the connection to it failed.
    UpstreamFailure = "upstream.transport_failure_reason" Text,
    /// Name of the cluster.
    ClusterName = "xds.cluster_name" Text,
    /// Name of the route.
    RouteName = "xds.route_name" Text,
}
