//! What MeshConfig and the Telemetries that hold for the gateway say about access logs.
//!
//! Invariant: the rules are Istio's (telemetry.go `mergeLogs`, accesslog.go). A log that cannot be written as it is asked for is a finding,
//! and the others are written.

use super::{
    access_log::{Format, FormatError, Target, records::GRPC_PATH},
    condition::Condition,
    export::{Address, PATIENCE, Protocol},
    plan::{Ground, Planner, Side},
};
use config_model::{
    diagnostic::{Code, Diagnostics},
    istio::telemetry::AccessLogging,
    mesh::{
        AccessLogEncoding, ExtensionProvider, MeshConfig,
        provider::{FileAccessLogProvider, LogValue, OtelLogProvider},
    },
};
use std::{collections::BTreeMap, path::Path};

/// Name of the provider that Istio defines itself, which writes as MeshConfig says.
const BUILT_IN: &str = "envoy";
/// Istio's name of a log that has none.
const OTEL_LOG: &str = "otel_envoy_accesslog";

/// One log that is to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct LogRule {
    /// Where.
    pub output: Output,
    /// Of which requests; `None`: of all.
    pub condition: Option<Condition>,
    /// Of which side's; `None`: of both.
    pub side: Option<Side>,
}

/// Where a log goes, and how it is written.
#[derive(Clone, PartialEq)]
pub enum Output {
    /// Lines.
    Lines(Target, Written),
    /// Records for a collector: body, attributes, and what is said of the gateway.
    Records(Address, Written, BTreeMap<String, LogValue>, Vec<(String, String)>),
}

impl std::fmt::Debug for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Output::Lines(target, _) => write!(f, "Lines({target:?})"),
            Output::Records(address, ..) => write!(f, "Records({})", address.to),
        }
    }
}

/// How a line is written.
#[derive(Clone, Debug, PartialEq)]
pub enum Written {
    /// In Istio's text.
    Text,
    /// In Istio's JSON.
    Json,
    /// In a text of the user's; `true`: with nothing in place of `-`.
    Format(String, bool),
    /// As an object of the user's; `true`: without what is not known.
    Object(BTreeMap<String, LogValue>, bool),
}

impl Written {
    /// Compiles it.
    ///
    /// # Errors
    /// Where an operator is not known.
    pub fn compile(&self) -> Result<Format, FormatError> {
        match self {
            Written::Text => Format::istio_text(),
            Written::Json => Format::istio_json(),
            Written::Format(text, false) => Format::parse(text),
            Written::Format(text, true) => Format::without_dashes(text),
            Written::Object(fields, omit) => Format::object(fields, *omit),
        }
    }
}

/// The logs that the configuration asks for. Where it says nothing, standard output in Istio's text: an edge without a log is not
/// to be had by accident.
#[must_use]
pub fn logs(ground: &Ground<'_>) -> (Vec<LogRule>, Diagnostics) {
    let of = |side| {
        let mut planner = Planner { ground, findings: Diagnostics::new() };
        (planner.logs(side), planner.findings)
    };
    let (mut rules, mut findings) = of(Side::Client);
    if ground.is_beside() {
        let (mut others, found) = of(Side::Server);
        for rule in &mut rules {
            match others.iter().position(|other| other == rule) {
                Some(same) => drop(others.remove(same)),
                None => rule.side = Some(Side::Client),
            }
        }
        rules.extend(others.into_iter().map(|rule| LogRule { side: Some(Side::Server), ..rule }));
        findings.add_new(found);
    }
    (rules, findings)
}

impl<'p> Planner<'p> {
    fn logs(&mut self, side: Side) -> Vec<LogRule> {
        let mesh = self.ground.validated.mesh();
        let merged = self.merged(side);
        let mut rules = Vec::new();
        let mut said = false;
        for (name, spec) in merged {
            // Istio: a provider that cannot be used says nothing.
            let Some(provider) = mesh.provider(name) else { continue };
            let Some(output) = self.output(provider) else { continue };
            said = true;
            let Spec::Written(filter) = spec else { continue };
            let condition = match filter {
                None => None,
                Some(expression) => match Condition::read(expression) {
                    Ok(condition) => Some(condition),
                    // Said where it is written. What is to be kept out of a log is not in it.
                    Err(_) => continue,
                },
            };
            rules.push(LogRule { output, condition, side: None });
        }
        if said {
            return rules;
        }
        let target = match target(&mesh.access_log_file) {
            Some(target) => target,
            // Istio has no log of its own accord that a Telemetry without providers could turn off; here it does.
            None if self.is_off(side) => return Vec::new(),
            None => Target::Stdout,
        };
        let written = self.of_mesh(mesh);
        let written = self.known(written);
        written
            .map(|written| LogRule { output: Output::Lines(target, written), condition: None, side: None })
            .into_iter()
            .collect()
    }

