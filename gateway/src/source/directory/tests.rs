//! The ways in which editors, kubelets and people change a folder.

use std::{fs, sync::Arc, time::Duration};

use config_model::set::AnyResource;

use super::*;

fn service(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{port: 80, name: http}}]}}\n"
    )
}

fn names(loaded: &Loaded) -> Vec<String> {
    loaded.resources.iter().chain(&loaded.kept).map(|resource| resource.key().name.clone()).collect()
}

fn arc_of(
    loaded: &Loaded,
    name: &str,
) -> Arc<config_model::meta::Resource<config_model::kubernetes::Service>> {
    let found = loaded.resources.iter().find_map(|resource| match resource {
        AnyResource::Service(service) if service.key.name == name => Some(Arc::clone(service)),
        _ => None,
    });
    found.expect("the service is there")
}

/// Waits, with patience, until the source gives a state that holds.
async fn eventually(source: &mut Directory, holds: impl Fn(&Loaded) -> bool) -> Loaded {
    let wait = async {
        loop {
            let loaded = source.next().await.expect("a folder never ends");
            if holds(&loaded) {
                return loaded;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait).await.expect("the state was never reached")
}

fn quick() -> Timing {
    Timing {
        quiet: Duration::from_millis(20),
        longest: Duration::from_secs(1),
        poll: Duration::from_millis(100),
    }
}

#[test]
fn every_kind_of_file_name_is_read_or_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("deep/er")).unwrap();
    for name in ["a.yaml", "b.yml", "deep/er/d.YAML"] {
        let service_name = name.rsplit('/').next().unwrap().split('.').next().unwrap();
        fs::write(folder.path().join(name), service(service_name)).unwrap();
    }
    fs::write(
        folder.path().join("c.json"),
        r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"c"},"spec":{"ports":[{"port":80}]}}"#,
    )
    .unwrap();
    for name in [".a.yaml.swp", ".#a.yaml", "a.yaml~", "4913", "#a.yaml#", "notes.txt", ".hidden.yaml"] {
        fs::write(folder.path().join(name), service("wrong")).unwrap();
    }
    let loaded = Directory::new(vec![folder.path().into()]).load();
    assert_eq!(names(&loaded), ["a", "b", "c", "d"]);
    assert_eq!(loaded.health, Health::Synchronized);
}

#[test]
fn an_unchanged_document_keeps_its_arc_when_its_file_changes() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.yaml");
    fs::write(&file, format!("{}---\n{}", service("one"), service("two"))).unwrap();
    let mut source = Directory::new(vec![folder.path().into()]);
    let first = source.load();
    assert!(Arc::ptr_eq(&arc_of(&first, "one"), &arc_of(&source.load(), "one")), "nothing changed");
    fs::write(&file, format!("{}---\n{}", service("one"), service("three"))).unwrap();
    let second = source.load();
    assert_eq!(names(&second), ["one", "three"]);
    assert!(Arc::ptr_eq(&arc_of(&first, "one"), &arc_of(&second, "one")));
}

#[test]
fn a_half_written_file_keeps_what_it_gave() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.yaml");
    fs::write(&file, format!("{}---\n{}", service("one"), service("two"))).unwrap();
    let mut source = Directory::new(vec![folder.path().into()]);
    let _first = source.load();
    fs::write(&file, format!("{}---\napiVersion: v1\nkind: Service\nmetadata: {{name: tw", service("one")))
        .unwrap();
    let cut = source.load();
    assert_eq!(names(&cut), ["one", "two"]);
    assert_eq!(cut.kept.len(), 1);
    assert!(cut.unparsable > 0);
    assert!(
        cut.diagnostics
            .iter()
            .any(|finding| finding.message.contains("kept as last read: Service default/two")),
        "{:?}",
        cut.diagnostics
    );
    fs::write(&file, service("one")).unwrap();
    assert_eq!(names(&source.load()), ["one"], "a whole file without it removes it");
}

#[test]
fn a_file_that_is_emptied_keeps_what_it_gave() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.yaml");
    fs::write(&file, format!("{}---\n{}", service("one"), service("two"))).unwrap();
    let mut source = Directory::new(vec![folder.path().into()]);
    let _first = source.load();
    for nothing in ["", "\n \n"] {
        fs::write(&file, nothing).unwrap();
        let emptied = source.load();
        assert_eq!(names(&emptied), ["one", "two"]);
        let finding = emptied.diagnostics.iter().next().unwrap();
        assert!(finding.message.contains("is empty") && finding.hint.is_some(), "{finding:?}");
    }
    fs::write(&file, format!("{}---\nkind: Service\nmetadata: {{name: tw", service("one"))).unwrap();
    assert_eq!(names(&source.load()), ["one", "two"], "what is about to be written");
    fs::write(&file, "# nothing, and it is meant\n").unwrap();
    assert_eq!(names(&source.load()).len(), 0, "who says so is believed");
    fs::write(&file, service("one")).unwrap();
    assert_eq!(names(&source.load()), ["one"]);
    fs::write(&file, "").unwrap();
    assert_eq!(names(&source.load()), ["one"]);
    fs::remove_file(&file).unwrap();
    assert_eq!(names(&source.load()).len(), 0, "a file that is deleted is meant to be");
}

