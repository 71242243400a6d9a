//! Why a token is not taken.
//!
//! Invariant: the words are Envoy's (1.40), which clients and their authors know.

macro_rules! failures {
    ($($(#[$doc:meta])* $name:ident $text:literal,)*) => {
        /// Why a token is not taken.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Failure { $($(#[$doc])* $name,)* }

        impl Failure {
            /// What the client is told.
            #[must_use]
            pub fn message(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

failures! {
    /// There is none.
    Missing "Jwt is missing",
    /// `nbf` lies ahead.
    NotYetValid "Jwt not yet valid",
    /// `exp` has passed.
    Expired "Jwt is expired",
    /// There are not three sections.
    Form "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections",
    /// The header is not base64.
    HeaderCoding "Jwt header is an invalid Base64url encoded",
    /// The header is not JSON.
    HeaderJson "Jwt header is an invalid JSON",
    /// The header has no `alg`.
    NoAlgorithm "Jwt header [alg] field is required and must be a string",
    /// The header's `alg` is not known.
    Algorithm "Jwt header [alg] is not supported",
    /// The header's `kid` is no text.
    KeyId "Jwt header [kid] field is not a string",
    /// The payload is not base64.
    PayloadCoding "Jwt payload is an invalid Base64url encoded",
    /// The payload is not JSON.
    PayloadJson "Jwt payload is an invalid JSON",
    /// `iss` is no text.
    IssuerType "Jwt payload [iss] field is not a string",
    /// `sub` is no text.
    SubjectType "Jwt payload [sub] field is not a string",
    /// `iat` is no number.
    IssuedType "Jwt payload [iat] field is not an integer",
    /// `iat` is out of range.
    IssuedRange "Jwt payload [iat] field is not a positive 64 bit integer",
    /// `nbf` is no number.
    NotBeforeType "Jwt payload [nbf] field is not an integer",
    /// `nbf` is out of range.
    NotBeforeRange "Jwt payload [nbf] field is not a positive 64 bit integer",
    /// `exp` is no number.
    ExpiryType "Jwt payload [exp] field is not an integer",
    /// `exp` is out of range.
    ExpiryRange "Jwt payload [exp] field is not a positive 64 bit integer",
    /// `jti` is no text.
    IdType "Jwt payload [jti] field is not a string",
    /// `aud` is neither a text nor a list of them.
    AudienceType "Jwt payload [aud] field is not a string or string list",
    /// The signature is not base64.
    SignatureCoding "Jwt signature is an invalid Base64url encoded",
    /// A signature of Ed25519 does not have 64 bytes.
    SignatureLength "Jwt ED25519 signature is wrong length",
    /// No rule is for this issuer.
    UnknownIssuer "Jwt issuer is not configured",
    /// It is meant for somebody else.
    Audience "Audiences in Jwt are not allowed",
    /// The signature is not the issuer's.
    Signature "Jwt verification fails",
    /// None of the issuer's keys is the token's.
    NoSuchKey "Jwks doesn't have key to match kid or alg from Jwt",
    /// The issuer has no keys that can be used.
    NoKeys "Jwks doesn't have any valid public key",
    /// The issuer's keys could not be fetched.
    Fetch "Jwks remote fetch is failed",
}

impl Failure {
    /// Status of the answer: a good token that is meant for somebody else is a matter of what is allowed.
    #[must_use]
    pub fn status(self) -> u16 {
        if self == Self::Audience { 403 } else { 401 }
    }
}