    /// Whether the last word of the Telemetries is that nothing is logged.
    fn is_off(&self, side: Side) -> bool {
        let node = self.ground.node;
        let telemetries = self.ground.validated.telemetries_for(&node.namespace, &node.labels);
        let entries = telemetries.iter().flat_map(|telemetry| &telemetry.spec.access_logging);
        entries.filter(|entry| side.is_of(entry.matches)).filter_map(|entry| entry.disabled).next_back()
            == Some(true)
    }

    /// Which providers log, and what; the narrower scope holds.
    fn merged(&self, side: Side) -> BTreeMap<&'p str, Spec<'p>> {
        let node = self.ground.node;
        let telemetries = self.ground.validated.telemetries_for(&node.namespace, &node.labels);
        let levels: Vec<&[AccessLogging]> = telemetries.iter().map(|t| &t.spec.access_logging[..]).collect();
        let default = &self.ground.validated.mesh().default_providers.access_logging;
        let default: Vec<&str> = default.iter().map(String::as_str).collect();
        let named =
            |entry: &'p AccessLogging| entry.providers.iter().map(|p| p.name.as_str()).collect::<Vec<_>>();
        let mut in_scope = default.clone();
        for level in &levels {
            let entries = level.iter().filter(|entry| side.is_of(entry.matches));
            let names: Vec<&str> = entries.flat_map(named).collect();
            if !names.is_empty() {
                in_scope = names;
            }
        }
        let mut merged = BTreeMap::new();
        if levels.iter().all(|level| level.is_empty()) {
            merged.extend(default.into_iter().map(|name| (name, Spec::Written(None))));
            return merged;
        }
        let mut inherited = default;
        let mut filters: BTreeMap<&str, &str> = BTreeMap::new();
        for entry in levels.into_iter().flatten() {
            let own = named(entry);
            if !own.is_empty() {
                inherited = own;
            }
            for name in inherited.iter().filter(|name| in_scope.contains(name) && side.is_of(entry.matches)) {
                if let Some(filter) = entry.filter.as_ref().filter(|filter| !filter.expression.is_empty()) {
                    filters.insert(name, &filter.expression);
                }
                let spec = match entry.disabled {
                    Some(true) => Spec::Disabled,
                    _ => Spec::Written(filters.get(name).copied()),
                };
                merged.insert(*name, spec);
            }
        }
        merged
    }

    fn output(&mut self, provider: &ExtensionProvider) -> Option<Output> {
        if let Some(file) = &provider.envoy_file_access_log {
            return self.lines(provider, file);
        }
        if let Some(otel) = &provider.envoy_otel_als {
            return self.records(&provider.name, otel);
        }
        if provider.unreadable.is_none() && provider.takes_logs() {
            self.not_yet(format!(
                "the provider {:?} is no log that is written ({}): use envoyFileAccessLog or envoyOtelAls",
                provider.name,
                provider.foreign().unwrap_or("it is not for logs")
            ));
        }
        None
    }

    fn lines(&mut self, provider: &ExtensionProvider, file: &FileAccessLogProvider) -> Option<Output> {
        let mesh = self.ground.validated.mesh();
        let omit = file.omit_empty_values;
        let written = match &file.log_format {
            None if provider.name == BUILT_IN && !omit => self.of_mesh(mesh),
            None => text(None, omit),
            Some(format) => match (&format.labels, &format.text) {
                (Some(labels), _) if labels.is_empty() => Written::Json,
                (Some(labels), _) => Written::Object(labels.clone(), omit),
                (None, format) => text(format.as_deref(), omit),
            },
        };
        let target = target(&file.path).unwrap_or(Target::Stdout);
        Some(Output::Lines(target, self.known(written)?))
    }

    fn records(&mut self, name: &str, otel: &OtelLogProvider) -> Option<Output> {
        let (to, authority) = self.service(name, &otel.service, otel.port)?;
        let format = otel.log_format.as_ref();
        let body = self.known(text(format.and_then(|format| format.text.as_deref()), false))?;
        let labels = format.and_then(|format| format.labels.clone()).unwrap_or_default();
        if let Err(error) = Format::object(&labels, false) {
            self.finding(Code::SCHEMA, format!("the labels of provider {name:?} are refused: {error}"));
            return None;
        }
        let log = if otel.log_name.is_empty() { OTEL_LOG } else { &otel.log_name };
        let service = self.ground.node.service_name(&self.ground.validated.mesh().default_config);
        let resource = [("log_name", log.to_owned()), ("service.name", service)];
        let address = Address {
            to,
            protocol: Protocol::Grpc,
            path: GRPC_PATH.to_owned(),
            content_type: "application/grpc",
            authority,
            headers: Vec::new(),
            patience: PATIENCE,
        };
        Some(Output::Records(
            address,
            body,
            labels,
            resource.map(|(key, value)| (key.to_owned(), value)).into(),
        ))
    }

