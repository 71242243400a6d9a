//! Why a request was answered as it was: the access log says it in Envoy's words, for each answer that is the gateway's own.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn each_answer_says_why_in_envoys_words() {
    let route = |name: &str, extra: &str| {
        format!(
            "  - match: [{{uri: {{exact: /{name}}}}}]\n    retries: {{attempts: 0}}\n{extra}    route: [{{destination: {{host: {name}.example, port: {{number: 80}}}}}}]\n"
        )
    };
    let tries =
        "    timeout: 5s\n    retries: {attempts: 1, perTryTimeout: 100ms, retryOn: connect-failure}\n";
    let rules = [
        "  - match: [{uri: {exact: /direct}}]\n    directResponse: {status: 503}\n".to_owned(),
        "  - match: [{uri: {exact: /redirected}}]\n    redirect: {uri: /x}\n".to_owned(),
        route("missing", ""),
        route("empty", ""),
        route("refused", ""),
        route("leaves", ""),
        route("resets", ""),
        route("hangs", "    timeout: 200ms\n"),
        route("slow", tries).replace("    retries: {attempts: 0}\n", ""),
        route("aborted", "    fault: {abort: {percentage: {value: 100}, httpStatus: 503}}\n"),
        route("up", ""),
    ]
    .concat();
    let (leaves, hangs) = (plays(&[LEAVE]).await, plays(&[HANG]).await);
    let mut yaml = config(&rules, &[echo().await], "HTTP");
    for (name, at) in [
        ("refused", nobody().await),
        ("leaves", leaves.address),
        ("resets", plays(&[Act::SayAndLeave("HTTP/1.1 2")]).await.address),
        ("hangs", hangs.address),
        ("slow", hangs.address),
        ("aborted", hangs.address),
    ] {
        yaml.push_str(&service(name, at, "HTTP"));
    }
    yaml.push_str(
        &service("empty", nobody().await, "HTTP")
            .replace("endpoints: [{", "workloadSelector: {labels: {app: nobody}} # {"),
    );
    let gateway = gateway(&yaml).await;
    for (path, status, flags, details) in [
        ("direct", 503, "-", "direct_response"),
        ("redirected", 301, "-", "direct_response"),
        ("none", 404, "NR", "route_not_found"),
        ("missing", 503, "NC", "cluster_not_found"),
        ("empty", 503, "UH", "no_healthy_upstream"),
        (
            "refused",
            503,
            "UF",
            "upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused}",
        ),
        ("leaves", 503, "UC", "upstream_reset_before_response_started{connection_termination}"),
        ("resets", 502, "UPE", "upstream_reset_before_response_started{protocol_error}"),
        ("hangs", 504, "UT", "response_timeout"),
        ("slow", 504, "UT", "upstream_per_try_timeout"),
        ("aborted", 503, "FI", "fault_filter_abort"),
        ("up", 200, "-", "via_upstream"),
    ] {
        assert_eq!(gateway.get(&format!("/{path}")).await.0, status, "{path}");
        let line = gateway.line(&format!(" /{path} ")).await;
        assert!(line.contains(&format!(" {status} {flags} {details} ")), "{path}: {line}");
    }
}
