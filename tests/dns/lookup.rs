//! What one look at a domain finds, and that nothing broken spoils it.

use std::{collections::BTreeMap, fmt::Write as _, net::UdpSocket, time::Instant};

use landbridge::{
    api::ClusterId,
    discovery::dns::{Servers, look},
    engine::{
        addresses::OwnNetworks,
        domain::{Claim, Ground, Look, Problem, Verdict, verdict},
    },
};

use crate::{
    bind::{Bind, Zone, free_port},
    process::Process,
};

/// The zone of Liqo's documents, as it stands there.
const LIQO: &str = "
example.com.                  PTR     liqo-cluster.example.com.
                              PTR     liqo-cluster-2.example.com.
liqo-cluster.example.com.     SRV     0 0 443 auth.server.example.com.
liqo-cluster-2.example.com.   SRV     0 0 8443 auth.server-2.example.com.
auth.server.example.com.      A       1.2.3.4
auth.server-2.example.com.    A       2.3.4.1
";

#[tokio::test]
async fn the_zone_of_liqos_documents_works_as_it_stands() {
    let Some(bind) = Bind::start(&[Zone::new("example.com", LIQO)], "") else {
        return;
    };
    let look = look(&servers(&[&bind.address()]), "example.com").await;
    assert_eq!(look.incomplete, None);
    let found = found(&look);
    assert_eq!(found["liqo-cluster.example.com"], ["1.2.3.4:443"]);
    assert_eq!(found["liqo-cluster-2.example.com"], ["2.3.4.1:8443"]);
    assert_eq!(found.len(), 2);
    let ttl = look.ttl.expect("answers have a time to live").as_secs();
    assert!(ttl <= 30, "{ttl}");
}

#[tokio::test]
async fn service_discovery_by_rfc_6763_gives_id_name_and_browse_domains() {
    let zones = [
        Zone::new(
            "rfc.test",
            "b._dns-sd._udp PTR rfc.test.\n\
             b._dns-sd._udp PTR east.test.\n\
             _landbridge._tcp PTR Rome._landbridge._tcp\n\
             _liqo_auth._tcp PTR Rome._liqo_auth._tcp\n\
             Rome._landbridge._tcp SRV 0 0 5870 rome\n\
             Rome._landbridge._tcp TXT \"v=1\" \"id=rome-1\" \"name=Rome \\195\\169\"\n\
             Rome._liqo_auth._tcp SRV 0 0 5870 rome\n\
             Rome._liqo_auth._tcp TXT \"\"\n\
             rome A 10.0.0.1\nrome AAAA 2001:db8::1\n",
        ),
        Zone::new(
            "east.test",
            "_liqo_auth._tcp PTR milan._liqo_auth._tcp\n\
             milan._liqo_auth._tcp SRV 0 0 5870 milan\n\
             milan A 10.0.0.2\n",
        ),
    ];
    let Some(bind) = Bind::start(&zones, "") else {
        return;
    };
    let look = look(&servers(&[&bind.address()]), "rfc.test.").await;
    assert_eq!(look.incomplete, None);
    let endpoints = found(&look);
    let rome = ["10.0.0.1:5870", "[2001:db8::1]:5870"];
    assert_eq!(endpoints["rome._landbridge._tcp.rfc.test"], rome);
    assert_eq!(endpoints["rome._liqo_auth._tcp.rfc.test"], rome);
    assert_eq!(
        endpoints["milan._liqo_auth._tcp.east.test"],
        ["10.0.0.2:5870"]
    );
    let claim = claims(&look).remove("rome._landbridge._tcp.rfc.test");
    let claim = claim.expect("there is a TXT record");
    assert_eq!(claim.cluster_id, "rome-1".parse().ok());
    assert_eq!(claim.name.as_str(), "Rome \u{e9}");
}

#[tokio::test]
async fn browse_domains_are_bounded_and_not_followed_further() {
    let listing = "@ PTR rome\nrome SRV 0 0 5870 gate\ngate A 10.0.0.1\n\
                   _liqo_auth._tcp PTR milan._liqo_auth._tcp\n\
                   milan._liqo_auth._tcp SRV 0 0 5870 gate\n\
                   b._dns-sd._udp PTR further.test.\n";
    let mut records = String::new();
    let mut zones = vec![Zone::new("further.test", listing)];
    for number in 0..20 {
        writeln!(records, "b._dns-sd._udp PTR d{number}.test.").expect("a string");
        zones.push(Zone::new(&format!("d{number}.test"), listing));
    }
    zones.push(Zone::new("browse.test", &records));
    let Some(bind) = Bind::start(&zones, "") else {
        return;
    };
    let look = look(&servers(&[&bind.address()]), "browse.test").await;
    assert_eq!(look.incomplete, None);
    let found = found(&look);
    assert_eq!(found.len(), 16, "one of each of 16 domains: {found:?}");
    assert!(
        found
            .keys()
            .all(|name| !name.contains("further") && name.contains("milan"))
    );
}

