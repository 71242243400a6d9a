//! Tokens to a typed expression.
//!
//! Invariant: depth is bounded, so that no text runs the stack out.

use http::HeaderName;

use super::{
    Attribute, Comparison, Expr, Refused, Side, Test, Type,
    lexer::{Token, TokenKind, tokens},
};
use crate::{scalar::Duration, validate::check_regex};

/// Deepest nesting.
const DEEPEST: usize = 64;

type Parsed = Result<Expr, Refused>;

pub(super) fn parse(text: &str) -> Parsed {
    let tokens = tokens(text)?;
    let mut parser = Parser { tokens: tokens.into_iter().peekable(), depth: 0 };
    let expr = parser.ternary()?;
    match parser.next() {
        Token { kind: TokenKind::End, .. } => Ok(expr),
        other => Err(refused(&other, "nothing is expected here")),
    }
}

struct Parser {
    tokens: std::iter::Peekable<std::vec::IntoIter<Token>>,
    depth: usize,
}

fn refused(token: &Token, why: impl Into<String>) -> Refused {
    Refused { at: token.at, why: why.into() }
}

impl Parser {
    fn next(&mut self) -> Token {
        self.tokens.next().unwrap_or(Token { at: 0, kind: TokenKind::End })
    }

    fn at(&mut self) -> usize {
        self.tokens.peek().map_or(0, |token| token.at)
    }

    fn sign(&mut self, sign: &str) -> bool {
        self.tokens.next_if(|token| matches!(token.kind, TokenKind::Sign(s) if s == sign)).is_some()
    }

    fn expect(&mut self, sign: &str) -> Result<(), Refused> {
        let token = self.next();
        match token.kind {
            TokenKind::Sign(s) if s == sign => Ok(()),
            _ => Err(refused(&token, format!("`{sign}` is expected here"))),
        }
    }

    fn name(&mut self) -> Result<String, Refused> {
        let token = self.next();
        match token.kind {
            TokenKind::Name(name) => Ok(name),
            _ => Err(refused(&token, "a name is expected here")),
        }
    }

    fn text(&mut self) -> Result<String, Refused> {
        let token = self.next();
        match token.kind {
            TokenKind::Text(text) => Ok(text),
            _ => Err(refused(&token, "a text is expected here")),
        }
    }

