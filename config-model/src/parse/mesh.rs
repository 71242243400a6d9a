//! Reads MeshConfig from the ConfigMap that Istio keeps it in.

use crate::{
    diagnostic::{Code, Diagnostic},
    kubernetes::ConfigMap,
    mesh::{ExtensionProvider, MeshConfig, MeshNetworks, provider::over_built_in},
    meta::Resource,
};

use super::{content::deepest_path, guard};
use serde::de::DeserializeOwned;
use serde_yaml::Value;

/// The MeshConfig under `data.mesh` with the networks under `data.meshNetworks`, or the default where a key is absent. Fields that are
/// not mirrored are left aside: MeshConfig has many for parts of Istio that are not here.
///
/// # Errors
/// A finding about the ConfigMap when a text is not YAML or a field has a wrong type.
pub fn mesh_config(config_map: &Resource<ConfigMap>) -> Result<MeshConfig, Box<Diagnostic>> {
    let mesh = match value(config_map, MeshConfig::KEY)? {
        Some(written) => mesh(config_map, written)?,
        None => MeshConfig::default(),
    };
    let networks = match value(config_map, MeshConfig::NETWORKS_KEY)? {
        Some(written) => read(config_map, MeshConfig::NETWORKS_KEY, &written)?,
        None => MeshNetworks::default(),
    };
    Ok(MeshConfig { networks: networks.networks, ..mesh })
}

fn mesh(config_map: &Resource<ConfigMap>, mut value: Value) -> Result<MeshConfig, Box<Diagnostic>> {
    // Read one by one: what is wrong with one provider is its own matter.
    let providers = match value.get_mut("extensionProviders").map(std::mem::take) {
        Some(Value::Sequence(written)) => Some(written),
        Some(other) if !other.is_null() => {
            let message = "extensionProviders: invalid type, wants a list".to_owned();
            return Err(invalid(config_map, MeshConfig::KEY, message));
        }
        _ => None,
    };
    if let Some(fields) = value.as_mapping_mut() {
        fields.remove("extensionProviders");
    }
    let mut mesh: MeshConfig = read(config_map, MeshConfig::KEY, &value)?;
    if let Some(written) = providers {
        mesh.extension_providers = over_built_in(written.into_iter().map(provider).collect());
    }
    Ok(mesh)
}

/// What is written under a key, where anything is.
fn value(config_map: &Resource<ConfigMap>, key: &str) -> Result<Option<Value>, Box<Diagnostic>> {
    let Some(text) = config_map.spec.data.get(key) else { return Ok(None) };
    if let Some(reason) = guard::refusal(text) {
        return Err(invalid(config_map, key, reason));
    }
    let value = serde_yaml::from_str::<Value>(text);
    let value = value.map_err(|error| invalid(config_map, key, error.to_string()))?;
    Ok(Some(value).filter(|value| !value.is_null()))
}

fn read<T: DeserializeOwned>(
    config_map: &Resource<ConfigMap>,
    key: &str,
    value: &Value,
) -> Result<T, Box<Diagnostic>> {
    let mut track = serde_path_to_error::Track::new();
    let read = serde::Deserialize::deserialize(serde_path_to_error::Deserializer::new(value, &mut track));
    read.map_err(|error: serde_yaml::Error| {
        invalid(config_map, key, format!("{}: {error}", deepest_path(&track.path())))
    })
}

fn invalid(config_map: &Resource<ConfigMap>, key: &str, message: String) -> Box<Diagnostic> {
    Box::new(
        Diagnostic::new(Code::SCHEMA, message)
            .about(&config_map.key, &config_map.origin)
            .at(format!("data.{key}"))
            .hint("the default mesh configuration is used until this is corrected"),
    )
}

fn provider(value: Value) -> ExtensionProvider {
    let name = value.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut track = serde_path_to_error::Track::new();
    let read = serde::Deserialize::deserialize(serde_path_to_error::Deserializer::new(value, &mut track));
    read.unwrap_or_else(|error: serde_yaml::Error| {
        let place = deepest_path(&track.path());
        let why = if place.is_empty() { error.to_string() } else { format!("{place}: {error}") };
        ExtensionProvider { name, unreadable: Some(why), ..ExtensionProvider::default() }
    })
}