#[tokio::test]
async fn the_example_of_a_domain_works_as_it_stands() {
    let name = "clusters.example.com";
    let file = include_str!("../../examples/dns-domain/clusters.example.com.zone");
    let Some(bind) = Bind::start(&[Zone::verbatim(name, file)], "") else {
        return;
    };
    let look = look(&servers(&[&bind.address()]), name).await;
    let found = found(&look);
    assert_eq!(found.len(), 3, "{look:?}");
    let milan = ["192.0.2.2:5870", "192.0.2.3:443"];
    assert_eq!(found["milan.clusters.example.com"], milan);
}

#[tokio::test]
async fn one_broken_entry_never_spoils_the_others() {
    let Some(bind) = Bind::start(&[Zone::new("broken.test", &broken())], "") else {
        return;
    };
    let look = look(&servers(&[&bind.address()]), "broken.test").await;
    let found = found(&look);
    let names: Vec<&str> = found.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "alias.broken.test",
            "crowd.broken.test",
            "good-1.broken.test",
            "good-2.broken.test"
        ]
    );
    assert_eq!(found["good-1.broken.test"], ["192.168.0.1:443"], "private");
    assert_eq!(found["alias.broken.test"], ["192.168.0.1:443"]);
    let refused = refused(&look);
    for (instance, part) in [
        ("nothing.broken.test", "no SRV record"),
        ("not-here.broken.test", "not here"),
        ("no-address.broken.test", "no address"),
        ("loopback.broken.test", "loopback"),
        ("metadata.broken.test", "metadata"),
        ("ssh.broken.test", "another service"),
        ("circle.broken.test", "Server Failure"),
        ("deep.broken.test", "circle"),
        ("\\342\\200\\256evil.broken.test", "not printable"),
        ("foreign.refused", "Refused"),
    ] {
        let why = refused.get(instance).map_or("", String::as_str);
        assert!(why.contains(part), "{instance}: {why:?} in {refused:#?}");
    }
    let crowd = look
        .entries
        .iter()
        .find(|entry| entry.instance.starts_with("crowd"));
    let services = crowd.and_then(|entry| entry.services.as_ref().ok());
    assert_eq!(services.expect("answers").len(), 16);
}

#[tokio::test]
async fn what_does_not_exist_is_told_apart_from_what_does_not_answer() {
    let zones = [Zone::new("empty.test", ""), Zone::broken("failing.test")];
    let Some(bind) = Bind::start(&zones, "") else {
        return;
    };
    let here = servers(&[&bind.address()]);
    let empty = look(&here, "empty.test").await;
    assert_eq!((empty.entries.len(), empty.incomplete), (0, None));
    assert_eq!(empty.ttl.map(|ttl| ttl.as_secs()), Some(20), "negative");
    let missing = look(&here, "missing.empty.test").await;
    assert_eq!((missing.entries.len(), missing.incomplete), (0, None));
    for (domain, part) in [
        ("failing.test", "Server Failure"),
        ("strange.test", "Refused"),
    ] {
        let look = look(&here, domain).await;
        let Some(Problem::Passing(why)) = look.incomplete else {
            panic!("{domain} was answered");
        };
        assert!(why.contains(part), "{why}");
    }
    for domain in ["", "a..b", "printers.local", "."] {
        let look = look(&here, domain).await;
        assert!(
            matches!(look.incomplete, Some(Problem::Lasting(_))),
            "{domain:?}"
        );
    }
}

