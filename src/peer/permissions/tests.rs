//! The whole table of verbs, names and fields.

use serde_json::json;

use super::*;

const MERGE: &str = "application/merge-patch+json";

fn own() -> ClusterId {
    ClusterId::from_spki(b"own")
}

fn other() -> ClusterId {
    ClusterId::from_spki(b"other")
}

fn ask(method: &str, target: &str) -> Result<Permit, u16> {
    let uri = Uri::try_from(target).unwrap_or_default();
    let method = Method::from_bytes(method.as_bytes()).unwrap_or_default();
    decide(&method, &uri, Some(MERGE), &own()).map_err(|refusal| refusal.code)
}

#[test]
fn only_the_listed_cells_of_the_table_are_allowed() {
    let item = format!("{COLLECTION}/{}", own());
    let foreign_item = format!("{COLLECTION}/{}", other());
    let mut targets = vec![
        COLLECTION.to_owned(),
        item.clone(),
        foreign_item,
        format!("{item}/status"),
        format!("{item}/"),
        format!("{COLLECTION}/"),
        format!("{COLLECTION}x"),
        format!("{COLLECTION}/{}/../{}", own(), other()),
        format!("{COLLECTION}/{}", own().as_str().to_uppercase()),
        "/apis".to_owned(),
        "/api/v1/secrets".to_owned(),
        "/api/v1/namespaces/liqo/secrets/landbridge-identity".to_owned(),
        "/apis/discovery.liqo.io/v1alpha1".to_owned(),
        "/apis/discovery.liqo.io/v1alpha1/foreignclusters".to_owned(),
        format!(
            "/apis/discovery.liqo.io/v1alpha1/namespaces/liqo/peeringrequests/{}",
            own()
        ),
        format!("/apis/discovery.liqo.io/v1/peeringrequests/{}", own()),
        format!(
            "/%61pis/discovery.liqo.io/v1alpha1/peeringrequests/{}",
            own()
        ),
    ];
    targets.extend(
        [
            "advertisements",
            "networkconfigs",
            "tunnelendpoints",
            "clusterconfigs",
            "searchdomains",
        ]
        .map(|plural| format!("/apis/discovery.liqo.io/v1alpha1/{plural}/{}", own())),
    );
    let methods = [
        "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE", "BREW",
    ];
    for target in &targets {
        for method in methods {
            let expected = match (method, target.as_str()) {
                ("GET", COLLECTION) => Ok(Permit::List),
                ("POST", COLLECTION) => Ok(Permit::Create),
                ("GET", name) if name == item => Ok(Permit::Get),
                ("PATCH", name) if name == item => Ok(Permit::Patch),
                ("DELETE", name) if name == item => Ok(Permit::Delete),
                _ => Err(403),
            };
            assert_eq!(ask(method, target), expected, "{method} {target}");
        }
    }
}

#[test]
fn a_selector_names_nobody_else_and_unknown_parameters_are_not_served() {
    let with = |query: &str| ask("GET", &format!("{COLLECTION}?{query}"));
    let (own, other) = (own(), other());
    assert_eq!(
        with(&format!("&fieldSelector=metadata.name%3D{own}&limit=500")),
        Ok(Permit::List)
    );
    assert_eq!(
        with(&format!("fieldSelector=metadata.name%3D%3D{own}")),
        Ok(Permit::List)
    );
    for selector in [
        format!("metadata.name%3D{other}"),
        format!("metadata.name!%3D{own}"),
        format!("metadata.name%3D{own}%2Cmetadata.name%3D{other}"),
        "metadata.namespace%3Dliqo".to_owned(),
    ] {
        assert_eq!(
            with(&format!("fieldSelector={selector}")),
            Err(403),
            "{selector}"
        );
    }
    for query in [
        "labelSelector=a",
        "continue=x",
        "dryRun=All",
        "sendInitialEvents=true",
        "as=admin",
    ] {
        assert_eq!(with(query), Err(400), "{query}");
    }
    assert_eq!(with("resourceVersion=abc"), Err(400));
}

