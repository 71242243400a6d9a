//! Expressions in CEL about a request that is over: the part of the language, and of Envoy's attributes, that is evaluated here.
//!
//! Invariant: an expression that is read has a type, and its attributes have names that Envoy knows; whatever is outside of that is
//! refused with a word about where and why. Nothing is evaluated here.

mod attribute;
mod lexer;
mod parser;

use std::fmt;

use http::HeaderName;

pub use attribute::Attribute;

/// An expression, read and typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expr {
    /// `true`, `false`.
    Bool(bool),
    /// A whole number.
    Number(i64),
    /// A text.
    Text(String),
    /// `duration('…')`, in nanoseconds.
    Duration(i64),
    /// An attribute of the request.
    Attribute(Attribute),
    /// A header of the request or the response.
    Header(Side, HeaderName),
    /// Whether an attribute or a header is there: `has(…)`, `'…' in request.headers`.
    Has(Box<Expr>),
    /// `!`.
    Not(Box<Expr>),
    /// `&&`.
    And(Box<Expr>, Box<Expr>),
    /// `||`.
    Or(Box<Expr>, Box<Expr>),
    /// `==` and its like.
    Compare(Comparison, Box<Expr>, Box<Expr>),
    /// `in […]`.
    OneOf(Box<Expr>, Vec<Expr>),
    /// `a.contains(b)` and its like.
    Test(Test, Box<Expr>, Box<Expr>),
    /// `condition ? a : b`.
    If(Box<Expr>, Box<Expr>, Box<Expr>),
    /// `a + b`, of texts.
    Concat(Box<Expr>, Box<Expr>),
    /// `string(a)`.
    ToText(Box<Expr>),
}

/// Whose headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each arm says it")]
pub enum Side {
    Request,
    Response,
}

/// How two values compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each arm says it")]
pub enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// What a text is tested for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each arm is CEL's own function")]
pub enum Test {
    Contains,
    StartsWith,
    EndsWith,
    /// By a regular expression, anywhere in the text.
    Matches,
}

/// Types of values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each arm says it")]
pub enum Type {
    Bool,
    Number,
    Text,
    Duration,
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Type::Bool => "bool",
            Type::Number => "int",
            Type::Text => "string",
            Type::Duration => "duration",
        })
    }
}

/// Why an expression is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The byte where it goes wrong.
    pub at: usize,
    /// What is wrong.
    pub why: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at byte {}: {}", self.at, self.why)
    }
}

impl std::error::Error for Refused {}

impl Expr {
    /// Reads a condition.
    ///
    /// # Errors
    /// Where it is no CEL, not of the part that is evaluated here, or no condition.
    pub fn condition(text: &str) -> Result<Expr, Refused> {
        let expr = parser::parse(text)?;
        match expr.kind() {
            Type::Bool => Ok(expr),
            other => Err(Refused { at: 0, why: format!("a condition is a bool, and this is a {other}") }),
        }
    }

    /// Reads an expression of any type.
    ///
    /// # Errors
    /// As [`condition`](Self::condition), but for the last.
    pub fn value(text: &str) -> Result<Expr, Refused> {
        parser::parse(text)
    }

    /// What it evaluates to.
    pub fn kind(&self) -> Type {
        match self {
            Expr::Number(_) => Type::Number,
            Expr::Text(_) | Expr::Header(..) | Expr::Concat(..) | Expr::ToText(_) => Type::Text,
            Expr::Duration(_) => Type::Duration,
            Expr::Attribute(attribute) => attribute.kind(),
            Expr::If(_, then, _) => then.kind(),
            Expr::Bool(_)
            | Expr::Has(_)
            | Expr::Not(_)
            | Expr::And(..)
            | Expr::Or(..)
            | Expr::Compare(..)
            | Expr::OneOf(..)
            | Expr::Test(..) => Type::Bool,
        }
    }
}