    /// As MeshConfig says (Istio: telemetry_logging.go `FileAccessLogFromMeshConfig`).
    fn of_mesh(&mut self, mesh: &MeshConfig) -> Written {
        let format = mesh.access_log_format.as_str();
        match mesh.access_log_encoding {
            AccessLogEncoding::Text => text(Some(format), false),
            AccessLogEncoding::Json if format.is_empty() => Written::Json,
            AccessLogEncoding::Json => match serde_json::from_str(format) {
                Ok(fields) => Written::Object(fields, false),
                Err(error) => {
                    let message = format!("accessLogFormat is no JSON object, and Istio's is used: {error}");
                    self.finding(Code::SCHEMA, message);
                    Written::Json
                }
            },
        }
    }

    /// A format whose operators are known.
    fn known(&mut self, written: Written) -> Option<Written> {
        match written.compile() {
            Ok(_) => Some(written),
            Err(error) => {
                self.finding(
                    Code::SCHEMA,
                    format!("an access log's format is refused, and it is not written: {error}"),
                );
                None
            }
        }
    }
}

/// What is said of one provider.
#[derive(Clone, Copy)]
enum Spec<'p> {
    Disabled,
    /// With a condition.
    Written(Option<&'p str>),
}

fn text(format: Option<&str>, omit: bool) -> Written {
    match format.filter(|format| !format.is_empty()) {
        None if omit => Written::Format(super::access_log::format::ISTIO_TEXT.to_owned(), true),
        None => Written::Text,
        Some(format) => Written::Format(format.to_owned(), omit),
    }
}

