//! Our `DNSEndpoint`, from which the cluster's ExternalDNS keeps the zone.

use futures::future::BoxFuture;
use kube::{
    Api, Client,
    api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams},
};
use serde_json::{Value, json};

use super::{Error, gone_is_fine, is_not_found};
use crate::{
    api::labels,
    discovery::publish::{Listing, Register, RegisterError},
    engine::domain::zone::{APEX, Data, Style, TTL, ZoneRecord},
};

/// The name of our one object.
const NAME: &str = "landbridge";

/// Keeps the object.
#[derive(Clone)]
pub struct DnsEndpoints {
    client: Client,
    zone: String,
    style: Style,
}

impl std::fmt::Debug for DnsEndpoints {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("DnsEndpoints")
            .field("zone", &self.zone)
            .field("style", &self.style)
            .finish_non_exhaustive()
    }
}

impl DnsEndpoints {
    /// Keeps an object that lists us in a zone.
    pub fn new(client: Client, zone: String, style: Style) -> Self {
        Self {
            client,
            zone,
            style,
        }
    }

    fn api(&self) -> Api<DynamicObject> {
        let kind = GroupVersionKind::gvk("externaldns.k8s.io", "v1alpha1", "DNSEndpoint");
        let resource = ApiResource::from_gvk_with_plural(&kind, "dnsendpoints");
        Api::namespaced_with(self.client.clone(), labels::NAMESPACE, &resource)
    }

    async fn write(&self, listing: &Listing) -> Result<(), RegisterError> {
        let object = json!({
            "apiVersion": "externaldns.k8s.io/v1alpha1",
            "kind": "DNSEndpoint",
            "metadata": {"name": NAME},
            "spec": {"endpoints": endpoints(&self.zone, &listing.records(self.style))},
        });
        let parameters = PatchParams::apply(labels::MANAGER).force();
        let written = self
            .api()
            .patch(NAME, &parameters, &Patch::Apply(object))
            .await;
        match written {
            Err(error) if is_not_found(&error) => {
                let why = "the cluster has no kind DNSEndpoint: install the definition of ExternalDNS, or set dns.publish.server and dns.publish.tsigKeyFile";
                Err(why.into())
            }
            other => Ok(other
                .map(drop)
                .map_err(Error::api("write the DNSEndpoint"))?),
        }
    }

    async fn delete(&self) -> Result<(), RegisterError> {
        let deleted = self.api().delete(NAME, &DeleteParams::default()).await;
        Ok(gone_is_fine(deleted).map_err(Error::api("delete the DNSEndpoint"))?)
    }
}

impl Register for DnsEndpoints {
    fn zone(&self) -> String {
        self.zone.clone()
    }

    fn publish<'a>(&'a self, listing: &'a Listing) -> BoxFuture<'a, Result<(), RegisterError>> {
        Box::pin(self.write(listing))
    }

    fn withdraw<'a>(&'a self, _listing: &'a Listing) -> BoxFuture<'a, Result<(), RegisterError>> {
        Box::pin(self.delete())
    }
}

/// Writes records as ExternalDNS reads them: one entry for each name and type, and no name with a
/// final dot.
fn endpoints(zone: &str, records: &[ZoneRecord]) -> Vec<Value> {
    let absolute = |name: &str| match name {
        APEX => zone.to_owned(),
        name => match name.strip_suffix('.') {
            Some(elsewhere) => elsewhere.to_owned(),
            None => format!("{name}.{zone}"),
        },
    };
    let mut endpoints: Vec<(String, &str, Vec<String>)> = Vec::new();
    for ZoneRecord { owner, data } in records {
        let target = match data {
            Data::Pointer(name) => absolute(name),
            Data::Service(port, host) => format!("0 0 {port} {}", absolute(host)),
            Data::Text(_) | Data::Address(_) => data.presentation(),
            // ExternalDNS has no such type, and refuses an object that has one of its own.
            Data::Key(_) => continue,
        };
        let (name, kind) = (absolute(owner), data.kind());
        let present = endpoints
            .iter_mut()
            .find(|(other, its_kind, _)| *other == name && *its_kind == kind);
        match present {
            Some((_, _, targets)) => targets.push(target),
            None => endpoints.push((name, kind, vec![target])),
        }
    }
    let entry = |(name, kind, targets)| json!({"dnsName": name, "recordType": kind, "recordTTL": TTL, "targets": targets});
    endpoints.into_iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Fingerprint;

    #[test]
    fn records_are_grouped_by_name_and_type_without_final_dots() {
        let listing = Listing {
            cluster_id: "rome".parse().expect("an id"),
            name: "Rome".to_owned().into(),
            port: 5870,
            addresses: ["10.0.0.1", "10.0.0.2", "fd00::1"]
                .map(|text| text.parse().expect("an address"))
                .to_vec(),
            advertise: None,
            key: Some(Fingerprint::from_spki(b"rome")),
        };
        let entries = endpoints("a.test", &listing.records(Style::Liqo));
        let short: Vec<String> = entries
            .iter()
            .map(|entry| {
                let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
                format!(
                    "{} {} {}",
                    text("dnsName"),
                    text("recordType"),
                    entry["targets"]
                )
            })
            .collect();
        assert_eq!(
            short,
            [
                "a.test PTR [\"rome.a.test\"]",
                "rome.a.test SRV [\"0 0 5870 rome.host.a.test\"]",
                "rome.host.a.test A [\"10.0.0.1\",\"10.0.0.2\"]",
                "rome.host.a.test AAAA [\"fd00::1\"]",
            ]
        );
        assert_eq!(entries[0]["recordTTL"], 60);
        let described = endpoints("a.test", &listing.records(Style::Rfc6763));
        let text = described.iter().find(|entry| entry["recordType"] == "TXT");
        let text = text.map(|entry| entry["targets"][0].clone());
        assert_eq!(text, Some(json!("\"v=1\" \"id=rome\" \"name=Rome\"")));
    }
}
