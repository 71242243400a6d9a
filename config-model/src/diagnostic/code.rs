//! The table of codes: Istio's numbers where Istio has one, `LIM` numbers for ours.
//!
//! Invariant: a number means one thing for ever. A code that is no longer raised keeps its row, marked retired.

use std::fmt;

use super::Severity;

/// A row of the table. Orders by its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code(&'static str);

/// What the table says about a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodeInfo {
    /// The code.
    pub code: Code,
    /// Its name, as Istio names it where Istio has it.
    pub title: &'static str,
    /// How bad such a finding is unless it says otherwise.
    pub severity: Severity,
    /// No longer raised; the number stays reserved.
    pub retired: bool,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $constant:ident $text:literal $title:literal $severity:ident;)*) => {
        impl Code {
            $($(#[$doc])* pub const $constant: Code = Code($text);)*

            /// Every row, in the order of the table.
            pub const TABLE: &'static [CodeInfo] = &[
                $(CodeInfo { code: Code($text), title: $title, severity: Severity::$severity, retired: false },)*
            ];
        }
    };
}

codes! {
    /// A field or annotation that Istio has deprecated.
    DEPRECATED "IST0002" "Deprecated" Warning;
    /// A Gateway, host, subset or Secret that does not exist.
    REFERENCE_NOT_FOUND "IST0101" "ReferencedResourceNotFound" Error;
    /// What admission or the schema would refuse.
    SCHEMA "IST0106" "SchemaValidationError" Error;
    /// Two VirtualServices claim one host.
    CONFLICTING_HOSTS "IST0109" "ConflictingMeshGatewayVirtualServiceHosts" Error;
    /// A service with several ports needs a port in the destination.
    PORT_REQUIRED "IST0112" "VirtualServiceDestinationPortSelectorRequired" Error;
    /// TLS to a host without a CA.
    NO_CA_HOST "IST0128" "NoServerCertificateVerificationDestinationLevel" Warning;
    /// TLS to a port without a CA.
    NO_CA_PORT "IST0129" "NoServerCertificateVerificationPortLevel" Warning;
    /// A rule that no request can reach.
    UNREACHABLE_RULE "IST0130" "VirtualServiceUnreachableRule" Warning;
    /// A match that an earlier one covers.
    INEFFECTIVE_MATCH "IST0131" "VirtualServiceIneffectiveMatch" Info;
    /// A host that no server of the Gateway admits.
    HOST_NOT_IN_GATEWAY "IST0132" "VirtualServiceHostNotFoundInGateway" Warning;
    /// What admission warns about.
    SCHEMA_WARNING "IST0133" "SchemaWarning" Warning;
    /// A TCP ServiceEntry without addresses.
    SERVICE_ENTRY_ADDRESSES "IST0134" "ServiceEntryAddressesRequired" Warning;
    /// One certificate in several Gateways.
    DUPLICATE_CERTIFICATE "IST0138" "GatewayDuplicateCertificate" Warning;
    /// Two Gateways claim the same port and host.
    CONFLICTING_GATEWAYS "IST0145" "ConflictingGateways" Error;
    /// A Secret exists but holds no usable certificate.
    INVALID_CREDENTIAL "IST0161" "InvalidGatewayCredential" Error;
    /// A Gateway port that the Service does not expose.
    GATEWAY_PORT "IST0162" "GatewayPortNotDefinedOnService" Warning;
    /// A subset that selects no pod.
    SUBSET_SELECTS_NOTHING "IST0173" "DestinationRuleSubsetNotSelectPods" Error;
    /// A DestinationRule for a host that nobody knows.
    UNKNOWN_DESTINATION_RULE_HOST "IST0174" "UnknownDestinationRuleHost" Warning;
    /// A document that is not YAML or JSON.
    SYNTAX "LIM0001" "SyntaxError" Error;
    /// A file or document beyond a limit of size, depth or expansion, or not text.
    LIMIT "LIM0002" "LimitExceeded" Error;
    /// A field that the kind does not have.
    UNKNOWN_FIELD "LIM0003" "UnknownField" Warning;
    /// Two documents with one kind, namespace and name.
    DUPLICATE_RESOURCE "LIM0004" "DuplicateResource" Error;
    /// A known kind under an API group or version that is not read.
    API_VERSION "LIM0005" "UnsupportedApiVersion" Error;
    /// A kind that is not read.
    IGNORED_KIND "LIM0006" "IgnoredKind" Info;
    /// A file or folder that cannot be read.
    UNREADABLE "LIM0007" "Unreadable" Error;
    /// A field that this version does not honour yet.
    NOT_YET_HONOURED "LIM0010" "FieldNotYetHonoured" Warning;
    /// A field without effect on a gateway.
    NO_EFFECT "LIM0011" "FieldWithoutEffectOnGateway" Info;
    /// A field that is refused for good.
    REFUSED "LIM0012" "FieldRefused" Error;
    /// A regex that uses what the engine lacks.
    REGEX "LIM0013" "UnsupportedRegex" Error;
    /// A delegate VirtualService that does not exist or may not be seen.
    DELEGATE_NOT_FOUND "LIM0014" "DelegateNotFound" Error;
    /// A server left out because another holds its port or hosts.
    SERVER_DROPPED "LIM0015" "ServerDropped" Warning;
    /// A rule, match or destination left out when compiled.
    RULE_DROPPED "LIM0016" "RuleDropped" Warning;
    /// A listener whose address cannot be bound now.
    LISTENER_NOT_BOUND "LIM0030" "ListenerNotBound" Error;
}

impl Code {
    /// The number, e.g. `IST0101`.
    pub fn as_str(self) -> &'static str {
        self.0
    }

    /// The code with this number.
    pub fn parse(text: &str) -> Option<Code> {
        Code::TABLE.iter().map(|info| info.code).find(|code| code.0.eq_ignore_ascii_case(text))
    }

    /// Its row of the table.
    pub fn info(self) -> CodeInfo {
        // Every Code is a constant of this file, and each constant has a row; the default can only be a programming error.
        let row = Code::TABLE.iter().find(|info| info.code == self);
        row.copied().unwrap_or(CodeInfo { code: self, title: "", severity: Severity::Error, retired: false })
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_there_once() {
        let mut numbers: Vec<_> = Code::TABLE.iter().map(|info| info.code).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), Code::TABLE.len());
        assert_eq!(Code::parse("ist0101"), Some(Code::REFERENCE_NOT_FOUND));
        assert_eq!(Code::parse("IST9999"), None);
    }
}