#[test]
fn a_watch_starts_where_it_is_told_and_ends_in_time() {
    let watch = |query: &str| ask("GET", &format!("{COLLECTION}?watch=true&{query}"));
    let expected = |since: Option<&str>, bookmarks, seconds| {
        Ok(Permit::Watch {
            since: since.map(str::to_owned),
            bookmarks,
            seconds,
        })
    };
    assert_eq!(
        watch("resourceVersion=0"),
        expected(None, false, LONGEST_WATCH)
    );
    assert_eq!(
        watch("resourceVersion=7&allowWatchBookmarks=true&timeoutSeconds=9"),
        expected(Some("7"), true, 9)
    );
    assert_eq!(
        watch("timeoutSeconds=999999"),
        expected(None, false, LONGEST_WATCH)
    );
    let item = format!("{COLLECTION}/{}?watch=true", own());
    assert_eq!(ask("GET", &item), Ok(Permit::Get));
}

#[test]
fn a_patch_is_a_merge_patch() {
    let uri: Uri = format!("{COLLECTION}/{}", own()).parse().unwrap();
    let with = |kind: Option<&str>| decide(&Method::PATCH, &uri, kind, &own());
    assert_eq!(
        with(Some("Application/Merge-Patch+JSON; charset=utf-8")),
        Ok(Permit::Patch)
    );
    for kind in [
        None,
        Some("application/json-patch+json"),
        Some("application/apply-patch+yaml"),
    ] {
        assert_eq!(with(kind).unwrap_err().code, 415, "{kind:?}");
    }
}

fn spec(change: &serde_json::Value) -> PeeringRequestSpec {
    let mut spec = json!({
        "clusterIdentity": {"clusterID": "", "clusterName": "ro\u{1b}me"},
        "namespace": "liqo",
        "authUrl": "https://10.0.0.2:5870",
        "kubeConfigRef": {"name": "stolen"},
        "session": {"protocol": 1, "network": {
            "podCIDR": "10.244.0.0/16", "externalCIDR": "", "publicKey": "key",
            "port": 5871, "mtu": 1420,
            "endpoints": ["10.0.0.2:5871", "nonsense", "[fd00::1]:5871", "10.0.0.2:5871"],
        }},
    });
    json_patch::merge(&mut spec, change);
    serde_json::from_value(spec).unwrap()
}

#[test]
fn what_is_stored_is_the_sessions_identity_and_the_observed_address_first() {
    let observed = Some("[::ffff:192.0.2.7]:41234".parse().unwrap());
    let admitted = admit(spec(&json!({})), &own(), observed).unwrap();
    assert_eq!(admitted.cluster_identity.cluster_id, own().as_str());
    assert_eq!(
        admitted.cluster_identity.cluster_name.as_deref(),
        Some("rome")
    );
    assert_eq!(admitted.kube_config_ref, None);
    let endpoints = |spec: &PeeringRequestSpec| {
        let session = spec.session.clone().unwrap();
        session.network.unwrap().endpoints
    };
    let expected = ["192.0.2.7:5871", "10.0.0.2:5871", "[fd00::1]:5871"];
    assert_eq!(endpoints(&admitted), expected);
    let again = admit(admitted.clone(), &own(), observed).unwrap();
    assert_eq!(again, admitted, "admitting is idempotent");
    let without_port = spec(&json!({"session": {"network": {"port": 0}}}));
    let admitted = admit(without_port, &own(), observed).unwrap();
    assert_eq!(endpoints(&admitted), ["10.0.0.2:5871", "[fd00::1]:5871"]);
    let many: Vec<String> = (1..100).map(|port| format!("10.0.0.9:{port}")).collect();
    let many = spec(&json!({"session": {"network": {"endpoints": many}}}));
    assert_eq!(
        endpoints(&admit(many, &own(), None).unwrap()).len(),
        ENDPOINT_LIMIT
    );
}

#[test]
fn fields_that_name_another_cluster_or_are_not_well_formed_are_refused() {
    let admit = |change: &serde_json::Value| {
        admit(spec(change), &own(), None).map_err(|refusal| refusal.code)
    };
    let identity = |id: &ClusterId| json!({"clusterIdentity": {"clusterID": id}});
    assert!(admit(&identity(&own())).is_ok());
    assert_eq!(admit(&identity(&other())).err(), Some(403));
    assert!(admit(&json!({"authUrl": ""})).is_ok());
    for bad in [
        json!({"authUrl": "http://10.0.0.2"}),
        json!({"authUrl": "https://user@10.0.0.2"}),
        json!({"namespace": "n".repeat(129)}),
        json!({"namespace": "a\nb"}),
        json!({"session": {"network": {"publicKey": "k".repeat(129)}}}),
        json!({"session": {"network": {"podCIDR": "\u{1b}[31m"}}}),
    ] {
        assert_eq!(admit(&bad).err(), Some(422), "{bad}");
    }
}