#[test]
fn a_broken_document_does_not_hold_on_to_others_that_were_removed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.yaml");
    let all = [service("one"), service("two"), service("three")].join("---\n");
    fs::write(&file, all).unwrap();
    let mut source = Directory::new(vec![folder.path().into()]);
    let _first = source.load();
    let broken = "apiVersion: v1\nkind: Service\nmetadata: {name: one}\nspec: {ports: 7}\n";
    fs::write(&file, format!("{broken}---\n{}", service("three"))).unwrap();
    let loaded = source.load();
    assert_eq!(names(&loaded), ["three", "one"], "two was deleted, one is broken");
}

#[test]
fn an_unreadable_folder_keeps_the_last_good_state() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("config");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("a.yaml"), service("one")).unwrap();
    let mut source = Directory::new(vec![folder.clone()]);
    assert_eq!(names(&source.load()), ["one"]);
    fs::rename(&folder, parent.path().join("away")).unwrap();
    let lost = source.load();
    assert_eq!((names(&lost), lost.health), (vec!["one".to_owned()], Health::Stale));
    assert!(lost.diagnostics.iter().any(|finding| finding.code == Code::UNREADABLE));
    fs::create_dir(&folder).unwrap();
    let back = source.load();
    assert_eq!((names(&back).len(), back.health), (0, Health::Synchronized));
}

#[test]
fn ignored_kinds_are_listed_once() {
    let folder = tempfile::tempdir().unwrap();
    let other = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\n";
    fs::write(folder.path().join("a.yaml"), format!("{other}---\n{other}")).unwrap();
    fs::write(folder.path().join("b.yaml"), other).unwrap();
    let loaded = Directory::new(vec![folder.path().into()]).load();
    let ignored: Vec<_> = loaded.diagnostics.iter().filter(|d| d.code == Code::IGNORED_KIND).collect();
    assert_eq!(ignored.len(), 1, "{ignored:?}");
    assert!(ignored[0].message.contains("3 documents"), "{}", ignored[0].message);
}

#[tokio::test]
async fn an_atomic_rename_and_a_deletion_are_seen() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.yaml");
    fs::write(&file, service("one")).unwrap();
    let mut source = Directory::with_timing(vec![folder.path().into()], quick());
    eventually(&mut source, |loaded| names(loaded) == ["one"]).await;
    fs::write(folder.path().join(".a.yaml.tmp"), service("two")).unwrap();
    fs::rename(folder.path().join(".a.yaml.tmp"), &file).unwrap();
    eventually(&mut source, |loaded| names(loaded) == ["two"]).await;
    fs::remove_file(&file).unwrap();
    eventually(&mut source, |loaded| names(loaded).is_empty()).await;
}

#[tokio::test]
async fn a_single_file_is_followed_when_an_editor_replaces_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.yaml");
    fs::write(&file, service("one")).unwrap();
    let mut source = Directory::with_timing(vec![file.clone()], quick());
    eventually(&mut source, |loaded| names(loaded) == ["one"]).await;
    fs::write(folder.path().join("new"), service("two")).unwrap();
    fs::rename(folder.path().join("new"), &file).unwrap();
    eventually(&mut source, |loaded| names(loaded) == ["two"]).await;
}

#[cfg(unix)]
#[tokio::test]
async fn a_config_map_mount_is_followed_through_its_swap() {
    use std::os::unix::fs::symlink;
    let mount = tempfile::tempdir().unwrap();
    let version = |name: &str, services: &[&str]| {
        let folder = mount.path().join(name);
        fs::create_dir(&folder).unwrap();
        for service_name in services {
            fs::write(folder.join(format!("{service_name}.yaml")), service(service_name)).unwrap();
        }
    };
    version("..2026_01_01", &["a", "b"]);
    symlink("..2026_01_01", mount.path().join("..data")).unwrap();
    for name in ["a", "b"] {
        symlink(format!("..data/{name}.yaml"), mount.path().join(format!("{name}.yaml"))).unwrap();
    }
    let mut source = Directory::with_timing(vec![mount.path().into()], quick());
    let first = eventually(&mut source, |loaded| names(loaded) == ["a", "b"]).await;
    assert_eq!(first.diagnostics.len(), 0, "each file once: {:?}", first.diagnostics);

    // As the kubelet does it: the new folder, a new link, a rename over the old link, then links of files that went.
    version("..2026_01_02", &["a"]);
    symlink("..2026_01_02", mount.path().join("..data_tmp")).unwrap();
    fs::rename(mount.path().join("..data_tmp"), mount.path().join("..data")).unwrap();
    fs::remove_file(mount.path().join("b.yaml")).unwrap();
    fs::remove_dir_all(mount.path().join("..2026_01_01")).unwrap();
    eventually(&mut source, |loaded| names(loaded) == ["a"]).await;
}

#[cfg(unix)]
#[test]
fn a_loop_of_links_ends() {
    use std::os::unix::fs::symlink;
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.yaml"), service("one")).unwrap();
    symlink(folder.path(), folder.path().join("again")).unwrap();
    symlink("a.yaml", folder.path().join("b.yaml")).unwrap();
    assert_eq!(names(&Directory::new(vec![folder.path().into()]).load()), ["one"]);
}