    fn ternary(&mut self) -> Parsed {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(Refused { at: self.at(), why: format!("nested deeper than {DEEPEST}") });
        }
        let at = self.at();
        let condition = self.or()?;
        let expr = if self.sign("?") {
            wants(at, &condition, Type::Bool)?;
            let then = self.or()?;
            self.expect(":")?;
            let at = self.at();
            let other = self.ternary()?;
            wants(at, &other, then.kind())?;
            Expr::If(condition.into(), then.into(), other.into())
        } else {
            condition
        };
        self.depth -= 1;
        Ok(expr)
    }

    fn or(&mut self) -> Parsed {
        self.chain("||", Self::and, Expr::Or)
    }

    fn and(&mut self) -> Parsed {
        self.chain("&&", Self::relation, Expr::And)
    }

    fn chain(
        &mut self,
        sign: &str,
        part: fn(&mut Self) -> Parsed,
        join: fn(Box<Expr>, Box<Expr>) -> Expr,
    ) -> Parsed {
        let at = self.at();
        let mut expr = part(self)?;
        while self.sign(sign) {
            wants(at, &expr, Type::Bool)?;
            let at = self.at();
            let right = part(self)?;
            wants(at, &right, Type::Bool)?;
            expr = join(expr.into(), right.into());
        }
        Ok(expr)
    }

    fn relation(&mut self) -> Parsed {
        const SIGNS: [(&str, Comparison); 6] = [
            ("==", Comparison::Equal),
            ("!=", Comparison::NotEqual),
            ("<=", Comparison::LessOrEqual),
            (">=", Comparison::GreaterOrEqual),
            ("<", Comparison::Less),
            (">", Comparison::Greater),
        ];
        let left = self.sum()?;
        if self.tokens.next_if(|token| token.kind == TokenKind::Name("in".into())).is_some() {
            return self.membership(left);
        }
        let Some((_, comparison)) = SIGNS.into_iter().find(|(sign, _)| self.sign(sign)) else {
            return Ok(left);
        };
        let at = self.at();
        let right = self.sum()?;
        wants(at, &right, left.kind())?;
        let ordered = !matches!(comparison, Comparison::Equal | Comparison::NotEqual);
        if ordered && left.kind() == Type::Bool {
            return Err(Refused { at, why: "a bool is neither less nor greater".to_owned() });
        }
        Ok(Expr::Compare(comparison, left.into(), right.into()))
    }

    /// `x in [a, b]`, or `'name' in request.headers`.
    fn membership(&mut self, left: Expr) -> Parsed {
        let at = self.at();
        if !self.sign("[") {
            let mut path = self.name()?;
            if self.sign(".") {
                path = format!("{path}.{}", self.name()?);
            }
            return match (side(&path), left) {
                (Some(side), Expr::Text(name)) => {
                    Ok(Expr::Has(Expr::Header(side, header(at, &name)?).into()))
                }
                _ => Err(Refused { at, why: "`in` is evaluated of lists and of headers only".to_owned() }),
            };
        }
        let mut members = Vec::new();
        while !self.sign("]") {
            if !members.is_empty() {
                self.expect(",")?;
            }
            let at = self.at();
            let member = self.sum()?;
            wants(at, &member, left.kind())?;
            members.push(member);
        }
        Ok(Expr::OneOf(left.into(), members))
    }

    fn sum(&mut self) -> Parsed {
        let at = self.at();
        let mut expr = self.unary()?;
        while self.sign("+") {
            wants(at, &expr, Type::Text)?;
            let at = self.at();
            let right = self.unary()?;
            wants(at, &right, Type::Text)?;
            expr = Expr::Concat(expr.into(), right.into());
        }
        Ok(expr)
    }

    fn unary(&mut self) -> Parsed {
        let at = self.at();
        if self.sign("!") {
            self.depth += 1;
            if self.depth > DEEPEST {
                return Err(Refused { at, why: format!("nested deeper than {DEEPEST}") });
            }
            let of = self.unary()?;
            self.depth -= 1;
            wants(at, &of, Type::Bool)?;
            return Ok(Expr::Not(of.into()));
        }
        if self.sign("-") {
            let token = self.next();
            return match token.kind {
                TokenKind::Number(number) => Ok(Expr::Number(-number)),
                _ => Err(refused(&token, "only a number is negative")),
            };
        }
        let mut expr = self.primary()?;
        while self.sign(".") {
            expr = self.method(expr)?;
        }
        Ok(expr)
    }

    fn primary(&mut self) -> Parsed {
        let token = self.next();
        match &token.kind {
            TokenKind::Number(number) => Ok(Expr::Number(*number)),
            TokenKind::Text(text) => Ok(Expr::Text(text.clone())),
            TokenKind::Sign("(") => {
                let inner = self.ternary()?;
                self.expect(")").map(|()| inner)
            }
            TokenKind::Name(name) => match name.as_str() {
                "true" => Ok(Expr::Bool(true)),
                "false" => Ok(Expr::Bool(false)),
                name if self.sign("(") => self.function(name, token.at),
                name => self.attribute(name, token.at),
            },
            _ => Err(refused(&token, "a value is expected here")),
        }
    }

    fn function(&mut self, name: &str, at: usize) -> Parsed {
        let argument_at = self.at();
        let argument = match name {
            // What is looked for need not be there, so that this is no ordinary value.
            "has" | "string" | "int" | "size" | "duration" => self.ternary()?,
            other => return Err(Refused { at, why: format!("the function {other} is not evaluated") }),
        };
        self.expect(")")?;
        match (name, argument) {
            ("has", found @ (Expr::Attribute(_) | Expr::Header(..))) => Ok(Expr::Has(found.into())),
            ("has", _) => {
                Err(Refused { at: argument_at, why: "has() is about an attribute or a header".to_owned() })
            }
            ("duration", Expr::Text(text)) => {
                let length: Duration =
                    text.parse().map_err(|error| Refused { at: argument_at, why: format!("{error}") })?;
                Ok(Expr::Duration(i64::try_from(length.as_std().as_nanos()).unwrap_or(i64::MAX)))
            }
            ("string", text) if text.kind() == Type::Text => Ok(text),
            ("string", value) => Ok(Expr::ToText(value.into())),
            ("int", number) if number.kind() == Type::Number => Ok(number),
            (name, _) => Err(Refused { at, why: format!("{name}() of this is not evaluated") }),
        }
    }

    fn method(&mut self, of: Expr) -> Parsed {
        let at = self.at();
        let name = self.name()?;
        let test = match name.as_str() {
            "contains" => Test::Contains,
            "startsWith" => Test::StartsWith,
            "endsWith" => Test::EndsWith,
            "matches" => Test::Matches,
            other => return Err(Refused { at, why: format!("{other} is not evaluated") }),
        };
        wants(at, &of, Type::Text)?;
        self.expect("(")?;
        let at = self.at();
        let argument = self.ternary()?;
        wants(at, &argument, Type::Text)?;
        if test == Test::Matches {
            match &argument {
                Expr::Text(pattern) => match check_regex(pattern) {
                    None => {}
                    Some(why) => return Err(Refused { at, why }),
                },
                _ => {
                    return Err(Refused {
                        at,
                        why: "a regular expression is a text as it is written".to_owned(),
                    });
                }
            }
        }
        self.expect(")")?;
        Ok(Expr::Test(test, of.into(), argument.into()))
    }

    /// `response.code`, `request.headers['x']`. A method may follow, so that a name that is called is left.
    fn attribute(&mut self, first: &str, at: usize) -> Parsed {
        let mut path = first.to_owned();
        while Attribute::of(&path).is_none() && self.sign(".") {
            path.push('.');
            path.push_str(&self.name()?);
            if let Some(side) = side(&path) {
                let name = if self.sign("[") {
                    let name = self.text()?;
                    self.expect("]").map(|()| name)?
                } else {
                    self.expect(".")?;
                    self.name()?
                };
                return Ok(Expr::Header(side, header(at, &name)?));
            }
        }
        match Attribute::of(&path) {
            Some(attribute) => Ok(Expr::Attribute(attribute)),
            None => Err(Refused { at, why: format!("the attribute {path} is not evaluated") }),
        }
    }
}

