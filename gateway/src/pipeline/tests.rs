//! What a change, a mistake and a failure of the source lead to.

use config_model::diagnostic::Code;

use super::{
    testing::{GATEWAY, pipeline, virtual_service},
    *,
};
use crate::source::fixed::{self, Fixed};

fn has(built: &Built, name: &str) -> bool {
    built.validated.virtual_services().iter().any(|resource| resource.key.name == name)
}

#[tokio::test]
async fn identical_content_is_not_a_change() {
    let text = format!("{GATEWAY}{}", virtual_service("a", "a.example", 301));
    let (source, handle) = Fixed::yaml("a.yaml", &text);
    let (mut pipeline, recorder, status) = pipeline(source);
    assert_eq!(pipeline.step().await, Step::Published);
    handle.set_yaml("a.yaml", &format!("{text}---\n# a comment\n"));
    assert_eq!(pipeline.step().await, Step::Identical);
    assert_eq!(recorder.count(), 1);
    assert_eq!(status.built().unwrap().generation, 1);
    assert_eq!(pipeline.metrics.updates.with_label_values(&["identical"]).get(), 1);
}

#[tokio::test]
async fn a_broken_update_keeps_its_last_accepted_version_and_hurts_no_other() {
    let good = format!("{GATEWAY}{}", virtual_service("a", "a.example", 301));
    let (source, handle) = Fixed::yaml("a.yaml", &good);
    let (mut pipeline, recorder, status) = pipeline(source);
    assert_eq!(pipeline.step().await, Step::Published);
    assert!(!status.findings().has_errors(), "{:?}", status.findings());

    let broken = virtual_service("a", "a.example", 999);
    handle.set_yaml("a.yaml", &format!("{GATEWAY}{broken}{}", virtual_service("b", "b.example", 302)));
    assert_eq!(pipeline.step().await, Step::Published);
    let built = recorder.last();
    assert!(has(&built, "a") && has(&built, "b"));
    let kept = built.validated.virtual_services().iter().find(|resource| resource.key.name == "a").unwrap();
    assert_eq!(kept.spec.http[0].redirect.as_ref().unwrap().redirect_code, 301);
    let findings = status.findings();
    let finding = findings.iter().find(|finding| finding.message.contains("last accepted version")).unwrap();
    assert_eq!(finding.resource.as_ref().unwrap().name, "a");
    assert!(finding.origin.as_ref().unwrap().line > 1);

    handle.set_yaml("a.yaml", GATEWAY);
    assert_eq!(pipeline.step().await, Step::Published);
    assert!(!has(&recorder.last(), "a"), "deleting it is not breaking it");
}

#[tokio::test]
async fn a_resource_that_was_never_good_is_left_out_alone() {
    let text = format!(
        "{GATEWAY}{}{}",
        virtual_service("a", "a.example", 999),
        virtual_service("b", "b.example", 301)
    );
    let (source, _handle) = Fixed::yaml("a.yaml", &text);
    let (mut pipeline, recorder, status) = pipeline(source);
    assert_eq!(pipeline.step().await, Step::Published);
    let built = recorder.last();
    assert!(!has(&built, "a") && has(&built, "b"));
    assert!(status.findings().has_errors());
    assert_eq!(status.synchronization(), Synchronization::Current);
}

#[tokio::test]
async fn the_first_of_two_documents_with_one_key_stays() {
    let text = format!(
        "{GATEWAY}{}{}",
        virtual_service("a", "a.example", 301),
        virtual_service("a", "a.example", 302)
    );
    let (source, _handle) = Fixed::yaml("a.yaml", &text);
    let (mut pipeline, recorder, status) = pipeline(source);
    assert_eq!(pipeline.step().await, Step::Published);
    let kept = recorder.last().validated.virtual_services()[0].spec.http[0].redirect.clone().unwrap();
    assert_eq!(kept.redirect_code, 301);
    assert!(status.findings().iter().any(|finding| finding.code == Code::DUPLICATE_RESOURCE));
}

#[tokio::test]
async fn a_source_that_fails_is_told_and_changes_nothing() {
    let (source, handle) = Fixed::yaml("a.yaml", GATEWAY);
    let (mut pipeline, _recorder, status) = pipeline(source);
    assert_eq!(pipeline.step().await, Step::Published);
    handle.set(Loaded { health: Health::Stale, ..fixed::read("a.yaml", GATEWAY) });
    assert_eq!(pipeline.step().await, Step::Identical);
    assert_eq!(status.synchronization(), Synchronization::Stale);
    assert_eq!(pipeline.metrics.synchronized.get(), 0);
    handle.set_yaml("a.yaml", GATEWAY);
    assert_eq!(pipeline.step().await, Step::Identical);
    assert_eq!(pipeline.metrics.synchronized.get(), 1);
}

#[tokio::test]
async fn a_thread_follows_the_source_until_it_is_stopped() {
    let (source, handle) = Fixed::yaml("a.yaml", GATEWAY);
    let (pipeline, _recorder, status) = pipeline(source);
    let (stop, stopped) = watch::channel(false);
    let (thread, first) = pipeline.spawn(stopped).unwrap();
    assert_eq!(first.await.unwrap(), Step::Published);
    handle.set_yaml("a.yaml", &format!("{GATEWAY}{}", virtual_service("a", "a.example", 301)));
    let wait = async {
        while status.built().is_none_or(|built| built.generation < 2) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), wait).await.unwrap();
    stop.send(true).unwrap();
    tokio::task::spawn_blocking(|| thread.join().unwrap()).await.unwrap();
}

/// What the process logs, collected.
#[derive(Default, Clone)]
struct Log(Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn the_log_has_each_finding_once_as_check_prints_it() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    // The name is misspelt, with a hint; the code is refused, without one.
    let text = format!("{GATEWAY}{}", virtual_service("a", "a.example", 999))
        .replace("hosts: ['*']", "host: x, hosts: ['*']");
    let (source, _handle) = Fixed::yaml("a.yaml", &text);
    let (mut pipeline, _recorder, status) = pipeline(source);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    tracing::subscriber::with_default(subscriber, || {
        assert_eq!(runtime.block_on(pipeline.step()), Step::Published);
        pipeline.told.follow(&status.findings());
    });
    let said = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(status.findings().len() >= 2, "{said}");
    for finding in status.findings().iter() {
        let line = finding.to_string();
        let (_severity, rest) = line.split_once(' ').unwrap();
        assert_eq!(said.matches(rest).count(), 1, "{rest}\n{said}");
    }
    assert!(!said.contains("hint=\"\"") && said.contains("hint="), "{said}");
}
