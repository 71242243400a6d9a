//! What admission demands of a WorkloadGroup (Istio: ValidateWorkloadGroup, and the schema). It has no effect on a gateway.

use super::{
    check::Check,
    workload_entry::{self, Takes},
};
use crate::{
    diagnostic::Diagnostics,
    istio::{
        WorkloadGroup,
        workload_group::{HttpHealthCheck, ReadinessProbe},
    },
    meta::Resource,
    scalar::PortNumber,
};

pub(super) fn check(resource: &Resource<WorkloadGroup>, out: &mut Diagnostics) {
    let mut check = Check::new(resource, out);
    let spec = &resource.spec;
    match &spec.template {
        None => check.error("spec", "template is required"),
        Some(template) => {
            workload_entry::check_entry(
                &mut check,
                format_args!("spec.template"),
                template,
                Takes::AnyOrNone,
            );
        }
    }
    if let Some(metadata) = &spec.metadata {
        check.at_most("spec.metadata.labels", metadata.labels.len(), 256);
        check.at_most("spec.metadata.annotations", metadata.annotations.len(), 256);
        check.labels("spec.metadata.labels", &metadata.labels);
    }
    if let Some(probe) = &spec.probe {
        check_probe(&mut check, probe);
    }
}

fn check_probe(check: &mut Check<'_, WorkloadGroup>, probe: &ReadinessProbe) {
    for (field, value) in [
        ("periodSeconds", probe.period_seconds),
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ] {
        if value < 0 {
            check.error(format!("spec.probe.{field}"), format!("{field} must be non-negative"));
        }
    }
    let methods =
        [probe.http_get.is_some(), probe.tcp_socket.is_some(), probe.exec.is_some(), probe.grpc.is_some()];
    match methods.iter().filter(|used| **used).count() {
        // Istio's admission does not know of grpc, which its schema has; here it is accepted.
        0 => check.refuse(
            "spec.probe",
            "unknown health check method",
            "set one of httpGet, tcpSocket, exec and grpc",
        ),
        1 => {}
        _ => check.error("spec.probe", "at most one of httpGet, tcpSocket, exec and grpc may be set"),
    }
    if let Some(get) = &probe.http_get {
        check_get(check, get);
    }
    for (field, socket) in [("tcpSocket", &probe.tcp_socket), ("grpc", &probe.grpc)] {
        if let Some(socket) = socket {
            port(check, &format!("spec.probe.{field}"), socket.port);
        }
    }
    if let Some(exec) = &probe.exec {
        if exec.command.is_empty() {
            check.error("spec.probe.exec", "exec.command is required");
        }
        for (index, word) in exec.command.iter().enumerate() {
            if word.is_empty() {
                let path = format!("spec.probe.exec.command[{index}]");
                check.error(path, "should be at least 1 character long");
            }
        }
    }
}

fn check_get(check: &mut Check<'_, WorkloadGroup>, get: &HttpHealthCheck) {
    let path = "spec.probe.httpGet";
    port(check, path, get.port);
    if !matches!(get.scheme.as_str(), "" | "HTTP" | "HTTPS") {
        check.error(format!("{path}.scheme"), "httpGet.scheme must be one of \"HTTPS\", \"HTTP\"");
    }
    for (index, header) in get.http_headers.iter().enumerate() {
        let token = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if header.name.is_empty() || !header.name.bytes().all(token) {
            check.error(
                format!("{path}.httpHeaders[{index}].name"),
                format!("header name {} is not a valid header name", header.name),
            );
        }
    }
}

fn port(check: &mut Check<'_, WorkloadGroup>, path: &str, port: Option<PortNumber>) {
    if port.is_none() {
        check.error(path, "port number 0 must be in the range 1..65535");
    }
}

#[cfg(test)]
mod tests {
    use crate::validate::tests::findings;

    #[test]
    fn groups() {
        let head = "apiVersion: networking.istio.io/v1\nkind: WorkloadGroup\nmetadata: {name: a}\nspec: ";
        for (spec, finds) in [
            ("{template: {}}", vec![]),
            ("{template: {serviceAccount: a}, probe: {httpGet: {port: 80, scheme: HTTPS}}}", vec![]),
            ("{template: {}, probe: {exec: {command: [a]}}}", vec![]),
            ("{}", vec!["!IST0106 spec"]),
            ("{template: {}, metadata: {labels: {'.': a}}}", vec!["!IST0106 spec.metadata.labels"]),
            ("{template: {}, probe: {}}", vec!["!IST0106 spec.probe"]),
            (
                "{template: {}, probe: {httpGet: {port: 80}, exec: {command: [a]}}}",
                vec!["!IST0106 spec.probe"],
            ),
            ("{template: {}, probe: {httpGet: {}}}", vec!["!IST0106 spec.probe.httpGet"]),
            (
                "{template: {}, probe: {httpGet: {port: 1, scheme: ftp}}}",
                vec!["!IST0106 spec.probe.httpGet.scheme"],
            ),
            (
                "{template: {}, probe: {httpGet: {port: 1, httpHeaders: [{name: a/b}]}}}",
                vec!["!IST0106 spec.probe.httpGet.httpHeaders[0].name"],
            ),
            ("{template: {}, probe: {exec: {}}}", vec!["!IST0106 spec.probe.exec"]),
            ("{template: {}, probe: {exec: {command: ['']}}}", vec!["!IST0106 spec.probe.exec.command[0]"]),
            (
                "{template: {}, probe: {tcpSocket: {port: 1}, periodSeconds: -1}}",
                vec!["!IST0106 spec.probe.periodSeconds"],
            ),
            ("{template: {ports: {a_b: 1}}}", vec!["!IST0106 spec.template.ports.a_b"]),
        ] {
            let mut found = findings(&format!("{head}{spec}\n"));
            found.retain(|line| !line.starts_with("LIM"));
            assert_eq!(found, finds, "{spec}");
        }
    }
}