#[tokio::test]
async fn every_name_server_is_used() {
    let Some(left) = Bind::start(&[Zone::new("example.com", LIQO)], "") else {
        return;
    };
    let right = Bind::start(&[Zone::new("other.test", "")], "").expect("named is installed");
    let ignorant = Zone::new("com", "");
    let ignorant = Bind::start(&[ignorant], "").expect("named is installed");
    let silent = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let silent = silent.local_addr().expect("an address").to_string();
    let closed = free_port().to_string();
    for first in [right.address(), ignorant.address(), closed, silent] {
        let look = look(&servers(&[&first, &left.address()]), "example.com").await;
        assert_eq!(
            found(&look).len(),
            2,
            "after {first}: {:?}",
            look.incomplete
        );
    }
    // One that knows nothing says nothing of what the silent one lists.
    for order in [
        ["127.0.0.1:1", &right.address()],
        [&right.address(), "127.0.0.1:1"],
    ] {
        let doubtful = look(&servers(&order), "example.com").await;
        assert_eq!(found(&doubtful).len(), 0);
        assert!(
            matches!(doubtful.incomplete, Some(Problem::Passing(_))),
            "{order:?}"
        );
    }
    let alone = look(&servers(&["127.0.0.1:1"]), "example.com").await;
    assert!(matches!(alone.incomplete, Some(Problem::Passing(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_clusters_are_found_over_tcp_in_bounded_memory() {
    let mut records = String::new();
    for number in 0..1100 {
        let (high, low) = (number / 250, number % 250 + 1);
        writeln!(
            records,
            "_liqo_auth._tcp PTR c{number}._liqo_auth._tcp\n\
             c{number}._liqo_auth._tcp SRV 0 0 5870 h{number}\n\
             c{number}._liqo_auth._tcp TXT \"id=c{number}\"\n\
             h{number} A 10.1.{high}.{low}"
        )
        .expect("a string");
    }
    let Some(bind) = Bind::start(&[Zone::new("big.test", &records)], "") else {
        return;
    };
    let own = Process(std::process::id());
    let (before, begun) = (own.resident(), Instant::now());
    let look = look(&servers(&[&bind.address()]), "big.test").await;
    let (took, grown) = (begun.elapsed(), own.resident().saturating_sub(before));
    assert_eq!(look.incomplete, None);
    assert_eq!(found(&look).len(), 1024);
    assert_eq!(look.surplus, 1100 - 1024);
    println!("1024 of 1100 clusters in {took:?}, {grown} KiB more than before");
    assert!(grown < 64 * 1024, "{grown} KiB");
}

/// Good entries among all that can be wrong with one.
fn broken() -> String {
    let mut records = String::from(
        "@ PTR good-1\n@ PTR nothing\n@ PTR not-here\n@ PTR no-address\n@ PTR loopback\n\
         @ PTR metadata\n@ PTR circle\n@ PTR deep\n@ PTR \\226\\128\\174evil\n@ PTR elsewhere.invalid.\n\
         @ PTR foreign.refused.\n@ PTR crowd\n@ PTR ssh\n@ PTR alias\n@ PTR good-2\n\
         good-1 SRV 0 0 443 host-1\ngood-2 SRV 0 0 443 host-2\n\
         not-here SRV 0 0 0 .\nno-address SRV 0 0 443 empty\nempty TXT x\n\
         loopback SRV 0 0 443 lo\nlo A 127.0.0.1\n\
         metadata SRV 0 0 443 meta\nmeta A 169.254.169.254\n\
         ssh SRV 0 0 22 host-1\n\
         circle SRV 0 0 443 c0\nc0 CNAME c1\nc1 CNAME c0\n\
         deep SRV 0 0 443 d0\nd10 A 10.0.0.9\n\
         alias SRV 0 0 443 a0\na0 CNAME a1\na1 CNAME a2\na2 CNAME host-1\n\
         host-1 A 192.168.0.1\nhost-2 A 10.0.0.2\n",
    );
    for step in 0..10 {
        writeln!(records, "d{step} CNAME d{}", step + 1).expect("a string");
    }
    for target in 0..300 {
        writeln!(
            records,
            "crowd SRV {target} 0 443 t{target}\nt{target} A 10.1.0.1"
        )
        .expect("a string");
    }
    records
}

pub(crate) fn servers(texts: &[&str]) -> Servers {
    let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
    Servers::parse(&texts).expect("addresses")
}

fn verdicts(look: &Look) -> BTreeMap<String, Verdict> {
    let own_id: ClusterId = "ourselves".parse().expect("an id");
    let ground = Ground {
        own_id: &own_id,
        own: &OwnNetworks::default(),
        public_only: false,
        seed: 1,
    };
    look.entries
        .iter()
        .map(|entry| (entry.instance.clone(), verdict(entry, &ground)))
        .collect()
}

pub(crate) fn found(look: &Look) -> BTreeMap<String, Vec<String>> {
    let endpoints = verdicts(look).into_iter().filter_map(|(name, verdict)| {
        let Verdict::Found(_, endpoints) = verdict else {
            return None;
        };
        Some((name, endpoints.iter().map(ToString::to_string).collect()))
    });
    endpoints.collect()
}

fn claims(look: &Look) -> BTreeMap<String, Claim> {
    let claims = verdicts(look).into_iter().filter_map(|(name, verdict)| {
        let Verdict::Found(claim, _) = verdict else {
            return None;
        };
        Some((name, claim))
    });
    claims.collect()
}

pub(crate) fn refused(look: &Look) -> BTreeMap<String, String> {
    let reasons = verdicts(look).into_iter().filter_map(|(name, verdict)| {
        let (Verdict::Refused(why) | Verdict::Unclear(why)) = verdict else {
            return None;
        };
        Some((name, why))
    });
    reasons.collect()
}
