//! Trust domains that count as one (Istio: pilot/pkg/security/trustdomain).

/// The mesh's trust domain and its aliases.
pub(super) struct TrustDomains(Vec<String>);

/// Whatever the mesh's trust domain is called, policies may call it so.
const LOCAL: &str = "cluster.local";

impl TrustDomains {
    pub(super) fn new(own: &str, aliases: &[String]) -> Self {
        Self(std::iter::once(own.to_owned()).chain(aliases.iter().cloned()).collect())
    }

    /// Principals, each under every name of its trust domain.
    pub(super) fn principals(&self, values: &[String]) -> Vec<String> {
        values.iter().flat_map(|value| self.principal(value)).collect()
    }

    fn principal(&self, value: &str) -> Vec<String> {
        let as_it_is = || vec![value.to_owned()];
        // Anything else than TRUST_DOMAIN/ns/NAMESPACE/sa/NAME names no trust domain.
        let (domain, rest) = match value.split_once('/') {
            Some((domain, rest)) if rest.split('/').count() == 4 && domain != "*" => (domain, rest),
            _ => return as_it_is(),
        };
        if domain != LOCAL && !self.0.iter().any(|known| is_alike(domain, known)) {
            return as_it_is();
        }
        let mut all: Vec<String> = Vec::new();
        for known in &self.0 {
            // A pattern that covers this name already stays as it is.
            let written = match domain.strip_prefix('*') {
                Some(suffix) if known.ends_with(suffix) => value.to_owned(),
                _ => format!("{known}/{rest}"),
            };
            if !all.contains(&written) {
                all.push(written);
            }
        }
        all
    }

    /// Trust domains, with the others for each that is one of these.
    pub(super) fn domains(&self, values: &[String]) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        for value in values {
            let same = if self.0.contains(value) { self.0.as_slice() } else { std::slice::from_ref(value) };
            for domain in same {
                if !all.contains(domain) {
                    all.push(domain.clone());
                }
            }
        }
        all
    }
}

/// Whether two names are one, where either may have a star in front or at its end.
fn is_alike(a: &str, b: &str) -> bool {
    let covers = |pattern: &str, text: &str| {
        pattern.strip_suffix('*').is_some_and(|prefix| text.starts_with(prefix))
            || pattern.strip_prefix('*').is_some_and(|suffix| text.ends_with(suffix))
    };
    a == b || covers(a, b) || covers(b, a)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn principals(aliases: &[&str], value: &str) -> Vec<String> {
        let aliases: Vec<_> = aliases.iter().map(|alias| (*alias).to_owned()).collect();
        TrustDomains::new("td1", &aliases).principals(&[value.to_owned()])
    }

    #[test]
    fn a_principal_of_the_mesh_goes_by_every_name() {
        assert_eq!(principals(&[], "td1/ns/a/sa/b"), ["td1/ns/a/sa/b"]);
        assert_eq!(principals(&["td2"], "td2/ns/a/sa/b"), ["td1/ns/a/sa/b", "td2/ns/a/sa/b"]);
        assert_eq!(principals(&["td2"], "cluster.local/ns/a/sa/b"), ["td1/ns/a/sa/b", "td2/ns/a/sa/b"]);
        assert_eq!(principals(&["td2"], "other/ns/a/sa/b"), ["other/ns/a/sa/b"]);
        assert_eq!(principals(&["td2"], "*/ns/a/sa/b"), ["*/ns/a/sa/b"]);
        assert_eq!(principals(&["td2"], "*"), ["*"]);
        assert_eq!(principals(&["some-td"], "*-td/ns/a/sa/b"), ["td1/ns/a/sa/b", "*-td/ns/a/sa/b"]);
    }

    #[test]
    fn a_trust_domain_brings_its_aliases() {
        let domains = TrustDomains::new("td1", &["td2".to_owned()]);
        let of =
            |values: &[&str]| domains.domains(&values.iter().map(|v| (*v).to_owned()).collect::<Vec<_>>());
        assert_eq!(of(&["td2", "x", "td1"]), ["td1", "td2", "x"]);
        assert_eq!(of(&["td*"]), ["td*"]);
    }
}
