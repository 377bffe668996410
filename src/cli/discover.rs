//! `landbridge discover`: one look for clusters, without a daemon, that writes nothing.

use serde_json::{Value, json};

use super::{
    Failure,
    args::{Discover, StatusOutput},
    output,
};
use crate::daemon::survey::{Find, Question, survey};

/// Prints what is found. It is well when a cluster has proven its key.
pub(super) async fn discover(options: Discover) -> Result<(), Failure> {
    let config = options.settings.sources().load()?.config;
    let question = Question {
        lan: options.lan || options.domain.is_empty(),
        domains: options.domain,
        timeout: options.timeout,
    };
    let found = survey(&config, &question)
        .await
        .map_err(|error| Failure::Usage(error.to_string()))?;
    for text in &found.remarks {
        output::remark(&format!("warning: {}", crate::telemetry::escape(text)));
    }
    match options.output {
        StatusOutput::Text if found.finds.is_empty() => {}
        StatusOutput::Text => output::print(&table(&found.finds))?,
        StatusOutput::Json => {
            let rows: Value = found.finds.iter().map(row).collect();
            output::print(&format!("{rows:#}\n"))?;
        }
    }
    if found.finds.iter().any(|find| find.proven_in.is_some()) {
        return Ok(());
    }
    let places: Vec<&str> = (question.lan.then_some("the LAN").into_iter())
        .chain(question.domains.iter().map(String::as_str))
        .collect();
    let what = if found.finds.is_empty() {
        "no cluster was found"
    } else {
        "no cluster has proven its key"
    };
    let (places, time) = (places.join(", "), options.timeout);
    Err(Failure::NotSo(format!(
        "{what} on {places} within {time:?}"
    )))
}

fn table(finds: &[Find]) -> String {
    let heading = [
        "NAME", "ID", "FOUND BY", "WHERE", "ADDRESS", "PROVEN", "LATENCY", "WHY",
    ];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    for find in finds {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        rows.push(vec![
            find.name.clone(),
            or_dash(find.cluster_id.as_ref().map(ToString::to_string)),
            find.source.to_owned(),
            find.place.clone(),
            or_dash(find.address.map(|address| address.to_string())),
            if find.proven_in.is_some() {
                "yes"
            } else {
                "no"
            }
            .to_owned(),
            or_dash(milliseconds(find).map(|time| format!("{time:.1} ms"))),
            find.why.clone(),
        ]);
    }
    output::table(&rows)
}

fn row(find: &Find) -> Value {
    let place = if find.source == "LAN" {
        "interface"
    } else {
        "domain"
    };
    let mut row = json!({
        "name": find.name,
        "id": find.cluster_id.as_ref().map(ToString::to_string),
        "source": find.source,
        "address": find.address.map(|address| address.to_string()),
        "proven": find.proven_in.is_some(),
        "latencyMilliseconds": milliseconds(find),
        "why": find.why,
    });
    if let Value::Object(fields) = &mut row {
        fields.insert(place.to_owned(), json!(find.place));
    }
    row
}

fn milliseconds(find: &Find) -> Option<f64> {
    find.proven_in.map(|time| time.as_secs_f64() * 1000.0)
}
