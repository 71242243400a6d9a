//! Reads MeshConfig from the ConfigMap that Istio keeps it in.

use crate::{
    diagnostic::{Code, Diagnostic},
    kubernetes::ConfigMap,
    mesh::MeshConfig,
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
    let value =
        serde_yaml::from_str::<serde_yaml::Value>(text).map_err(|error| invalid(error.to_string()))?;
    if value.is_null() {
        return Ok(MeshConfig::default());
    }
    let mut track = serde_path_to_error::Track::new();
    let read: Result<MeshConfig, _> =
        serde::Deserialize::deserialize(serde_path_to_error::Deserializer::new(&value, &mut track));
    read.map_err(|error| invalid(format!("{}: {error}", deepest_path(&track.path()))))
}
