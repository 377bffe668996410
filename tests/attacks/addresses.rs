//! Whoever names an address aims us at somebody: in an object, in DNS, in an announcement. What is
//! dialled is counted by the kernel.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::Ipv4Addr,
    path::PathBuf,
    time::Duration,
};

use serde_json::{Value, json};
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

use crate::{eve::announcement, lab::Lab};

/// How long anything may take. It is a bound for broken runs, not a measure.
const PATIENCE: Duration = Duration::from_secs(40);

/// URLs that lead to nobody who could be another cluster. The machine has 10.77.0.1 and fd77::1, its
/// pods 10.244.0.0/16, its services 10.96.0.0/12.
const REFUSED: [&str; 62] = [
    "https://127.0.0.1:5870",
    "https://127.0.0.1",
    "https://127.9.9.9:5870",
    "https://127.1:5870",
    "https://127.0.1:5870",
    "https://2130706433:5870",
    "https://0x7f000001:5870",
    "https://0x7f.0.0.1:5870",
    "https://0177.0.0.1:5870",
    "https://017700000001:5870",
    "https://127.0.0.1.:5870",
    "https://localhost:5870",
    "https://LOCALHOST.:5870",
    "https://[::1]:5872",
    "https://[::]:5870",
    "https://[::ffff:127.0.0.1]:5870",
    "https://[::ffff:7f00:1]:5870",
    "https://[::127.0.0.1]:5870",
    "https://0.0.0.0:5870",
    "https://0:5870",
    "https://0.1.2.3:5870",
    "https://169.254.169.254",
    "https://169.254.169.254:80",
    "https://2852039166",
    "https://0xa9fea9fe",
    "https://0251.0376.0251.0376",
    "https://[::ffff:169.254.169.254]",
    "https://[::ffff:a9fe:a9fe]:80",
    "https://[fd00:ec2::254]",
    "https://169.254.1.1:5870",
    "https://[fe80::1]:5870",
    "https://[fe80::1%25eth0]:5870",
    "https://224.0.0.251:5870",
    "https://[ff02::fb]:5870",
    "https://255.255.255.255:5870",
    "https://10.77.0.255:5870",
    "https://240.0.0.1:5870",
    "https://10.244.0.1:5870",
    "https://10.244.3.4",
    "https://10.96.0.1",
    "https://10.77.0.1:5870",
    "https://10.77.0.1:6443",
    "https://[::ffff:10.77.0.1]:5870",
    "https://[fd77::1]:5870",
    "https://10.77.0.2:22",
    "https://10.77.0.2:25",
    "https://10.77.0.2:53",
    "https://10.77.0.2:2379",
    "https://10.77.0.2:2380",
    "https://10.77.0.2:10250",
    "https://10.77.0.2:0",
    "https://10.77.0.2:65536",
    "https://[64:ff9b::7f00:1]:5870",
    "https://[2002:7f00:1::]:5870",
    "https://[2001:0:7f00:1::]:5870",
    "https://[fec0::1]:5870",
    "http://10.77.0.2:5880",
    "fake://10.77.0.2:5880",
    "https://user:word@10.77.0.2:5880",
    "https://10.77.0.2:5880/ids",
    "https://10.77.0.2:5880?x=y#z",
    "https://10.77.0.2:5880\\@127.0.0.1",
];

/// URLs that may lead to another cluster, and what is dialled for each.
const ALLOWED: [(&str, &str); 5] = [
    ("https://10.77.0.2:5871", "10.77.0.2 . 5871"),
    ("https://10.77.0.2", "10.77.0.2 . 443"),
    ("https://[::ffff:10.77.0.2]:5873", "10.77.0.2 . 5873"),
    ("https://198.51.100.7:8443", "198.51.100.7 . 8443"),
    ("https://[fd77::2]:5874", "fd77::2 . 5874"),
];

#[test]
fn of_all_urls_only_those_of_other_machines_are_dialled() {
    let Some(lab) = machine(false) else {
        return;
    };
    for (index, url) in REFUSED.iter().enumerate() {
        write(&lab, &format!("refused-{index}"), url);
    }
    for (index, (url, _)) in ALLOWED.iter().enumerate() {
        write(&lab, &format!("allowed-{index}"), url);
    }
    for (index, url) in REFUSED.iter().enumerate() {
        lab.until(PATIENCE, &format!("{url} is refused"), || {
            let Some(object) = lab.peer("milan", &format!("refused-{index}")) else {
                return Some(());
            };
            (reason(&object) == "AddressRefused").then_some(())
        });
    }
    let expected: BTreeSet<String> = ALLOWED
        .iter()
        .map(|(_, dialled)| (*dialled).to_owned())
        .collect();
    lab.until(PATIENCE, "all others are dialled", || {
        dialled(&lab).is_superset(&expected).then_some(())
    });
    assert_eq!(dialled(&lab), expected, "{}", lab.story());
}