fn side(path: &str) -> Option<Side> {
    match path {
        "request.headers" => Some(Side::Request),
        "response.headers" => Some(Side::Response),
        _ => None,
    }
}

fn header(at: usize, name: &str) -> Result<HeaderName, Refused> {
    name.parse().map_err(|_| Refused { at, why: format!("{name:?} is not a header name") })
}

fn wants(at: usize, expr: &Expr, want: Type) -> Result<(), Refused> {
    match expr.kind() {
        kind if kind == want => Ok(()),
        kind => Err(Refused { at, why: format!("a {want} is expected, and this is a {kind}") }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_of_istios_documentation_are_read() {
        for text in [
            "response.code >= 400",
            "response.code >= 400 && (xds.cluster_name == 'BlackHoleCluster' || xds.cluster_name == 'PassthroughCluster')",
            "connection.mtls && request.url_path.contains('v1beta3')",
            "!has(request.useragent) || !(request.useragent.startsWith(\"Amazon-Route53-Health-Check-Service\"))",
            "response.duration > 100",
            "request.duration > duration('100ms')",
            "has(request.headers.referer) && request.headers['x-a'] == 'b'",
            "'x-a' in request.headers || response.headers['x-b'] != \"c\"",
            "response.code in [404, 503]",
            "request.path.matches('^/a.*')",
            "response.code == 200 ? request.method == 'GET' : true",
            "string(response.code) == '200'",
            "request.method + request.path == 'GET/'",
            "response.code > -1",
        ] {
            assert!(Expr::condition(text).is_ok(), "{text}: {:?}", Expr::condition(text));
        }
    }

    #[test]
    fn what_binds_tighter_is_below() {
        let both = |a: Expr, b: Expr| (Box::new(a), Box::new(b));
        let (t, f) = (|| Expr::Bool(true), || Expr::Bool(false));
        let (a, b) = both(f(), Expr::Not(t().into()));
        let (c, d) = both(t(), Expr::And(a, b));
        assert_eq!(Expr::condition("true || false && !true"), Ok(Expr::Or(c, d)));
    }

    #[test]
    fn what_is_not_evaluated_is_refused_with_its_place() {
        for (text, at) in [
            ("", 0),
            ("response.code", 0),
            ("response.code >= '400'", 17),
            ("response.code >= 400 &&", 23),
            ("response.code >= 400 response", 21),
            ("metadata.filter_metadata == 1", 0),
            ("request.time > 5", 0),
            ("request.headers.all(x, true)", 19),
            ("size(request.path) > 5", 0),
            ("request.path.matches('(')", 21),
            ("'a' in 'abc'", 7),
            ("true > false", 7),
            ("has(true)", 4),
            ("(true", 5),
            ("response.code % 2 == 0", 14),
        ] {
            let error = Expr::condition(text).unwrap_err();
            assert_eq!(error.at, at, "{text}: {error}");
        }
        assert!(Expr::condition(&"(".repeat(100_000)).is_err());
        assert!(Expr::condition(&format!("{}true", "!".repeat(10_000))).is_err());
        assert_eq!(Expr::value("'a' + request.host").unwrap().kind(), Type::Text);
    }
}
