//! The table itself: edit a row here when a field becomes honoured.
//!
//! Invariant: every field of the API is under some row. `below` names the fields that have no row of their own.

use super::{
    Row, Support,
    Support::{Honoured, NoEffectOnGateway, NotYet, OfSidecars},
};
use crate::meta::Kind;

/// All rows by kind.
pub(super) const ROWS: &[&[Row]] = &[
    GATEWAY,
    VIRTUAL_SERVICE,
    DESTINATION_RULE,
    SERVICE_ENTRY,
    WORKLOAD_ENTRY,
    SIDECAR,
    WORKLOAD_GROUP,
    REQUEST_AUTHENTICATION,
    TELEMETRY,
    AUTHORIZATION_POLICY,
    PEER_AUTHENTICATION,
];

const fn g(path: &'static str, support: Support, below: &'static [&'static str]) -> Row {
    Row { kind: Kind::Gateway, path, support, below }
}

const fn v(path: &'static str, support: Support, below: &'static [&'static str]) -> Row {
    Row { kind: Kind::VirtualService, path, support, below }
}

const fn d(path: &'static str, support: Support, below: &'static [&'static str]) -> Row {
    Row { kind: Kind::DestinationRule, path, support, below }
}

const fn s(path: &'static str, support: Support, below: &'static [&'static str]) -> Row {
    Row { kind: Kind::ServiceEntry, path, support, below }
}

const fn w(path: &'static str, support: Support, below: &'static [&'static str]) -> Row {
    Row { kind: Kind::WorkloadEntry, path, support, below }
}

const fn t(path: &'static str, support: Support, below: &'static [&'static str]) -> Row {
    Row { kind: Kind::Telemetry, path, support, below }
}

const STATS: Support = NoEffectOnGateway(
    "it names statistics of Envoy's that Istio does not publish, unless a proxy is told to",
);
const SIDECAR_ONLY: Support = OfSidecars("Istio evaluates it on sidecars only");
const NO_ORIGINAL: Support = OfSidecars("there is no original destination; such a host has no endpoints");
const PING: Support = NotYet("the time to answer a PING, which is five seconds");

const GATEWAY: &[Row] = &[
    g("spec.selector", Honoured, &[]),
    g("spec.servers[].port.number", Honoured, &[]),
    g("spec.servers[].port.name", Honoured, &[]),
    g("spec.servers[].port.protocol", Honoured, &[]),
    g("spec.servers[].port.protocol=TLS", Honoured, &[]),
    g("spec.servers[].port.protocol=TCP", Honoured, &[]),
    g("spec.servers[].port.protocol=MONGO", Honoured, &[]),
    g("spec.servers[].port.protocol=REDIS", Honoured, &[]),
    g("spec.servers[].port.protocol=MYSQL", Honoured, &[]),
    g("spec.servers[].port.protocol=UDP", NoEffectOnGateway("UDP has no listener"), &[]),
    g("spec.servers[].port.targetPort", NoEffectOnGateway("deprecated"), &[]),
    g("spec.servers[].bind", Honoured, &[]),
    g("spec.servers[].hosts", Honoured, &[]),
    g("spec.servers[].name", Honoured, &[]),
    g("spec.servers[].defaultEndpoint", NoEffectOnGateway("gateways do not read it"), &[]),
    g("spec.servers[].tls.httpsRedirect", Honoured, &[]),
    g("spec.servers[].tls.mode", Honoured, &[]),
    g("spec.servers[].tls.mode=PASSTHROUGH", Honoured, &[]),
    g("spec.servers[].tls.mode=AUTO_PASSTHROUGH", Honoured, &[]),
    g("spec.servers[].tls.mode=MUTUAL", Honoured, &[]),
    g("spec.servers[].tls.mode=OPTIONAL_MUTUAL", Honoured, &[]),
    g("spec.servers[].tls.mode=ISTIO_MUTUAL", Honoured, &[]),
    g("spec.servers[].tls.serverCertificate", Honoured, &[]),
    g("spec.servers[].tls.privateKey", Honoured, &[]),
    g("spec.servers[].tls.caCertificates", Honoured, &[]),
    g("spec.servers[].tls.caCrl", Honoured, &[]),
    g("spec.servers[].tls.credentialName", Honoured, &[]),
    g("spec.servers[].tls.credentialNames", Honoured, &[]),
    g("spec.servers[].tls.caCertCredentialName", Honoured, &[]),
    g("spec.servers[].tls.tlsCertificates", Honoured, &["serverCertificate", "privateKey", "caCertificates"]),
    g("spec.servers[].tls.subjectAltNames", Honoured, &[]),
    g("spec.servers[].tls.verifyCertificateSpki", Honoured, &[]),
    g("spec.servers[].tls.verifyCertificateHash", Honoured, &[]),
    g("spec.servers[].tls.minProtocolVersion", Honoured, &[]),
    g("spec.servers[].tls.maxProtocolVersion", Honoured, &[]),
    g("spec.servers[].tls.cipherSuites", Honoured, &[]),
    g("spec.servers[].tls.ecdhCurves", Honoured, &[]),
    g("spec.servers[].tls.insecureSkipVerify", Honoured, &[]),
];

const VIRTUAL_SERVICE: &[Row] = &[
    v("spec.hosts", Honoured, &[]),
    v("spec.gateways", Honoured, &[]),
    v("spec.exportTo", Honoured, &[]),
    v("spec.http[].name", Honoured, &[]),
    v("spec.http[].match[].name", Honoured, &[]),
    v("spec.http[].match[].uri", Honoured, &["exact", "prefix", "regex"]),
    v("spec.http[].match[].scheme", Honoured, &["exact", "prefix", "regex"]),
    v("spec.http[].match[].method", Honoured, &["exact", "prefix", "regex"]),
    v("spec.http[].match[].authority", Honoured, &["exact", "prefix", "regex"]),
    v("spec.http[].match[].headers", Honoured, &[]),
    v("spec.http[].match[].withoutHeaders", Honoured, &[]),
    v("spec.http[].match[].queryParams", Honoured, &[]),
    v("spec.http[].match[].ignoreUriCase", Honoured, &[]),
    v("spec.http[].match[].port", Honoured, &[]),
    v("spec.http[].match[].gateways", Honoured, &[]),
    v("spec.http[].match[].sourceLabels", Honoured, &[]),
    v("spec.http[].match[].sourceNamespace", Honoured, &[]),
    v("spec.http[].match[].statPrefix", STATS, &[]),
    v("spec.http[].route[].destination", Honoured, &["host", "subset", "port"]),
    v("spec.http[].route[].weight", Honoured, &[]),
    v("spec.http[].route[].headers", Honoured, &["request", "response"]),
    v(
        "spec.http[].redirect",
        Honoured,
        &["uri", "prefixRewrite", "authority", "port", "derivePort", "scheme", "redirectCode"],
    ),
    v("spec.http[].directResponse", Honoured, &["status", "body"]),
    v("spec.http[].delegate", Honoured, &["name", "namespace"]),
    v("spec.http[].rewrite", Honoured, &["uri", "authority", "uriRegexRewrite"]),
    v("spec.http[].timeout", Honoured, &[]),
    v(
        "spec.http[].retries",
        Honoured,
        &[
            "attempts",
            "perTryTimeout",
            "retryOn",
            "retryRemoteLocalities",
            "retryIgnorePreviousHosts",
            "backoff",
        ],
    ),
    v("spec.http[].fault", Honoured, &["delay", "abort"]),
    v("spec.http[].mirror", Honoured, &["host", "subset", "port"]),
    v("spec.http[].mirrorPercent", Honoured, &[]),
    v("spec.http[].mirror_percent", Honoured, &[]),
    v("spec.http[].mirrorPercentage", Honoured, &["value"]),
    v("spec.http[].mirrors", Honoured, &["destination", "percentage"]),
    v(
        "spec.http[].corsPolicy",
        Honoured,
        &[
            "allowOrigin",
            "allowOrigins",
            "allowMethods",
            "allowHeaders",
            "exposeHeaders",
            "maxAge",
            "allowCredentials",
            "unmatchedPreflights",
        ],
    ),
    v("spec.http[].headers", Honoured, &["request", "response"]),
    v("spec.tls", Honoured, &["match", "route"]),
    v("spec.tcp", Honoured, &["match", "route"]),
];

const DESTINATION_RULE: &[Row] = &[
    d("spec.host", Honoured, &[]),
    d("spec.exportTo", Honoured, &[]),
    d("spec.workloadSelector", Honoured, &["matchLabels"]),
    d("spec.subsets[].name", Honoured, &[]),
    d("spec.subsets[].labels", Honoured, &[]),
    d(
        "spec.subsets[].trafficPolicy.loadBalancer",
        Honoured,
        &["simple", "consistentHash", "warmupDurationSecs", "localityLbSetting", "warmup"],
    ),
    d("spec.subsets[].trafficPolicy.loadBalancer.zoneAwareLbSetting", Honoured, ZONE_AWARE_FIELDS),
    d("spec.subsets[].trafficPolicy.connectionPool", Honoured, &["tcp", "http"]),
    d("spec.subsets[].trafficPolicy.connectionPool.http.http2KeepAlive.timeout", PING, &[]),
    d("spec.subsets[].trafficPolicy.outlierDetection", Honoured, OUTLIER),
    d("spec.subsets[].trafficPolicy.tls", Honoured, TLS),
    d("spec.subsets[].trafficPolicy.loadBalancer.simple=PASSTHROUGH", NO_ORIGINAL, &[]),
    d("spec.subsets[].trafficPolicy.portLevelSettings", Honoured, PORT_LEVEL),
    d(
        "spec.subsets[].trafficPolicy.portLevelSettings[].loadBalancer.zoneAwareLbSetting",
        Honoured,
        ZONE_AWARE_FIELDS,
    ),
    d("spec.subsets[].trafficPolicy.portLevelSettings[].loadBalancer.simple=PASSTHROUGH", NO_ORIGINAL, &[]),
    d(
        "spec.subsets[].trafficPolicy.portLevelSettings[].connectionPool.http.http2KeepAlive.timeout",
        PING,
        &[],
    ),
    d("spec.subsets[].trafficPolicy.tunnel", Honoured, &["protocol", "targetHost", "targetPort"]),
    d("spec.subsets[].trafficPolicy.proxyProtocol", Honoured, &["version"]),
    d(
        "spec.subsets[].trafficPolicy.retryBudget",
        Honoured,
        &["percent", "minRetryConcurrency", "budgetInterval"],
    ),
    d("spec.trafficPolicy.loadBalancer.simple", Honoured, &[]),
    d("spec.trafficPolicy.loadBalancer.simple=PASSTHROUGH", NO_ORIGINAL, &[]),
    d(
        "spec.trafficPolicy.loadBalancer.consistentHash",
        Honoured,
        &[
            "httpHeaderName",
            "httpCookie",
            "useSourceIp",
            "httpQueryParameterName",
            "ringHash",
            "maglev",
            "minimumRingSize",
        ],
    ),
    d(
        "spec.trafficPolicy.loadBalancer.localityLbSetting",
        Honoured,
        &["distribute", "failover", "failoverPriority", "enabled"],
    ),
    d("spec.trafficPolicy.loadBalancer.zoneAwareLbSetting", Honoured, ZONE_AWARE_FIELDS),
    d("spec.trafficPolicy.loadBalancer.warmup", Honoured, &["duration", "minimumPercent", "aggression"]),
    d("spec.trafficPolicy.loadBalancer.warmupDurationSecs", Honoured, &[]),
    d(
        "spec.trafficPolicy.connectionPool.tcp",
        Honoured,
        &["maxConnections", "connectTimeout", "maxConnectionDuration", "idleTimeout"],
    ),
    d("spec.trafficPolicy.connectionPool.tcp.tcpKeepalive", Honoured, &["probes", "time", "interval"]),
    d(
        "spec.trafficPolicy.connectionPool.http",
        Honoured,
        &[
            "http1MaxPendingRequests",
            "http2MaxRequests",
            "maxRequestsPerConnection",
            "maxRetries",
            "idleTimeout",
            "h2UpgradePolicy",
            "useClientProtocol",
            "maxConcurrentStreams",
            "http2KeepAlive",
        ],
    ),
    d("spec.trafficPolicy.connectionPool.http.http2KeepAlive.interval", Honoured, &[]),
    d("spec.trafficPolicy.connectionPool.http.http2KeepAlive.timeout", PING, &[]),
    d("spec.trafficPolicy.outlierDetection", Honoured, OUTLIER),
    d("spec.trafficPolicy.tls", Honoured, TLS),
    d("spec.trafficPolicy.portLevelSettings", Honoured, PORT_LEVEL),
    d("spec.trafficPolicy.portLevelSettings[].loadBalancer.zoneAwareLbSetting", Honoured, ZONE_AWARE_FIELDS),
    d("spec.trafficPolicy.portLevelSettings[].loadBalancer.simple=PASSTHROUGH", NO_ORIGINAL, &[]),
    d("spec.trafficPolicy.portLevelSettings[].connectionPool.http.http2KeepAlive.timeout", PING, &[]),
    d("spec.trafficPolicy.tunnel", Honoured, &["protocol", "targetHost", "targetPort"]),
    d("spec.trafficPolicy.proxyProtocol", Honoured, &["version"]),
    d("spec.trafficPolicy.retryBudget", Honoured, &["percent", "minRetryConcurrency", "budgetInterval"]),
];

const ZONE_AWARE_FIELDS: &[&str] = &["enabled", "failover", "failoverPriority", "minClusterSize"];
const OUTLIER: &[&str] = &[
    "consecutiveErrors",
    "splitExternalLocalOriginErrors",
    "consecutiveLocalOriginFailures",
    "consecutiveGatewayErrors",
    "consecutive5xxErrors",
    "interval",
    "baseEjectionTime",
    "maxEjectionPercent",
    "minHealthPercent",
    "outlierDetectionHttpErrorCodes",
];
const TLS: &[&str] = &[
    "mode",
    "clientCertificate",
    "privateKey",
    "caCertificates",
    "credentialName",
    "subjectAltNames",
    "sni",
    "insecureSkipVerify",
    "caCrl",
];
const PORT_LEVEL: &[&str] = &["port", "loadBalancer", "connectionPool", "outlierDetection", "tls"];

const SERVICE_ENTRY: &[Row] = &[
    s("spec.hosts", Honoured, &[]),
    s("spec.addresses", OfSidecars("virtual addresses are for traffic that a sidecar captures"), &[]),
    s("spec.ports", Honoured, &["number", "protocol", "name", "targetPort"]),
    s("spec.location", Honoured, &[]),
    s("spec.resolution", Honoured, &[]),
    s("spec.resolution=NONE", NO_ORIGINAL, &[]),
    s("spec.resolution=DYNAMIC_DNS", Honoured, &[]),
    s("spec.endpoints[].address", Honoured, &[]),
    s("spec.endpoints[].ports", Honoured, &[]),
    s("spec.endpoints[].labels", Honoured, &[]),
    s("spec.endpoints[].network", Honoured, &[]),
    s("spec.endpoints[].locality", Honoured, &[]),
    s("spec.endpoints[].weight", Honoured, &[]),
    s("spec.endpoints[].serviceAccount", Honoured, &[]),
    s("spec.workloadSelector", Honoured, &["labels"]),
    s("spec.exportTo", Honoured, &[]),
    s("spec.subjectAltNames", Honoured, &[]),
];

const WORKLOAD_ENTRY: &[Row] = &[
    w("spec.address", Honoured, &[]),
    w("spec.ports", Honoured, &[]),
    w("spec.labels", Honoured, &[]),
    w("spec.network", Honoured, &[]),
    w("spec.locality", Honoured, &[]),
    w("spec.weight", Honoured, &[]),
    w("spec.serviceAccount", Honoured, &[]),
];

const SIDECAR: &[Row] = &[Row {
    kind: Kind::Sidecar,
    path: "spec",
    support: SIDECAR_ONLY,
    below: &["workloadSelector", "ingress", "egress", "inboundConnectionPool", "outboundTrafficPolicy"],
}];

const WORKLOAD_GROUP: &[Row] = &[Row {
    kind: Kind::WorkloadGroup,
    path: "spec",
    support: NoEffectOnGateway("it is a template that istiod makes WorkloadEntries from"),
    below: &["metadata", "template", "probe"],
}];

const fn r(path: &'static str, support: Support, below: &'static [&'static str]) -> Row {
    Row { kind: Kind::RequestAuthentication, path, support, below }
}

const fn a(path: &'static str, support: Support, below: &'static [&'static str]) -> Row {
    Row { kind: Kind::AuthorizationPolicy, path, support, below }
}

const REQUEST_AUTHENTICATION: &[Row] = &[
    r("spec.selector", Honoured, &["matchLabels"]),
    r("spec.targetRef", Honoured, TARGET_REFERENCE),
    r("spec.targetRefs", Honoured, TARGET_REFERENCE),
    r("spec.jwtRules[].issuer", Honoured, &[]),
    r("spec.jwtRules[].audiences", Honoured, &[]),
    r("spec.jwtRules[].jwksUri", Honoured, &[]),
    r("spec.jwtRules[].jwks_uri", Honoured, &[]),
    r("spec.jwtRules[].jwks", Honoured, &[]),
    r("spec.jwtRules[].fromHeaders", Honoured, &["name", "prefix"]),
    r("spec.jwtRules[].fromParams", Honoured, &[]),
    r("spec.jwtRules[].fromCookies", Honoured, &[]),
    r("spec.jwtRules[].outputPayloadToHeader", Honoured, &[]),
    r("spec.jwtRules[].outputClaimToHeaders", Honoured, &["header", "claim"]),
    r("spec.jwtRules[].forwardOriginalToken", Honoured, &[]),
    r("spec.jwtRules[].timeout", Honoured, &[]),
    r("spec.jwtRules[].spaceDelimitedClaims", Honoured, &[]),
    r("spec.jwtRules[].presence", Honoured, &[]),
];

const AUTHORIZATION_POLICY: &[Row] = &[
    a("spec.selector", Honoured, &["matchLabels"]),
    a("spec.targetRef", Honoured, TARGET_REFERENCE),
    a("spec.targetRefs", Honoured, TARGET_REFERENCE),
    a("spec.action", Honoured, &[]),
    a("spec.provider", Honoured, &["name"]),
    a("spec.rules[].from[].source", Honoured, SOURCE),
    a("spec.rules[].to[].operation", Honoured, OPERATION),
    a("spec.rules[].when", Honoured, &["key", "values", "notValues"]),
];

const SOURCE: &[&str] = &[
    "principals",
    "notPrincipals",
    "requestPrincipals",
    "notRequestPrincipals",
    "namespaces",
    "notNamespaces",
    "serviceAccounts",
    "notServiceAccounts",
    "ipBlocks",
    "notIpBlocks",
    "remoteIpBlocks",
    "notRemoteIpBlocks",
    "trustDomains",
    "notTrustDomains",
];
const OPERATION: &[&str] =
    &["hosts", "notHosts", "ports", "notPorts", "methods", "notMethods", "paths", "notPaths"];

const PEER_AUTHENTICATION: &[Row] = &[Row {
    kind: Kind::PeerAuthentication,
    path: "spec",
    support: OfSidecars("each server of a Gateway says in its tls settings what it asks of clients"),
    below: &["selector", "mtls", "portLevelMtls"],
}];

const TELEMETRY: &[Row] = &[
    t("spec.selector", Honoured, &["matchLabels"]),
    t("spec.targetRef", ATTACHED, TARGET_REFERENCE),
    t("spec.targetRefs", ATTACHED, TARGET_REFERENCE),
    t(
        "spec.tracing",
        Honoured,
        &[
            "match",
            "providers",
            "randomSamplingPercentage",
            "disableSpanReporting",
            "customTags",
            "useRequestIdForTraceSampling",
            "enableIstioTags",
            "disableContextPropagation",
        ],
    ),
    t("spec.metrics", Honoured, &["providers", "overrides", "reportingInterval"]),
    t("spec.accessLogging", Honoured, &["match", "providers", "disabled", "filter"]),
];

const ATTACHED: Support = NoEffectOnGateway(
    "it names a resource of the Gateway API or a waypoint's; name this gateway's pods by spec.selector",
);
const TARGET_REFERENCE: &[&str] = &["group", "kind", "name", "namespace"];
