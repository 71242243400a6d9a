//! Reads MeshConfig from the ConfigMap that Istio keeps it in.

use crate::{
    diagnostic::{Code, Diagnostic},
    kubernetes::ConfigMap,
    mesh::{ExtensionProvider, MeshConfig, provider::over_built_in},
    meta::Resource,
};

use super::{content::deepest_path, guard};

/// The MeshConfig under `data.mesh`, or the default when the key is absent. Fields that are not mirrored are left aside: MeshConfig
/// has many for parts of Istio that are not here.
///
/// # Errors
/// A finding about the ConfigMap when the text is not YAML or a field has a wrong type.
pub fn mesh_config(config_map: &Resource<ConfigMap>) -> Result<MeshConfig, Box<Diagnostic>> {
    let Some(text) = config_map.spec.data.get(MeshConfig::KEY) else { return Ok(MeshConfig::default()) };
    let invalid = |message: String| {
        Box::new(
            Diagnostic::new(Code::SCHEMA, message)
                .about(&config_map.key, &config_map.origin)
                .at(format!("data.{}", MeshConfig::KEY))
                .hint("the default mesh configuration is used until this is corrected"),
        )
    };
    if let Some(reason) = guard::refusal(text) {
        return Err(invalid(reason));
    }
    let mut value =
        serde_yaml::from_str::<serde_yaml::Value>(text).map_err(|error| invalid(error.to_string()))?;
    if value.is_null() {
        return Ok(MeshConfig::default());
    }
    // Read one by one: what is wrong with one provider is its own matter.
    let providers = match value.get_mut("extensionProviders").map(std::mem::take) {
        Some(serde_yaml::Value::Sequence(written)) => Some(written),
        Some(other) if !other.is_null() => {
            return Err(invalid("extensionProviders: invalid type, wants a list".to_owned()));
        }
        _ => None,
    };
    if let Some(fields) = value.as_mapping_mut() {
        fields.remove("extensionProviders");
    }
    let mut track = serde_path_to_error::Track::new();
    let read: Result<MeshConfig, _> =
        serde::Deserialize::deserialize(serde_path_to_error::Deserializer::new(&value, &mut track));
    let mut mesh = read.map_err(|error| invalid(format!("{}: {error}", deepest_path(&track.path()))))?;
    if let Some(written) = providers {
        mesh.extension_providers = over_built_in(written.into_iter().map(provider).collect());
    }
    Ok(mesh)
}

fn provider(value: serde_yaml::Value) -> ExtensionProvider {
    let name = value.get("name").and_then(serde_yaml::Value::as_str).unwrap_or_default().to_owned();
    let mut track = serde_path_to_error::Track::new();
    let read = serde::Deserialize::deserialize(serde_path_to_error::Deserializer::new(value, &mut track));
    read.unwrap_or_else(|error: serde_yaml::Error| {
        let place = deepest_path(&track.path());
        let why = if place.is_empty() { error.to_string() } else { format!("{place}: {error}") };
        ExtensionProvider { name, unreadable: Some(why), ..ExtensionProvider::default() }
    })
}
