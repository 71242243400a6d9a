//! Every manifest of `deploy/` as the typed objects of Kubernetes' API: nothing in it may be of another type, and no field unknown.
//!
//! With `LIMEN_MANIFESTS` (a folder of YAML) that folder is read too: `deploy/check` renders the chart into one, for each of its cases.

use std::{
    fs,
    path::{Path, PathBuf},
};

use config_model::diagnostic::Severity;
use k8s_openapi::{
    api::{
        apps::v1::{DaemonSet, Deployment},
        autoscaling::v2::HorizontalPodAutoscaler,
        core::v1::{ConfigMap, Pod, Secret, Service, ServiceAccount},
        discovery::v1::EndpointSlice,
        networking::v1::NetworkPolicy,
        policy::v1::PodDisruptionBudget,
        rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use serde::{Deserialize as _, Serialize, de::DeserializeOwned};
use serde_json::Value;

/// Not Kubernetes' own: kustomize reads one itself (`deploy/check` runs it), the definitions of the other are Prometheus'.
const FOREIGN: [&str; 2] = ["Kustomization", "PodMonitor"];

/// What comes back of an object that has gone through its type.
fn typed<T: DeserializeOwned + Serialize>(object: &Value) -> Result<Value, String> {
    let read: T = serde_json::from_value(object.clone()).map_err(|error| error.to_string())?;
    serde_json::to_value(read).map_err(|error| error.to_string())
}

fn through_its_type(object: &Value) -> Option<Result<Value, String>> {
    let read = match (object["apiVersion"].as_str()?, object["kind"].as_str()?) {
        ("apps/v1", "Deployment") => typed::<Deployment>,
        ("apps/v1", "DaemonSet") => typed::<DaemonSet>,
        ("v1", "Service") => typed::<Service>,
        ("v1", "ServiceAccount") => typed::<ServiceAccount>,
        ("v1", "ConfigMap") => typed::<ConfigMap>,
        ("v1", "Secret") => typed::<Secret>,
        ("v1", "Pod") => typed::<Pod>,
        ("discovery.k8s.io/v1", "EndpointSlice") => typed::<EndpointSlice>,
        ("autoscaling/v2", "HorizontalPodAutoscaler") => typed::<HorizontalPodAutoscaler>,
        ("policy/v1", "PodDisruptionBudget") => typed::<PodDisruptionBudget>,
        ("networking.k8s.io/v1", "NetworkPolicy") => typed::<NetworkPolicy>,
        ("rbac.authorization.k8s.io/v1", "Role") => typed::<Role>,
        ("rbac.authorization.k8s.io/v1", "RoleBinding") => typed::<RoleBinding>,
        ("rbac.authorization.k8s.io/v1", "ClusterRole") => typed::<ClusterRole>,
        ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding") => typed::<ClusterRoleBinding>,
        ("apiextensions.k8s.io/v1", "CustomResourceDefinition") => typed::<CustomResourceDefinition>,
        _ => return None,
    };
    Some(read(object))
}

/// Fields that the type does not know: they did not come back.
fn lost(written: &Value, back: &Value, path: &str, found: &mut Vec<String>) {
    match written {
        Value::Object(fields) => {
            for (name, value) in fields {
                let is_empty = value.is_null()
                    || value.as_object().is_some_and(serde_json::Map::is_empty)
                    || value.as_array().is_some_and(Vec::is_empty);
                match back.get(name) {
                    Some(back) => lost(value, back, &format!("{path}.{name}"), found),
                    None if is_empty => {}
                    None => found.push(format!("{path}.{name} is unknown")),
                }
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                lost(item, &back[index], &format!("{path}[{index}]"), found);
            }
        }
        other if other == back => {}
        other => found.push(format!("{path}: {other} has become {back}")),
    }
}

/// What is wrong with the objects of a text, and how many there are.
fn faults(text: &str) -> (Vec<String>, usize) {
    let (mut faults, mut count) = (Vec::new(), 0);
    for document in serde_yaml::Deserializer::from_str(text) {
        let mut object = Value::deserialize(document).unwrap();
        // What has no kind is a patch of what has pods.
        if object["spec"]["template"].is_object() && object["kind"].is_null() {
            object["apiVersion"] = "apps/v1".into();
            object["kind"] = "Deployment".into();
        }
        let kind = object["kind"].as_str().unwrap_or("").to_owned();
        if object.is_null() || FOREIGN.contains(&kind.as_str()) {
            continue;
        }
        count += 1;
        let name = format!("{kind} {}", object["metadata"]["name"].as_str().unwrap_or(""));
        if object["apiVersion"].as_str().is_some_and(|version| version.contains(".istio.io/")) {
            let parsed = config_model::parse::parse(&name, serde_json::to_string(&object).unwrap());
            let faulty = parsed.diagnostics.iter().filter(|found| found.severity < Severity::Info);
            faults.extend(faulty.map(ToString::to_string));
            continue;
        }
        match through_its_type(&object) {
            None => faults.push(format!("{name}: no type is known for {}", object["apiVersion"])),
            Some(Err(error)) => faults.push(format!("{name}: {error}")),
            Some(Ok(back)) => lost(&object, &back, &name, &mut faults),
        }
    }
    (faults, count)
}

/// YAML files below a folder, but for those of the chart, which are no manifests yet, and those that are wrong on purpose.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() && !["chart", "invalid"].contains(&name) {
            files(&path, found);
        } else if path.extension().is_some_and(|end| end == "yaml") {
            found.push(path);
        }
    }
}

#[test]
fn every_manifest_is_of_its_type_and_has_no_unknown_field() {
    let mut found = Vec::new();
    files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy"), &mut found);
    if let Some(rendered) = std::env::var_os("LIMEN_MANIFESTS") {
        let before = found.len();
        files(Path::new(&rendered), &mut found);
        assert!(found.len() > before, "nothing is rendered");
    }
    let mut objects = 0;
    for path in found {
        let (faults, count) = faults(&fs::read_to_string(&path).unwrap());
        assert!(faults.is_empty(), "{}:\n{}", path.display(), faults.join("\n"));
        objects += count;
    }
    assert!(objects >= 50, "only {objects} objects");
}

#[test]
fn a_field_that_is_misspelt_or_of_another_type_is_found() {
    let deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec:\n  selector: {}\n  template:\n    \
                      spec:\n      containers:\n      - {name: c, args: [run], PORTS}\n";
    let with = |ports: &str| faults(&deployment.replace("PORTS", ports)).0;
    assert_eq!(with("ports: [{containerPort: 80}]"), Vec::<String>::new());
    let misspelt = with("ports: [{containerPort: 80, protocal: TCP}]");
    assert_eq!(misspelt, ["Deployment a.spec.template.spec.containers[0].ports[0].protocal is unknown"]);
    let typed = with("ports: [{containerPort: http}]");
    assert!(typed.len() == 1 && typed[0].contains("invalid type"), "{typed:?}");
}
