//! `landbridge config show`: the settings of this machine, and who said so.

use serde_json::Value;

use super::{
    Failure,
    args::{Config, ConfigShow, ConfigVerb},
    output,
};
use crate::config::Loaded;

/// Prints the settings as YAML, or as a table of their origins.
pub(super) fn config(options: Config) -> Result<(), Failure> {
    let ConfigVerb::Show(ConfigShow { settings, origin }) = options.verb;
    let loaded = settings.sources().load()?;
    let text = if origin {
        origins(&loaded)?
    } else {
        serde_saphyr::to_string(&loaded.config).map_err(|error| unprintable(&error))?
    };
    output::print(&text)
}

fn origins(loaded: &Loaded) -> Result<String, Failure> {
    let config = serde_json::to_value(&loaded.config).map_err(|error| unprintable(&error))?;
    let mut rows = vec![["KEY", "VALUE", "ORIGIN"].map(str::to_owned).to_vec()];
    for (key, origin) in &loaded.origins {
        let value = config.pointer(&format!("/{}", key.replace('.', "/")));
        let shown = match value {
            Some(Value::String(text)) if !text.is_empty() => text.clone(),
            Some(value) => value.to_string(),
            None => continue,
        };
        rows.push(vec![key.clone(), shown, origin.to_string()]);
    }
    Ok(output::table(&rows))
}

fn unprintable(error: &dyn std::fmt::Display) -> Failure {
    Failure::NotSo(format!("cannot print the settings: {error}"))
}
