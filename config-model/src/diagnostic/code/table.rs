//! The table of codes: Istio's numbers where Istio has one, `LIM` numbers for ours.
//!
//! Invariant: a row says what raises the code. `sample` is the file of its name in `deploy/samples/invalid`, which a test holds to
//! raise it and nothing else; `elsewhere` and `retired` say why there is none. The pages in `docs/codes` are made from this table
//! (`LIMEN_UPDATE=1 cargo test -p config-model --test codes`).

use super::{Code, CodeInfo, Raised};
use crate::diagnostic::Severity;

macro_rules! raised {
    ($text:literal sample) => {
        Raised::ByFile(include_str!(concat!("../../../../deploy/samples/invalid/", $text, ".yaml")))
    };
    ($text:literal elsewhere $why:literal) => {
        Raised::Elsewhere($why)
    };
    ($text:literal retired $instead:literal) => {
        Raised::Retired($instead)
    };
}

macro_rules! codes {
    ($(
        $(#[$doc:meta])*
        $constant:ident $text:literal $title:literal $severity:ident $raised:ident $($why:literal)?
            => $meaning:literal, $remedy:literal;
    )*) => {
        impl Code {
            $($(#[$doc])* pub const $constant: Code = Code($text);)*

            /// Every row, in the order of the table.
            pub const TABLE: &'static [CodeInfo] = &[
                $(CodeInfo {
                    code: Code($text),
                    title: $title,
                    severity: Severity::$severity,
                    raised: raised!($text $raised $($why)?),
                    meaning: $meaning,
                    remedy: $remedy,
                },)*
            ];
        }
    };
}

codes! {
    /// A field or annotation that Istio has deprecated.
    DEPRECATED "IST0002" "Deprecated" Warning sample
        => "A field is used that Istio still reads and will drop one day. It has its old effect until then.",
           "Use the field that the message names in its place.";
    /// A Gateway, host, subset or Secret that does not exist.
    REFERENCE_NOT_FOUND "IST0101" "ReferencedResourceNotFound" Error sample
        => "A resource names another one that is not there: a Gateway, a host, a port of a host, a subset or a Secret. Requests that depend on it get no \
            answer from a service: a route to an unknown host answers 503, a server without its certificate refuses the handshake.",
           "Correct the name, or add what is missing. A host without dots is a Service of the same namespace; write the full name \
            `service.namespace.svc.cluster.local` for one in another namespace. A Secret belongs into the namespace where the gateway runs.";
    /// What admission or the schema would refuse.
    SCHEMA "IST0106" "SchemaValidationError" Error sample
        => "The resource breaks a rule of the API, so a cluster would not accept it. It is not served; when an earlier version of it was accepted, that \
            version goes on being served.",
           "Correct the field that the message names.";
    /// Two VirtualServices claim one host.
    CONFLICTING_HOSTS "IST0109" "ConflictingMeshGatewayVirtualServiceHosts" Error sample
        => "Two VirtualServices claim the same host. In the mesh only one of them takes effect. On a gateway their rules are put together, oldest first, \
            and only a second rule for every request is lost: that is a warning.",
           "Merge the two, or give each its own host.";
    /// A service with several ports needs a port in the destination.
    PORT_REQUIRED "IST0112" "VirtualServiceDestinationPortSelectorRequired" Error sample
        => "A destination names a host with several ports and does not say which. Nothing can be chosen for it.",
           "Add `port.number` to the destination.";
    /// A policy that is for no pod.
    NO_MATCHING_WORKLOADS "IST0127" "NoMatchingWorkloadsFound" Warning sample
        => "A policy is for pods of which there is none: its selector fits no pod of its namespace, or there are no pods in it. It has no effect.",
           "Correct the labels of the selector or the namespace. A policy of the root namespace is for the pods of all namespaces.";
    /// TLS to a host without a CA.
    NO_CA_HOST "IST0128" "NoServerCertificateVerificationDestinationLevel" Warning sample
        => "A DestinationRule starts TLS to a host and names no certificate authority, so nothing is known about who answers.",
           "Set `caCertificates`, or a `credentialName` whose Secret holds the authority.";
    /// TLS to a port without a CA.
    NO_CA_PORT "IST0129" "NoServerCertificateVerificationPortLevel" Warning sample
        => "A DestinationRule starts TLS to a port of a host and names no certificate authority, so nothing is known about who answers.",
           "Set `caCertificates` on the port's settings, or a `credentialName` whose Secret holds the authority.";
    /// A rule that no request can reach.
    UNREACHABLE_RULE "IST0130" "VirtualServiceUnreachableRule" Warning sample
        => "Rules are tried from top to bottom. Every request that this rule would take is taken by an earlier one, so it never acts.",
           "Move the more general rule below this one, or remove this one.";
    /// A match that an earlier one covers.
    INEFFECTIVE_MATCH "IST0131" "VirtualServiceIneffectiveMatch" Info sample
        => "One of several matches of a rule is covered by an earlier rule. The rule's other matches still act.",
           "Remove the match, or make it differ from the earlier one.";
    /// A host that no server of the Gateway admits.
    HOST_NOT_IN_GATEWAY "IST0132" "VirtualServiceHostNotFoundInGateway" Warning sample
        => "The VirtualService is bound to a Gateway none of whose servers admits one of its hosts. No request for that host reaches it there.",
           "Add the host to a server of the Gateway (mind a `namespace/` before the host), or correct `spec.hosts`.";
    /// What admission warns about.
    SCHEMA_WARNING "IST0133" "SchemaWarning" Warning sample
        => "Admission accepts the resource and warns: a combination of fields that probably does not do what was meant. It is served as written.",
           "Follow the message. Where it is meant so, the finding can stay: a warning never fails a check.";
    /// A TCP ServiceEntry without addresses.
    SERVICE_ENTRY_ADDRESSES "IST0134" "ServiceEntryAddressesRequired" Warning sample
        => "A ServiceEntry has a TCP port and no addresses. TCP has no host name, so nothing but the port tells its traffic from any other.",
           "Add the `addresses` that clients connect to.";
    /// One certificate in several Gateways.
    DUPLICATE_CERTIFICATE "IST0138" "GatewayDuplicateCertificate" Warning sample
        => "Several Gateways of one pod use the same certificate. A browser reuses an HTTP/2 connection for every host of its certificate and may so ask \
            one Gateway for the hosts of another, which answers 404.",
           "Put the hosts into one Gateway, or give each Gateway a certificate of its own.";
    /// A subset rule of the mesh that requests through a gateway do not meet.
    INGRESS_SUBSET "IST0140" "IngressRouteRulesNotAffected" Warning sample
        => "A VirtualService sends requests from a gateway to a service without naming a subset, while another VirtualService for that service chooses \
            among its subsets. The other one is for calls inside the mesh; requests through the gateway go to all endpoints.",
           "Name the subset in the gateway's VirtualService too, or leave it if all endpoints are meant.";
    /// Two Gateways claim the same port and host.
    CONFLICTING_GATEWAYS "IST0145" "ConflictingGateways" Error sample
        => "Two Gateways of the same pods claim one port in ways that exclude each other, or the same host on it. The older one has it.",
           "Merge the two servers, or give them different hosts or ports.";
    /// Claims of tokens are matched where no token is checked.
    CLAIMS_WITHOUT_AUTHENTICATION "IST0149" "JwtClaimBasedRoutingWithoutRequestAuthN" Error sample
        => "A match asks for a claim of a token, and no RequestAuthentication makes the gateway's pods check tokens. Claims are known of checked tokens only, \
            so the match takes no request.",
           "Add a RequestAuthentication that selects the gateway's pods, in their namespace or in the root namespace.";
    /// Telemetries that select the same pods.
    CONFLICTING_TELEMETRIES "IST0159" "ConflictingTelemetryWorkloadSelectors" Error sample
        => "Several Telemetries of one namespace select the same pod. They go on top of each other, oldest first.",
           "Give them selectors that do not overlap, or merge them.";
    /// Several Telemetries for a whole namespace.
    TELEMETRIES_WITHOUT_SELECTOR "IST0160" "MultipleTelemetriesWithoutWorkloadSelectors" Error sample
        => "Several Telemetries of one namespace have no selector. Only the oldest of them holds; the others have no effect.",
           "Merge them, or give all but one a selector.";
    /// A Secret exists but holds no usable certificate.
    INVALID_CREDENTIAL "IST0161" "InvalidGatewayCredential" Error sample
        => "The certificate of a server is there and cannot be used: a key is missing or not PEM, or key and certificate do not belong together. Handshakes \
            for its hosts fail, or go on with the last good certificate.",
           "Put `tls.crt` and `tls.key` (or `cert` and `key`), in PEM, into the Secret; `ca.crt` where clients are asked for certificates.";
    /// A Gateway port that the Service does not expose.
    GATEWAY_PORT "IST0162" "GatewayPortNotDefinedOnService" Warning sample
        => "The Gateway listens on a port that the Service in front of its pods does not expose. Nobody outside can connect to it.",
           "Add the port to the Service, or correct `port.number` of the server.";
    /// A Gateway that istiod makes for itself.
    INTERNAL_GATEWAY "IST0165" "ReferencedInternalGateway" Warning sample
        => "A VirtualService names a Gateway that istiod makes from a Gateway of the Kubernetes Gateway API. Its name is istiod's own and may change. \
            Admission refuses the name, so that the finding is an error and the VirtualService is not served.",
           "Name a Gateway of `networking.istio.io`, or attach an HTTPRoute to the Kubernetes Gateway.";
    /// A subset that selects no pod.
    SUBSET_SELECTS_NOTHING "IST0173" "DestinationRuleSubsetNotSelectPods" Error sample
        => "The labels of a subset select none of the endpoints of its host. Requests that are sent to the subset answer 503.",
           "Correct the labels, or start pods that carry them.";
    /// A DestinationRule for a host that nobody knows.
    UNKNOWN_DESTINATION_RULE_HOST "IST0174" "UnknownDestinationRuleHost" Warning sample
        => "A DestinationRule is written for a host that is neither a Service nor in a ServiceEntry. It has no effect.",
           "Correct `spec.host`, or add the Service or ServiceEntry.";
    /// ServiceEntries that disagree about the protocol of one port.
    CONFLICTING_SERVICE_ENTRIES "IST0177" "ConflictingServiceEntryProtocol" Warning sample
        => "Several ServiceEntries define the same host and port with different protocols. Which of them counts is not defined.",
           "Give the port one protocol, or leave it to one ServiceEntry.";
    /// A document that is not YAML or JSON.
    SYNTAX "LIM0001" "SyntaxError" Error sample
        => "A document cannot be read as YAML or JSON. Nothing in it is used; the other documents of the file are. What it held before stays in force.",
           "Look at the place that the message names; the mistake is often a line above it: an indentation, a missing quote, an open bracket.";
    /// A file or document beyond a limit of size, depth or expansion, or not text.
    LIMIT "LIM0002" "LimitExceeded" Error sample
        => "A file or document is not text, or is larger, deeper, or grows more by its aliases than what is read. It is left aside whole.",
           "Split the file, or write out what the aliases stand for. The limit of a document is 3 MiB, which is the largest request that the Kubernetes API \
            takes: what is longer could be applied to no cluster. It also bounds what one document can cost before anything is known about it, since its \
            tree takes many times its length in memory.";
    /// A field that the kind does not have.
    UNKNOWN_FIELD "LIM0003" "UnknownField" Warning sample
        => "The resource has a field that its kind does not have. It has no effect; a cluster would drop or refuse it.",
           "Correct the spelling or the indentation of the field.";
    /// Two documents with one kind, namespace and name.
    DUPLICATE_RESOURCE "LIM0004" "DuplicateResource" Error sample
        => "Two documents have the same kind, namespace and name. The first, by the names of the files and then by line, is used; in a cluster the last one \
            applied would be.",
           "Remove one of the two, or give it another name.";
    /// A known kind under an API group or version that is not read.
    API_VERSION "LIM0005" "UnsupportedApiVersion" Error sample
        => "The kind is known, and its `apiVersion` is not one under which it is read. The document is left aside.",
           "Use the `apiVersion` that the message names.";
    /// A kind that is not read.
    IGNORED_KIND "LIM0006" "IgnoredKind" Info sample
        => "The document is of a kind that has no meaning to the gateway. It is said once for each kind.",
           "Nothing, where the folder also holds other things. Otherwise correct `kind` and `apiVersion`.";
    /// A file or folder that cannot be read.
    UNREADABLE "LIM0007" "Unreadable" Error elsewhere "It is the file system that raises it."
        => "A file or folder cannot be read. What was read of it before stays in force.",
           "Give the process the right to read it, or take it out of the configuration.";
    /// A field that this version does not honour yet.
    NOT_YET_HONOURED "LIM0010" "FieldNotYetHonoured" Warning sample
        => "The field is part of the API and this version does not act on it. The rest of the resource is served.",
           "Do not rely on the field yet. The table in the README says what is honoured.";
    /// A field without effect on a gateway.
    NO_EFFECT "LIM0011" "FieldWithoutEffectOnGateway" Info sample
        => "The field is valid, and has no effect on a gateway: Istio evaluates it elsewhere, or not at all.",
           "Nothing, where the resource also serves others. Otherwise remove the field.";
    /// A field that is refused for good.
    REFUSED "LIM0012" "FieldRefused" Error elsewhere "No field of the present API is refused."
        => "The field is part of the API and will not be honoured. Serving the resource without it would do something else than what is written, so it is \
            not served.",
           "Remove the field, or use another gateway for this resource.";
    /// A regex that uses what the engine lacks.
    REGEX "LIM0013" "UnsupportedRegex" Error sample
        => "A regular expression is valid and compiles to more than the engine allows. Its match takes no request.",
           "Make the expression smaller: fewer and shorter counted repetitions, narrower character classes.";
    /// A delegate VirtualService that does not exist or may not be seen.
    DELEGATE_NOT_FOUND "LIM0014" "DelegateNotFound" Error sample
        => "A rule hands its requests to another VirtualService that does not exist. The rule takes no request. Istio has no number for this.",
           "Correct name and namespace of the delegate, or add it. A delegate has neither hosts nor gateways.";
    /// A server left out because another holds its port or hosts.
    SERVER_DROPPED "LIM0015" "ServerDropped" Warning sample
        => "A server of a Gateway is left out: another server of the same Gateway holds its port or hosts, or it cannot be served as written.",
           "Follow the message; mostly two servers are to become one.";
    /// A rule, match or destination left out when compiled.
    RULE_DROPPED "LIM0016" "RuleDropped" Warning sample
        => "A rule, match or destination is valid by itself and cannot be served. It is left out; the rest of the resource is served.",
           "Follow the message.";
    /// A prefix of a path that ends inside a name.
    PREFIX_WITHIN_NAME "LIM0017" "PrefixMatchesWithinName" Info sample
        => "A match asks for a path that begins with `/foo`. It is compared byte by byte, as in Istio, so that it takes `/foobar` too.",
           "If the folder is meant, match the prefix `/foo/` and beside it exactly `/foo`. Nothing, if it is meant as it is.";
    /// A rewrite that doubles or loses a slash.
    REWRITE_BREAKS_PATH "LIM0018" "RewriteBreaksPath" Warning sample
        => "The matched prefix is replaced as it is. When one of prefix and replacement ends with a slash and the other does not, `/foo/x` becomes `//x`, or \
            the names on both sides of the joint become one.",
           "Let both end with a slash, or neither.";
    /// Retries that may act twice.
    RETRIES_REPEAT "LIM0019" "RetriesNotIdempotent" Warning sample
        => "Retries repeat requests whose method is not idempotent (POST, PATCH) on conditions that may follow after an endpoint has acted: one order \
            may become two. For a rule that names no method it is a note.",
           "Retry these methods on connect-failure and refused-stream only, or give the methods that may be repeated a rule of their own.";
    /// A certificate that has expired, or will soon.
    CERTIFICATE_EXPIRY "LIM0020" "CertificateExpiry" Error sample
        => "The certificate of a Gateway has expired or is not yet valid: it is served, and clients refuse it. As a warning: it expires within 30 days.",
           "Renew the certificate and write it into the Secret. It is used at once, without a restart.";
    /// TLS that protects less than it seems to.
    WEAK_TLS "LIM0021" "WeakTls" Warning sample
        => "TLS is set up with a version below 1.2, a cipher without forward secrecy, a short key or a broken signature, or without verification of the other end.",
           "Leave the versions and ciphers at their defaults, use an ECDSA P-256 or RSA 2048 key, and name the CA to verify with.";
    /// A wildcard host above hosts of other namespaces.
    WILDCARD_SHADOWS "LIM0022" "WildcardCoversAnotherNamespace" Warning sample
        => "A VirtualService has a wildcard host that covers hosts which other namespaces serve on the same gateway. The narrower host wins, unless a server \
            of the Gateway names it itself: then the rules of both are put together, oldest first. Where the narrower one wins it is a note.",
           "Say in the Gateway's hosts which namespace may have which name, as `namespace/host`.";
    /// An exact path behind a prefix that covers it.
    EXACT_BEHIND_PREFIX "LIM0023" "ExactPathBehindPrefix" Info sample
        => "A match asks for one path, and an earlier match of the same VirtualService takes every request for it by a prefix. The match never acts. Istio \
            compares prefixes with each other only, and says nothing here.",
           "Move the exact path above the prefix, or remove it.";
    /// A `limen.dev` annotation that cannot be read, or has no effect where it is.
    ANNOTATION "LIM0024" "PolicyAnnotation" Error sample
        => "An annotation of `limen.dev/` asks for a policy and cannot be read, is not known, or has no effect on the resource that has it. Where it was to \
            protect, as a rate limit or a limit of bodies does, the resource is not served without it; otherwise it is served as if it had none.",
           "Correct the annotation; `gateway/docs/policies.md` says what may be written. A name that is not known has no effect.";
    /// A listener whose address cannot be bound now.
    LISTENER_NOT_BOUND "LIM0030" "ListenerNotBound" Error elsewhere "It is the running process that raises it."
        => "An address and port cannot be bound: another process has it, or the right to bind low ports is missing. It is tried again with each change; the \
            other listeners serve.",
           "Free the port, or map it to another one with `--port-map`.";
}
