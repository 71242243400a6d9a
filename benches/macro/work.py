"""What every peer is asked to do, said once in words of none of them: hosts, prefixes, protocols, telemetry.

A peer that cannot do a piece of work says why; none does less than the others in silence.
"""

from dataclasses import dataclass

BODY = b"hello from upstream\n"


@dataclass(frozen=True)
class Work:
    """`hosts` names, each with `prefixes` routes to an own cluster of one endpoint."""

    hosts: int = 1
    prefixes: int = 5
    # Access log to a file, request id, forwarded headers, metrics: what Istio turns on. Without: as bare as the peer can be.
    telemetry: bool = True
    tls: bool = False
    # HTTP/2 from clients: by ALPN with TLS, by its preface without.
    h2: bool = False
    # HTTP/2 to the upstream as well.
    grpc: bool = False
    websocket: bool = False
    # A port that is carried to the upstream byte by byte.
    tcp: bool = False
    # One host is given another answer header each second while it is served.
    changing: bool = False

    def host(self, n):
        return f"h{n}.example.com"

    def path(self, n):
        return f"/p{n}/"

    @property
    def asked(self):
        """The host and the path of the load: the last of each, which is the worst for who looks at one after the other."""
        return self.host(self.hosts - 1), self.path(self.prefixes - 1)

    @property
    def scheme(self):
        return "https" if self.tls else "http"


# Istio's text format, for those that can be told one: the same fields, in each peer's own words.
ISTIO_LOG = (
    '[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% '
    '%RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% "%UPSTREAM_TRANSPORT_FAILURE_REASON%" %BYTES_RECEIVED% %BYTES_SENT% '
    '%DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" '
    '"%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% '
    "%DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n"
)