/// A name server that changes its mind: first an honest address, then one of ours.
#[test]
fn a_name_that_leads_elsewhere_the_second_time_leads_nowhere() {
    let Some(lab) = machine(false) else {
        return;
    };
    let _resolver = Resolver::of(&lab);
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let server = lab.beside("eve", move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(async {
            tokio::select! {
                () = stopped.cancelled() => {}
                () = flip() => {}
            }
        });
    });
    // What is resolved more than once for a dial would be seen here sooner or later.
    for index in 0..8 {
        write(
            &lab,
            &format!("flip-{index}"),
            &format!("https://flip{index}.example:5871"),
        );
        write(
            &lab,
            &format!("both-{index}"),
            &format!("https://both{index}.example:5872"),
        );
    }
    lab.until(PATIENCE, "the honest addresses are dialled", || {
        let wanted = ["10.77.0.2 . 5871", "10.77.0.2 . 5872"];
        let dialled = dialled(&lab);
        wanted
            .iter()
            .all(|one| dialled.contains(*one))
            .then_some(())
    });
    lab.until(PATIENCE, "each name was looked up again", || {
        let refused = |index: usize| {
            let object = lab.peer("milan", &format!("flip-{index}"));
            object.is_some_and(|object| reason(&object) == "AddressRefused")
        };
        (0..8).any(refused).then_some(())
    });
    let elsewhere: Vec<String> = dialled(&lab)
        .into_iter()
        .filter(|one| !one.starts_with("10.77.0.2 "))
        .collect();
    assert!(elsewhere.is_empty(), "{elsewhere:?}");
    stop.cancel();
    server.join().unwrap();
}

#[test]
fn what_is_announced_off_the_lan_is_not_dialled() {
    let Some(lab) = machine(true) else {
        return;
    };
    let forged: [[u8; 4]; 8] = [
        [127, 0, 0, 1],
        [169, 254, 169, 254],
        [198, 51, 100, 7],
        [10, 244, 0, 9],
        [10, 96, 0, 1],
        [10, 77, 0, 255],
        [10, 77, 0, 1],
        [224, 0, 0, 251],
    ];
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let forger = lab.beside("eve", move || {
        let socket = std::net::UdpSocket::bind((Ipv4Addr::new(10, 77, 0, 2), 5353)).unwrap();
        socket.set_multicast_ttl_v4(255).unwrap();
        while !stopped.is_cancelled() {
            let truth = [10, 77, 0, 2];
            for (index, address) in forged.into_iter().chain([truth]).enumerate() {
                let id = format!("{index:08}-0000-8000-8000-000000000000");
                let packet = announcement("_liqo_auth", &id, address.into());
                socket
                    .send_to(&packet, (Ipv4Addr::new(224, 0, 0, 251), 5353))
                    .unwrap();
            }
            std::thread::sleep(Duration::from_millis(250));
        }
    });
    lab.until(PATIENCE, "the machine on the LAN is dialled", || {
        dialled(&lab).contains("10.77.0.2 . 5870").then_some(())
    });
    // The others have been heard as often.
    std::thread::sleep(Duration::from_secs(2));
    let only = BTreeSet::from(["10.77.0.2 . 5870".to_owned()]);
    assert_eq!(dialled(&lab), only, "{}", lab.story());
    stop.cancel();
    forger.join().unwrap();
}

/// A machine with a daemon that counts whom it dials, and a hostile one to which every way leads.
fn machine(lan: bool) -> Option<Lab> {
    let mut lab = Lab::new(&["milan", "eve"])?;
    if !lan {
        lab.set("LANDBRIDGE_LAN_ENABLED", "false");
    }
    for (machine, address) in [("milan", "fd77::1"), ("eve", "fd77::2")] {
        lab.ip(
            Some(machine),
            &format!("address add {address}/64 dev eth0 nodad"),
        );
    }
    lab.ip(Some("milan"), "route add default via 10.77.0.2");
    lab.ip(Some("milan"), "-6 route add default via fd77::2");
    let rules = "table inet dialled {
        set v4 { type ipv4_addr . inet_service; flags dynamic; }
        set v6 { type ipv6_addr . inet_service; flags dynamic; }
        chain out {
            type filter hook output priority 0;
            ip daddr 127.0.0.1 tcp dport 5872 accept
            tcp flags & (syn | ack) == syn add @v4 { ip daddr . tcp dport }
            tcp flags & (syn | ack) == syn add @v6 { ip6 daddr . tcp dport }
        }
    }";
    let file = lab.data_dir("rules");
    fs::write(&file, rules).unwrap();
    let loaded = lab.run("milan", &["nft", "-f", file.to_str().unwrap()]);
    assert!(loaded.status.success(), "{loaded:?}");
    lab.start("milan");
    Some(lab)
}

