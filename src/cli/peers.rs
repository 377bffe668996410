//! The ForeignClusters, and which one a person means.

use kube::{
    Api, Client, ResourceExt as _,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use super::{Failure, connection::explain};
use crate::api::{ForeignCluster, identity::begins_an_id, labels};

/// Lists all that are known, by name.
pub(super) async fn list(client: &Client) -> Result<Vec<ForeignCluster>, Failure> {
    let api: Api<ForeignCluster> = Api::all(client.clone());
    let list = api
        .list(&ListParams::default())
        .await
        .map_err(|error| explain(&error))?;
    Ok(list.items)
}

/// Finds the one that is meant by an object name, a cluster name or the start of an id.
pub(super) async fn find(client: &Client, wanted: &str) -> Result<ForeignCluster, Failure> {
    let all = list(client).await?;
    pick(&all, wanted).cloned()
}

/// Returns the id of a cluster, once it is known.
pub(super) fn id(cluster: &ForeignCluster) -> Option<&str> {
    let identity = cluster.spec.cluster_identity.as_ref()?;
    Some(identity.cluster_id.as_str()).filter(|id| !id.is_empty())
}

/// Returns the id of a cluster, which has to be proven.
pub(super) fn proven_id(cluster: &ForeignCluster) -> Result<&str, Failure> {
    id(cluster).ok_or_else(|| {
        Failure::NotSo(format!(
            "{} has not proven who it is yet: landbridge status says what is missing",
            cluster.name_any()
        ))
    })
}

/// Writes a part of the spec of one.
pub(super) async fn write(client: &Client, name: &str, spec: Value) -> Result<(), Failure> {
    let api: Api<ForeignCluster> = Api::all(client.clone());
    let patch = Patch::Merge(json!({ "spec": spec }));
    let written = api
        .patch(name, &PatchParams::apply(labels::MANAGER), &patch)
        .await;
    written.map(drop).map_err(|error| explain(&error))
}

fn cluster_name(cluster: &ForeignCluster) -> Option<&str> {
    let identity = cluster.spec.cluster_identity.as_ref()?;
    identity.cluster_name.as_deref()
}

fn pick<'a>(all: &'a [ForeignCluster], wanted: &str) -> Result<&'a ForeignCluster, Failure> {
    let by_whole_id = |cluster: &&ForeignCluster| id(cluster) == Some(wanted);
    let by_object = |cluster: &&ForeignCluster| cluster.name_any() == wanted;
    let by_name =
        |cluster: &&ForeignCluster| cluster_name(cluster) == Some(wanted) && !begins_an_id(wanted);
    let by_id = |cluster: &&ForeignCluster| {
        !wanted.is_empty() && id(cluster).is_some_and(|id| id.starts_with(wanted))
    };
    // Strangers choose their names, so none stands before the start of another cluster's id.
    let by_object_or_id = |cluster: &&ForeignCluster| by_object(cluster) || by_id(cluster);
    let by_name_or_id = |cluster: &&ForeignCluster| by_name(cluster) || by_id(cluster);
    let is_object = all.iter().any(|cluster| by_object(&cluster));
    let ways: [&dyn Fn(&&ForeignCluster) -> bool; 2] = if is_object {
        [&by_whole_id, &by_object_or_id]
    } else {
        [&by_whole_id, &by_name_or_id]
    };
    for way in ways {
        let found: Vec<&ForeignCluster> = all.iter().filter(way).collect();
        match found.as_slice() {
            [] => {}
            [one] => return Ok(one),
            several => {
                let names: Vec<String> = several.iter().map(|one| one.name_any()).collect();
                return Err(Failure::NotSo(format!(
                    "{wanted:?} may be any of {}: use the object's name or the whole id",
                    names.join(", ")
                )));
            }
        }
    }
    Err(Failure::NotSo(format!(
        "no cluster {wanted:?} is known: landbridge get lists them"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::foreign_cluster::ClusterIdentity;

    #[test]
    fn a_cluster_is_meant_by_object_name_or_cluster_name_or_id() {
        let all = [
            cluster("milan", "Milano", "aa11"),
            cluster("turin", "milan", "aa22"),
            cluster("rome", "Rome", "bb33"),
            cluster("rome-2", "Rome", "cc44"),
        ];
        let picked = |wanted: &str| pick(&all, wanted).map(ForeignCluster::name_any);
        assert_eq!(picked("milan").expect("object name"), "milan");
        assert_eq!(picked("Milano").expect("cluster name"), "milan");
        assert_eq!(picked("aa2").expect("id"), "turin");
        for (wanted, complaint) in [
            (
                "aa",
                "\"aa\" may be any of milan, turin: use the object's name or the whole id",
            ),
            ("Rome", "may be any of rome, rome-2"),
            ("", "no cluster \"\" is known"),
            (
                "oslo",
                "no cluster \"oslo\" is known: landbridge get lists them",
            ),
        ] {
            let message = picked(wanted).expect_err(wanted).to_string();
            assert!(message.contains(complaint), "{message}");
        }
    }

    #[test]
    fn the_name_of_one_cluster_hides_no_id_of_another() {
        let milan = "0f1e2d3c-4b5a-8697-8877-665544332211";
        let all = [
            cluster(milan, "eve", "aa11"),
            cluster("0f1e", "eve", "aa22"),
            cluster("eve", "0f1e2d", "aa33"),
            cluster("eve-2", "0f1", "aa44"),
            cluster("milan", "milan", milan),
        ];
        let picked = |wanted: &str| pick(&all, wanted).map(ForeignCluster::name_any);
        assert_eq!(picked(milan).expect("whole id"), "milan");
        assert_eq!(picked("0f1e2d").expect("start of an id"), "milan");
        for wanted in ["0f1e", "0f1"] {
            picked(wanted).expect_err("either may be meant");
        }
        let eve = [cluster("eve", milan, "aa11")];
        pick(&eve, milan).expect_err("an id is nobody else's name");
    }

    fn cluster(object: &str, name: &str, id: &str) -> ForeignCluster {
        let mut cluster = ForeignCluster::default();
        cluster.metadata.name = Some(object.to_owned());
        cluster.spec.cluster_identity = Some(ClusterIdentity {
            cluster_id: id.to_owned(),
            cluster_name: Some(name.to_owned()),
        });
        cluster
    }
}