/// `None`: nowhere.
fn target(path: &str) -> Option<Target> {
    match path {
        "" => None,
        "/dev/stdout" => Some(Target::Stdout),
        "/dev/stderr" => Some(Target::Stderr),
        path => Some(Target::File(Path::new(path).into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::plan::tests::{beside, configuration, on};

    fn telemetry(name: &str, spec: &str) -> String {
        format!(
            "---\napiVersion: telemetry.istio.io/v1\nkind: Telemetry\nmetadata: {{name: {name}, namespace: istio-system}}\nspec: {{accessLogging: {spec}}}\n"
        )
    }

    /// Where lines go, by the end of its name, and how many conditions there are.
    fn planned(mesh: &str, more: &str) -> (Vec<LogRule>, Vec<String>) {
        on(&configuration(mesh, more), logs)
    }

    fn outputs(rules: &[LogRule]) -> Vec<String> {
        rules.iter().map(|rule| format!("{:?}", rule.output)).collect()
    }

    const PROVIDERS: &str = "extensionProviders:\n\
        - {name: file, envoyFileAccessLog: {path: /a, logFormat: {text: '%DURATION%'}}}\n\
        - {name: json, envoyFileAccessLog: {path: /b, logFormat: {labels: {a: '%DURATION%'}}, omitEmptyValues: true}}\n\
        - {name: otel, envoyOtelAls: {service: c.example, port: 4317, logFormat: {labels: {a: '%DURATION%'}}}}\n\
        - {name: als, envoyHttpAls: {service: c.example, port: 4317}}\n\
        - {name: bad, envoyFileAccessLog: {path: /c, logFormat: {text: '%NO%'}}}\n";

    #[test]
    fn mesh_config_says_where_and_how() {
        for (mesh, output, written) in [
            ("", "Lines(Stdout)", Written::Text),
            ("accessLogFile: /dev/stdout", "Lines(Stdout)", Written::Text),
            ("accessLogFile: /dev/stderr\naccessLogEncoding: JSON", "Lines(Stderr)", Written::Json),
            (
                "accessLogFile: /a\naccessLogFormat: '%DURATION%'",
                "Lines(File(\"/a\"))",
                Written::Format("%DURATION%".into(), false),
            ),
            (
                "accessLogEncoding: JSON\naccessLogFormat: '{\"a\":\"%DURATION%\"}'",
                "Lines(Stdout)",
                Written::Object([("a".to_owned(), LogValue::Text("%DURATION%".to_owned()))].into(), false),
            ),
        ] {
            let (rules, findings) = planned(mesh, "");
            assert_eq!(findings, Vec::<String>::new(), "{mesh}");
            assert_eq!(outputs(&rules), [output], "{mesh}");
            let Output::Lines(_, how) = &rules[0].output else { panic!() };
            assert_eq!(*how, written, "{mesh}");
        }
        let (rules, findings) = planned("accessLogEncoding: JSON\naccessLogFormat: 'a'", "");
        assert!(matches!(&rules[0].output, Output::Lines(_, Written::Json)));
        assert!(findings[0].contains("accessLogFormat is no JSON object"), "{findings:?}");
        assert!(planned("accessLogFormat: '%NO%'", "").1[0].contains("unknown operator"));
    }

    #[test]
    fn telemetries_choose_providers_and_the_narrower_holds() {
        let mesh = format!("{PROVIDERS}accessLogFile: /mesh\n");
        for (more, want) in [
            (telemetry("a", "[{providers: [{name: file}]}]"), vec!["Lines(File(\"/a\"))"]),
            (
                telemetry("a", "[{providers: [{name: file}, {name: json}, {name: otel}]}]"),
                vec!["Lines(File(\"/a\"))", "Lines(File(\"/b\"))", "Records(outbound|4317||c.example)"],
            ),
            (telemetry("a", "[{providers: [{name: envoy}]}]"), vec!["Lines(Stdout)"]),
            (telemetry("a", "[{providers: [{name: file}], disabled: true}]"), vec![]),
            (
                telemetry("a", "[{match: {mode: SERVER}, providers: [{name: file}]}]"),
                vec!["Lines(File(\"/mesh\"))"],
            ),
            (telemetry("a", "[{providers: [{name: nobody}]}]"), vec!["Lines(File(\"/mesh\"))"]),
            (telemetry("a", "[{disabled: true}]"), vec!["Lines(File(\"/mesh\"))"]),
        ] {
            let (rules, findings) = planned(&mesh, &more);
            assert_eq!(findings, Vec::<String>::new(), "{more}");
            assert_eq!(outputs(&rules), want, "{more}");
        }
        assert_eq!(outputs(&planned("", &telemetry("a", "[{disabled: true}]")).0), Vec::<String>::new());
        // A default provider, and a Telemetry of the gateway's own on top of it.
        let default = format!("{PROVIDERS}defaultProviders: {{accessLogging: [file]}}\n");
        assert_eq!(outputs(&planned(&default, "").0), ["Lines(File(\"/a\"))"]);
        let off = "---\napiVersion: telemetry.istio.io/v1\nkind: Telemetry\nmetadata: {name: own, namespace: istio-system}\nspec: {selector: {matchLabels: {istio: ingressgateway}}, accessLogging: [{disabled: true}]}\n";
        assert_eq!(outputs(&planned(&default, off).0), Vec::<String>::new());
        let other = telemetry("a", "[{providers: [{name: json}]}]");
        assert_eq!(outputs(&planned(&default, &(other + off)).0), Vec::<String>::new());
    }

    #[test]
    fn a_sidecar_logs_each_way_as_it_is_said() {
        let sides = |mode: &str| {
            let more = telemetry("a", &format!("[{{match: {{mode: {mode}}}, providers: [{{name: file}}]}}]"));
            let (rules, findings) =
                beside(&configuration(&format!("{PROVIDERS}accessLogFile: /mesh\n"), &more), logs);
            assert_eq!(findings, Vec::<String>::new(), "{mode}");
            rules.iter().map(|rule| (format!("{:?}", rule.output), rule.side)).collect::<Vec<_>>()
        };
        let (file, mesh) = ("Lines(File(\"/a\"))".to_owned(), "Lines(File(\"/mesh\"))".to_owned());
        let (client, server) = (Some(Side::Client), Some(Side::Server));
        assert_eq!(sides("CLIENT_AND_SERVER"), [(file.clone(), None)]);
        assert_eq!(sides("SERVER"), [(mesh.clone(), client), (file.clone(), server)]);
        assert_eq!(sides("CLIENT"), [(file, client), (mesh, server)]);
    }

    #[test]
    fn filters_are_conditions_and_what_is_none_is_refused_out_loud() {
        let default = format!("{PROVIDERS}defaultProviders: {{accessLogging: [file]}}\n");
        let (rules, findings) =
            planned(&default, &telemetry("a", "[{filter: {expression: 'response.code >= 400'}}]"));
        assert_eq!(findings, Vec::<String>::new());
        assert!(rules[0].condition.is_some());
        let refused = telemetry("a", "[{filter: {expression: 'metadata.x == 1'}}]");
        assert!(planned(&default, &refused).0.is_empty(), "nothing is logged rather than all");
        for (name, want) in [("als", "is no log that is written"), ("bad", "unknown operator `%NO%`")] {
            let (_, findings) =
                planned(&default, &telemetry("a", &format!("[{{providers: [{{name: {name}}}]}}]")));
            assert!(findings[0].contains(want), "{findings:?}");
        }
    }
}