/// Lists the addresses and ports that got a SYN.
fn dialled(lab: &Lab) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for set in ["v4", "v6"] {
        let listing = lab.output(
            "milan",
            &["nft", "-n", "list", "set", "inet", "dialled", set],
        );
        let elements = listing
            .split_once("elements = {")
            .map_or("", |(_, rest)| rest);
        let elements = elements.split('}').next().unwrap_or_default();
        all.extend(
            elements
                .split(',')
                .map(|one| one.trim().to_owned())
                .filter(|one| !one.is_empty()),
        );
    }
    all
}

fn write(lab: &Lab, name: &str, url: &str) {
    let object = json!({
        "apiVersion": "discovery.liqo.io/v1alpha1",
        "kind": "ForeignCluster",
        "metadata": {"name": name},
        "spec": {"authUrl": url, "join": true},
    });
    let path = "/apis/discovery.liqo.io/v1alpha1/foreignclusters";
    // The API itself may refuse it, which is as good.
    let _ = lab.try_request("milan", "POST", path, &object);
}

fn reason(object: &Value) -> String {
    let conditions = object["status"]["conditions"].as_array();
    let mut all = conditions.into_iter().flatten();
    let one = all.find(|one| one["type"] == "EndpointReachable");
    one.and_then(|one| one["reason"].as_str())
        .unwrap_or_default()
        .to_owned()
}

/// The resolver's configuration of one namespace; `ip netns exec` puts it in place of the host's.
struct Resolver(PathBuf);

impl Resolver {
    fn of(lab: &Lab) -> Self {
        let folder = PathBuf::from(format!("/etc/netns/{}milan", lab.prefix()));
        fs::create_dir_all(&folder).unwrap();
        let server = "nameserver 10.77.0.2\noptions timeout:1 attempts:2\n";
        fs::write(folder.join("resolv.conf"), server).unwrap();
        lab.kill("milan");
        lab.start("milan");
        Self(folder)
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
        // Only when nobody else has a namespace with files of its own.
        let _ = fs::remove_dir("/etc/netns");
    }
}

/// Answers look-ups: names that begin with `flip` lead to eve at first, and then to the machine that
/// asks; those that begin with `both` lead to both at once.
async fn flip() {
    let socket = UdpSocket::bind("10.77.0.2:53").await.unwrap();
    let mut asked = BTreeMap::new();
    let mut buffer = [0; 512];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
        let answer = answer(&buffer[..length], &mut asked);
        let _ = socket.send_to(&answer, from).await;
    }
}

fn answer(query: &[u8], asked: &mut BTreeMap<Vec<u8>, u32>) -> Vec<u8> {
    let end = 12 + query[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
    let name = query[13..end - 4].to_vec();
    let is_v4 = query[end - 3] == 1;
    let times = asked.entry(query[13..end].to_vec()).or_default();
    *times += 1;
    let eve = vec![10, 77, 0, 2];
    let own = vec![127, 0, 0, 1];
    let addresses = match (is_v4, name.starts_with(b"flip"), *times) {
        (true, true, 1) => vec![eve],
        (true, true, _) => vec![own],
        (true, false, _) => vec![own, eve],
        (false, _, _) => vec![[vec![0; 15], vec![1]].concat()],
    };
    let count = u16::try_from(addresses.len()).unwrap();
    let mut packet = query[..2].to_vec();
    packet.extend([0x84, 0, 0, 1]);
    packet.extend(count.to_be_bytes());
    packet.extend([0; 4]);
    packet.extend(&query[12..end]);
    for address in addresses {
        packet.extend([0xc0, 12]);
        packet.extend(&query[end - 4..end]);
        packet.extend([0, 0, 0, 0]);
        packet.extend(u16::try_from(address.len()).unwrap().to_be_bytes());
        packet.extend(address);
    }
    packet
}
