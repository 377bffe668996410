//! `landbridge get`: the ForeignClusters as kubectl shows them.

use axum::http::{HeaderValue, header};
use kube::{
    Api, Client, Resource as _, ResourceExt as _,
    api::{DynamicObject, ListParams, Request},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Failure,
    args::{Get, GetOutput},
    connection::{connect, explain},
    output, peers,
};
use crate::api::ForeignCluster;

/// What kubectl asks a server for when it prints a table (Kubernetes API concepts, section
/// "Receiving resources as Tables").
const AS_TABLE: HeaderValue =
    HeaderValue::from_static("application/json;as=Table;v=v1;g=meta.k8s.io,application/json");

/// Prints all ForeignClusters, or one.
pub(super) async fn get(options: Get) -> Result<(), Failure> {
    let client = connect(&options.connect).await?;
    let name = match &options.name {
        Some(wanted) => Some(peers::find(&client, wanted).await?.name_any()),
        None => None,
    };
    let text = match options.output {
        GetOutput::Table => table(&client, name.as_deref(), false).await?,
        GetOutput::Wide => table(&client, name.as_deref(), true).await?,
        GetOutput::Json => {
            let value = objects(&client, name.as_deref()).await?;
            format!("{value:#}\n")
        }
        GetOutput::Yaml => {
            let value = objects(&client, name.as_deref()).await?;
            serde_saphyr::to_string(&value)
                .map_err(|error| Failure::NotSo(format!("the answer is not YAML: {error}")))?
        }
        GetOutput::Name => names(&client, name).await?,
    };
    if text.is_empty() {
        output::remark("No cluster is known yet.");
    }
    output::print(&text)
}

/// Asks for a table and lays it out. `wide` includes the columns of lower priority.
pub(super) async fn table(
    client: &Client,
    name: Option<&str>,
    wide: bool,
) -> Result<String, Failure> {
    let request = Request::new(ForeignCluster::url_path(&(), None));
    let request = match name {
        Some(name) => request.get(name, &kube::api::GetParams::default()),
        None => request.list(&ListParams::default()),
    };
    let mut request =
        request.map_err(|error| Failure::NotSo(format!("cannot ask for a table: {error}")))?;
    request.headers_mut().insert(header::ACCEPT, AS_TABLE);
    let table: Table = client
        .request(request)
        .await
        .map_err(|error| explain(&error))?;
    Ok(table.lay_out(wide))
}

async fn objects(client: &Client, name: Option<&str>) -> Result<Value, Failure> {
    let resource = kube::api::ApiResource::erase::<ForeignCluster>(&());
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    let plain = |object: DynamicObject| {
        // A list's items come without type; kubectl prints it.
        let mut value = json!({"apiVersion": resource.api_version, "kind": resource.kind});
        json_patch::merge(&mut value, &json!(object));
        value
    };
    if let Some(name) = name {
        let object = api.get(name).await;
        return object.map(plain).map_err(|error| explain(&error));
    }
    let list = api.list(&ListParams::default()).await;
    let list = list.map_err(|error| explain(&error))?;
    let items: Vec<Value> = list.items.into_iter().map(plain).collect();
    Ok(
        json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": items}),
    )
}

async fn names(client: &Client, name: Option<String>) -> Result<String, Failure> {
    let names = if let Some(name) = name {
        vec![name]
    } else {
        let all = peers::list(client).await?;
        all.iter().map(ForeignCluster::name_any).collect()
    };
    let lines = names
        .iter()
        .map(|name| format!("foreigncluster.discovery.liqo.io/{name}\n"));
    Ok(lines.collect::<Vec<String>>().concat())
}

/// A table as servers send it (meta.k8s.io/v1).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Table {
    column_definitions: Vec<Column>,
    #[serde(default)]
    rows: Option<Vec<Row>>,
}

#[derive(Debug, Deserialize)]
struct Column {
    name: String,
    #[serde(default)]
    priority: i32,
}

#[derive(Debug, Deserialize)]
struct Row {
    cells: Vec<Value>,
}

impl Table {
    fn lay_out(&self, wide: bool) -> String {
        let rows = self.rows.as_deref().unwrap_or_default();
        if rows.is_empty() {
            return String::new();
        }
        let shown: Vec<bool> = self
            .column_definitions
            .iter()
            .map(|column| wide || column.priority == 0)
            .collect();
        let visible = |cells: Vec<String>| -> Vec<String> {
            let cells = cells.into_iter().zip(&shown);
            cells
                .filter(|(_, shown)| **shown)
                .map(|(cell, _)| cell)
                .collect()
        };
        let heading = self
            .column_definitions
            .iter()
            .map(|column| column.name.to_uppercase())
            .collect();
        let mut lines = vec![visible(heading)];
        for row in rows {
            lines.push(visible(row.cells.iter().map(cell).collect()));
        }
        output::table(&lines)
    }
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_shows_the_columns_that_were_asked_for() {
        let table: Table = serde_json::from_value(json!({
            "columnDefinitions": [
                {"name": "Name", "priority": 0},
                {"name": "Join", "priority": 0},
                {"name": "Tunnel", "priority": 1},
            ],
            "rows": [{"cells": ["milan", true, null]}, {"cells": ["turin", false, "1 ms"]}],
        }))
        .expect("a table");
        assert_eq!(
            table.lay_out(false),
            "NAME    JOIN\nmilan   true\nturin   false\n"
        );
        assert_eq!(
            table.lay_out(true),
            "NAME    JOIN    TUNNEL\nmilan   true\nturin   false   1 ms\n"
        );
    }

    #[test]
    fn an_empty_table_is_empty() {
        let table: Table = serde_json::from_value(json!({"columnDefinitions": [], "rows": null}))
            .expect("a table");
        assert_eq!(table.lay_out(true), "");
    }
}
